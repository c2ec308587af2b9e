"""A renderer with delays, failures, hangs and wrong shapes to order."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pipeline.frame_cache import face_code
from pipeline.ports import PreparedPortrait
from pipeline.types import FaceControls, FaceLandmarks, Image, Portrait

Step = Callable[[], Image | None]
"""Stands in for one call of `render`: may wait, raise, or give an image of its own."""


@dataclass(frozen=True, slots=True, eq=False)
class FakePrepared:
    """Implements `pipeline.ports.PreparedPortrait`."""

    portrait: Portrait


class FakeRenderer:
    """Implements `pipeline.ports.Renderer`: flat pictures whose grey tells the face.

    It is obedient by default. `then` orders what the next calls of `render` do, `always` what
    every call without such an order does; `prepare_error` and `on_prepare` trouble `prepare`.
    It notes every call with the thread that made it.
    """

    def __init__(self, name: str = "fake", device: str = "cpu") -> None:
        self.name = name
        self.device = device
        self.rendered: list[tuple[str, bytes]] = []
        self.prepared: list[str] = []
        self.threads = {threading.get_ident()}
        self.closed = 0
        self.always: Step | None = None
        self.prepare_error: Exception | None = None
        self.on_prepare: Callable[[], None] = lambda: None
        self._steps: deque[Step] = deque()

    def then(self, *steps: Step) -> None:
        """Order what the next calls of `render` do, one step each."""
        self._steps.extend(steps)

    def prepare(self, portrait: Portrait) -> PreparedPortrait:
        self.threads.add(threading.get_ident())
        self.prepared.append(portrait.key)
        self.on_prepare()
        if self.prepare_error is not None:
            raise self.prepare_error
        return FakePrepared(portrait)

    def render(
        self, prepared: PreparedPortrait, controls: FaceControls, size_px: tuple[int, int]
    ) -> Image:
        self.threads.add(threading.get_ident())
        self.rendered.append((prepared.portrait.key, face_code(controls)))
        step = self._steps.popleft() if self._steps else self.always
        image = step() if step is not None else None
        return fake_frame(controls, size_px) if image is None else image

    def close(self) -> None:
        self.threads.add(threading.get_ident())
        self.closed += 1


class Gate:
    """A step that waits until the test opens it; `entered` tells that it does."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self._open = threading.Event()

    def __call__(self) -> None:
        self.entered.set()
        if not self._open.wait(20.0):
            raise AssertionError("the test never opened the gate")

    def open(self) -> None:
        self._open.set()


def fails(error: Exception) -> Step:
    """A step that raises."""

    def step() -> Image | None:
        raise error

    return step


def takes(seconds: float) -> Step:
    """A step that is slow."""

    def step() -> Image | None:
        time.sleep(seconds)
        return None

    return step


def gives(image: Image) -> Step:
    """A step that draws this, whatever was asked for."""
    return lambda: image


def fake_frame(controls: FaceControls, size_px: tuple[int, int]) -> Image:
    """What `FakeRenderer` draws: (height, width, 3) uint8 RGB, lighter with the smile."""
    width, height = size_px
    grey = 40 + round(160 * controls["mouthSmileLeft"])
    return np.full((height, width, 3), grey, np.uint8)


def fake_portrait(name: str = "ada", size: int = 48) -> Portrait:
    """A portrait without a face: nothing but this renderer draws it."""
    rows = np.linspace(0, 255, size, dtype=np.uint8)
    image = np.broadcast_to(rows[:, None, None], (size, size, 3)).copy()
    image.flags.writeable = False
    landmarks = FaceLandmarks(np.full((68, 2), size / 2), np.full((2, 3), size / 2), "file")
    return Portrait(name=name, image=image, landmarks=landmarks, key=f"key-of-{name}")

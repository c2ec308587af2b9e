"""What is measured: one form of LivePortrait with the bundled character, stage by stage."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import torch
from torch import Tensor

from orchestrator.settings import StageSettings
from pipeline.encoding import encode
from pipeline.framing import Framing
from pipeline.liveportrait import LivePortrait
from pipeline.liveportrait.arkit import express
from pipeline.liveportrait.cuda_path import GraphCapture
from pipeline.liveportrait.devices import running_on
from pipeline.liveportrait.prepared import driven_keypoints
from pipeline.types import FaceControls, Image, ImageFormat, Portrait
from tests.benchmarks.character import character
from tests.benchmarks.liveportrait.forms import Form

SETTINGS: Final = StageSettings()
PREPARE: Final = "prepare"
# Of a frame, in their order; those in WARP_AND_DECODE run on the device.
STAGES: Final = ("stitch", "warp", "decode", "to host", "paste", "encode")
ON_DEVICE: Final = ("warp", "decode")


class Timed(Protocol):
    """Does the work of a stage and takes its time."""

    def __call__(self, stage: str, work: Callable[[], Any]) -> Any: ...


class Pending(Protocol):
    """A frame that is being drawn."""

    def picture(self) -> Image: ...


class Subject(Protocol):
    """A form with a portrait, ready to draw once `prepare` was called."""

    prepared_bytes: int

    @property
    def fallback_reasons(self) -> Sequence[str]:
        """Why frames are drawn slower than they could be."""
        ...

    def prepare(self, *, keep: bool = True) -> None:
        """Do what is done once per portrait.

        Args:
            keep: draw what was prepared from now on.
        """
        ...

    def begin(self, face: FaceControls) -> Pending:
        """Start a frame."""
        ...

    def staged(self, face: FaceControls, timed: Timed, *, replayed: bool = True) -> bytes:
        """Draw and encode a frame in stages: the JPEG.

        Args:
            replayed: as the fast path does it on CUDA, by CUDA graphs; else as it would be
                without them, for counting.
        """
        ...

    def close(self) -> None:
        """Let go of all memory."""
        ...


class Model:
    """A loaded form."""

    def __init__(self, weights_dir: Path, device: str, form: Form) -> None:
        self._model = LivePortrait.load(weights_dir, device, form.dtype, form.fast)
        self._graphs = form.fast and self._model.device.type == "cuda"
        self._portrait: Portrait = character().load().portrait
        self._replayed: tuple[Tensor, Callable[[], Tensor], Callable[[], Tensor]] | None = None
        self.prepared_bytes = 0

    @property
    def fallback_reasons(self) -> Sequence[str]:
        return self._model.fallback_reasons

    def prepare(self, *, keep: bool = True) -> None:
        prepared = self._model.prepare(self._portrait)
        if not keep:
            return
        self._prepared = prepared
        self.prepared_bytes = self._prepared.bytes

    def begin(self, face: FaceControls) -> Pending:
        return self._model.begin(self._prepared, face, SETTINGS.size_px)

    def staged(self, face: FaceControls, timed: Timed, *, replayed: bool = True) -> bytes:
        # What `begin` and `picture` do, taken apart: these parts have no public names.
        model, prepared = self._model, self._prepared
        with self._working():
            kp_driving = timed(
                "stitch", lambda: driven_keypoints(model._small_here, prepared, express(face))
            )
            if self._graphs and replayed:
                picture = self._replay(kp_driving, timed)
            else:
                picture = self._run(kp_driving.to(model.device), timed)
            levels = timed("to host", lambda: _levels(picture))
        framing = Framing.of(prepared.portrait, SETTINGS.size_px)
        pasted = timed("paste", lambda: framing.cut(prepared.paste(levels)))
        encoded: bytes = timed("encode", lambda: jpeg(pasted))
        return encoded

    def close(self) -> None:
        self._replayed = None
        self._model.close()

    def _run(self, kp_driving: Tensor, timed: Timed) -> Tensor:
        engine = self._model._engine
        source = self._prepared.sources[self._model.dtype]
        features: Tensor = timed("warp", lambda: engine.warp(source, kp_driving).out)
        picture: Tensor = timed("decode", lambda: engine.decode(features))
        return picture

    def _replay(self, kp_driving: Tensor, timed: Timed) -> Tensor:
        """Each network from a graph of its own, where a frame has one graph of both.

        The portrait is always the same: the graphs keep reading what was prepared first.
        """
        if self._replayed is None:
            engine, device = self._model._engine, self._model.device
            source = self._prepared.sources[self._model.dtype]
            held = kp_driving.to(device, copy=True)
            warp = _captured(device, lambda: engine.warp(source, held).out)
            features = warp()
            self._replayed = held, warp, _captured(device, lambda: engine.decode(features))
        held, warp, decode = self._replayed
        held.copy_(kp_driving)
        timed("warp", warp)
        picture: Tensor = timed("decode", decode)
        return picture

    def _working(self) -> AbstractContextManager[None]:
        return self._model._working()


def jpeg(picture: Image) -> bytes:
    """As the daemon encodes its frames."""
    return encode(picture, ImageFormat.JPEG, SETTINGS.jpeg_quality)


def half_types(device: str) -> tuple[str, ...]:
    """The half precisions that a device is quick in."""
    kind = torch.device(device).type
    if kind == "cuda":
        return "float16", "bfloat16"
    has_bfloat16 = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    return ("bfloat16",) if kind == "cpu" and has_bfloat16() else ()


def _captured(device: torch.device, work: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """A CUDA graph of the work; the work itself where it cannot be captured, as in the model."""
    with running_on(device, fixed_shapes=True):
        capture = GraphCapture(device)
        capture.warm_up(work)
        try:
            return capture.capture(work)
        except RuntimeError:
            return work


def _levels(picture: Tensor) -> Image:
    levels = picture[0].mul(255).to(torch.uint8).permute(1, 2, 0).contiguous()
    return np.ascontiguousarray(levels.cpu().numpy())

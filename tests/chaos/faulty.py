"""The daemon with a renderer that fails to order, and a wall clock that can be set.

`python -m tests.chaos.faulty [ORDER ...]` runs as `avatar-orchestrator run` does. Orders are taken
from the command line before the start, and from the standard input, one a line:

    well          draw as the mesh renderer does
    raise, memory, shape, exit, lost
                  raise an error, run out of memory, draw the wrong shape, end the thread that
                  draws, say that the device is gone; every time, until told otherwise
    hang          never come back from a frame, until told otherwise; the first one of each
                  renderer, with which it is prepared, does
    busy SECONDS  take at least so long for each frame, all of it at work
    load SECONDS  take so long to be loaded (before the start)
    clock SECONDS set the wall clock, for all of Python, to so much more than the real one
    aside         be the wanted one of two, loaded in the background (before the start)
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import time_machine

import orchestrator.__main__
import orchestrator.app
from orchestrator.settings import Settings
from pipeline.errors import DeviceLostError
from pipeline.mesh.renderer import MeshRenderer
from pipeline.ports import PreparedPortrait
from pipeline.render_host import RendererSource
from pipeline.types import FaceControls, Image, Portrait

FOR_EVER_S = 600.0


class Orders:
    """What the renderer is to do from now on; any thread may ask."""

    def __init__(self) -> None:
        self.load_s = 0.0
        self.aside = False
        self._fault = "well"
        self._seconds = 0.0
        self._healed = threading.Event()
        self._clock: time_machine.travel | None = None

    def take(self, line: str) -> None:
        """Obey one line."""
        order, _, argument = line.strip().partition(" ")
        match order:
            case "clock":
                self._set_clock(float(argument))
            case "load":
                self.load_s = float(argument)
            case "aside":
                self.aside = True
            case _:
                self._seconds = float(argument or 0.0)
                self._healed.set()
                self._healed = threading.Event()
                self._fault = order

    def _set_clock(self, offset_s: float) -> None:
        if self._clock is not None:
            self._clock.stop()
        self._clock = time_machine.travel(time.time() + offset_s, tick=True)
        self._clock.start()

    def obey(self, draw: Callable[[], Image], *, first: bool = False) -> Image:
        """Draw a frame, or fail at it."""
        match self._fault:
            case "raise":
                raise ValueError("told to fail")
            case "memory":
                raise MemoryError("told to have none")
            case "lost":
                raise DeviceLostError("told that the device is gone")
            case "exit":
                raise SystemExit("told to end the thread")
            case "shape":
                return np.zeros((3, 3, 3), np.uint8)
            case "hang" if not first:
                self._healed.wait(FOR_EVER_S)
            case "busy":
                return _busily(draw, self._seconds)
        return draw()


def _busily(draw: Callable[[], Image], seconds: float) -> Image:
    """Draw, and keep the core at work until the time is over, as a larger picture would."""
    end_s = time.perf_counter() + seconds
    image = draw()
    field = np.ones((256, 256), np.float32)
    while time.perf_counter() < end_s:
        np.sqrt(field, out=field)
    return image


class FaultyRenderer:
    """The mesh renderer under orders."""

    def __init__(self, name: str, orders: Orders) -> None:
        time.sleep(orders.load_s)
        self._orders = orders
        self._mesh = MeshRenderer(None)
        self.name = name
        self.device = self._mesh.device
        self._first = True

    def prepare(self, portrait: Portrait) -> PreparedPortrait:
        return self._mesh.prepare(portrait)

    def render(
        self, prepared: PreparedPortrait, controls: FaceControls, size_px: tuple[int, int]
    ) -> Image:
        first, self._first = self._first, False
        return self._orders.obey(
            lambda: self._mesh.render(prepared, controls, size_px), first=first
        )

    def close(self) -> None:
        self._mesh.close()


def main() -> int:
    """Run until SIGTERM.

    Returns:
        The exit status.
    """
    orders = Orders()
    for order in sys.argv[1:]:
        orders.take(order)
    threading.Thread(target=_listen, args=(orders,), daemon=True).start()

    def choose(settings: Settings) -> tuple[tuple[RendererSource, ...], str]:
        mesh = RendererSource(
            "mesh", partial(MeshRenderer, None), prepares_aside=True, by_size=True
        )
        if orders.aside:
            wanted = RendererSource(
                "faulty", partial(FaultyRenderer, "faulty", orders), background=True
            )
            return (wanted, mesh), "a test"
        faulty = RendererSource(
            "mesh", partial(FaultyRenderer, "mesh", orders), prepares_aside=True, by_size=True
        )
        return (faulty,), "a test"

    orchestrator.app.choose_renderers = choose
    return orchestrator.__main__.main(["run"])


def _listen(orders: Orders) -> None:
    for line in sys.stdin:
        orders.take(line)


if __name__ == "__main__":
    sys.exit(main())

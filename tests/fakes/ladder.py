"""A ladder that draws nothing: pictures say which face they would show."""

import asyncio
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from pipeline.ahead import Face
from pipeline.errors import RenderError
from pipeline.frame_cache import CacheStats
from pipeline.types import FaceControls, ImageFormat, Portrait
from tests.fakes.clock import VirtualClock


@dataclass(frozen=True)
class FakePicture:
    """What the stage needs of a picture."""

    controls: FaceControls
    weights: Mapping[str, float]
    portrait: str
    exact: bool = True
    cached: bool = False
    degraded: str | None = None
    width: int = 64
    height: int = 64

    @property
    def jpeg(self) -> bytes:
        return b"jpeg"

    async def encoded(self, image_format: ImageFormat) -> bytes:
        return image_format.value.encode()


class FakeLadder:
    """Takes `render_s` of virtual time per picture; degraded and refusing on demand."""

    def __init__(self, clock: VirtualClock, render_s: float = 0.0) -> None:
        self.clock = clock
        self.render_s = render_s
        self.degraded: str | None = None
        self.refuses: str | None = None
        self.gate: asyncio.Event | None = None
        self.shown: list[str] = []
        self.ahead: list[Face] = []
        self.wants_steps = False
        self.upcoming: Callable[[], Iterable[Face]] = lambda: ()
        self.recovered: Callable[[], None] = lambda: None
        self.pictures = 0
        self.renderer = "fake"
        self.device = "cpu"

    def cache_stats(self) -> CacheStats:
        return CacheStats(hits=1, misses=2, entries=3, pinned=0, bytes=4, max_bytes=5)

    async def show(
        self,
        portrait: Portrait,
        ahead: Sequence[Face],
        later: Sequence[Face] = (),
        *,
        accept_still: bool = False,
    ) -> None:
        if self.gate is not None:
            await self.gate.wait()
        if self.refuses is not None:
            raise RenderError(self.refuses)
        self.ahead = list(ahead)
        self.shown.append(portrait.name)

    async def picture(
        self,
        controls: FaceControls,
        weights: Mapping[str, float],
        steps: Callable[[], Sequence[Face]] = tuple,
        *,
        by_s: float = math.inf,
    ) -> FakePicture:
        self.pictures += 1
        await self.clock.sleep_until(self.clock.now() + self.render_s)
        if self.degraded is not None:
            neutral = {"neutral": 1.0}
            return FakePicture(
                FaceControls(), neutral, self.shown[-1], exact=False, degraded=self.degraded
            )
        return FakePicture(controls, weights, self.shown[-1])

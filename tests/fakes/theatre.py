"""A fallback ladder with everything that it needs, and renderers that take orders."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial

from pipeline.encoding import decode_jpeg
from pipeline.fallback import FallbackLadder
from pipeline.frame_cache import FrameCache
from pipeline.picture import FormatEncoder, Picture
from pipeline.ports import Metric
from pipeline.render_host import RendererSource, RenderHost
from pipeline.types import FaceControls, Portrait
from tests.fakes.clock import VirtualClock
from tests.fakes.metrics import RecordingMetrics
from tests.fakes.renderer import FakeRenderer, fake_portrait
from tests.fakes.waiting import until

SIZE = (64, 48)
HASTE_S = 0.03

Faces = Sequence[tuple[FaceControls, Mapping[str, float]]]


def smile(strength: float) -> FaceControls:
    return FaceControls.of(mouthSmileLeft=strength)


AHEAD: Faces = [(smile(0), {"neutral": 1.0}), (smile(0.8), {"neutral": 0.2, "happy": 0.8})]


class Theatre:
    """A ladder with everything it needs, on virtual time.

    Args:
        names: of the renderers, wanted first.
        background: which of them load and draw in the background.
        device: that they say they run on.
    """

    def __init__(
        self,
        *names: str,
        cache_bytes: int = 2**20,
        background: Sequence[str] = (),
        release_after_s: float | None = None,
        device: str = "cpu",
    ) -> None:
        self.device = device
        self.clock = VirtualClock()
        self.metrics = RecordingMetrics()
        self.lost: list[str] = []
        self.made: list[FakeRenderer] = []
        self.on_make: Callable[[FakeRenderer], None] = lambda renderer: None
        self.host = RenderHost(
            [
                RendererSource(
                    name,
                    partial(self.make, name),
                    background=name in background,
                    release_after_s=release_after_s if name in background else None,
                )
                for name in names or ("mesh",)
            ],
            metrics=self.metrics,
            on_device_lost=self.lost.append,
            clock=self.clock.now,
        )
        self.cache = FrameCache(cache_bytes, self.metrics)
        self.encoder = FormatEncoder(self.cache, self.metrics)
        self.ladder = self.stage("main")

    def make(self, name: str) -> FakeRenderer:
        renderer = FakeRenderer(name, self.device)
        self.on_make(renderer)
        self.made.append(renderer)
        return renderer

    def stage(self, name: str) -> FallbackLadder:
        return FallbackLadder(
            self.host,
            self.cache,
            self.encoder,
            stage=name,
            size_px=SIZE,
            quality=90,
            deadline_s=20.0,
            metrics=self.metrics,
            clock=self.clock.now,
        )

    def renderer(self, name: str = "mesh") -> FakeRenderer:
        """The one made last under that name."""
        return next(made for made in reversed(self.made) if made.name == name)

    async def show(self, portrait: Portrait | None = None, ahead: Faces = AHEAD) -> None:
        await self.ladder.show(portrait or fake_portrait(), ahead)

    async def picture(self, strength: float, **weights: float) -> Picture:
        return await self.ladder.picture(smile(strength), weights or {"happy": strength})

    async def picture_by(self, in_s: float, strength: float) -> Picture:
        """The stream would pause if it took longer than `in_s`."""
        by_s = self.clock.now_s + in_s
        return await self.ladder.picture(smile(strength), {"happy": strength}, by_s=by_s)

    async def recovered(self) -> None:
        """Let the probe that is due run to its end."""
        await until(lambda: self.ladder.degraded is None)

    async def idle(self) -> None:
        """Let the render threads finish what they have been given."""
        for name in self.host.names:
            await self.host.worker(name).run(lambda: None, "idle")

    @contextmanager
    def haste(self) -> Iterator[None]:
        """Pictures have a short deadline for a while; else it is too long to matter."""
        recovery = self.ladder._recovery
        before = self.ladder._deadline_s
        for each in (self.ladder, recovery, recovery.ahead):
            each._deadline_s = HASTE_S
        yield
        for each in (self.ladder, recovery, recovery.ahead):
            each._deadline_s = before

    async def close(self) -> None:
        self.ladder.close()
        await self.host.close(5.0)
        await self.encoder.close(5.0)

    def rung_metrics(self, stage: str = "main") -> set[str]:
        """The rungs that the metrics call serving."""
        rungs = (*self.host.names, "cached", "neutral", "portrait")
        values = {
            rung: self.metrics.gauge(Metric.DEGRADED, stage=stage, rung=rung) for rung in rungs
        }
        assert set(values.values()) <= {0.0, 1.0}
        return {rung for rung, value in values.items() if value}

    def failures(self, **labels: str) -> float:
        return self.metrics.total(Metric.RENDER_FAILURES, **labels)


def brightness(picture: Picture) -> int:
    """The grey of the picture, which tells the smile: 40 at rest, 200 in full."""
    return int(decode_jpeg(picture.jpeg).mean())

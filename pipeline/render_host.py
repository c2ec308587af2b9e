"""The renderers, each in a thread of its own that owns it from load to close."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Final, TypeVar

import numpy as np
import structlog

from pipeline.errors import (
    AvatarError,
    BadFrameError,
    DeviceLostError,
    DropReason,
    JobDroppedError,
    OutOfMemoryError,
    RenderError,
)
from pipeline.frame_cache import quantise
from pipeline.ports import Metric, Metrics, PreparedPortrait, Renderer
from pipeline.render_worker import RenderWorker
from pipeline.types import FaceControls, Image, Portrait

log = structlog.get_logger()

T = TypeVar("T")
Size = tuple[int, int]
"""(width, height) in pixels."""

HANG_S: Final = 5.0
PREPARE_LIMIT_S: Final = 60.0
LOAD_LIMIT_S: Final = 300.0
SPARE_PORTRAITS: Final = 4
ONCE_WAITING: Final = 32
_SLOW_HANGS: Final = 20.0
_LOOK_S: Final = 0.25


@dataclass(frozen=True, slots=True)
class RendererSource:
    """How to get a renderer.

    Attributes:
        name: equal to the `name` of what `make` returns.
        make: called in the render thread, again after that thread had to be replaced.
        prepares_aside: portraits may be prepared by another instance in another thread, so
            that preparing does not hold up the frames on stage. For renderers whose prepared
            portraits are plain data; not for those tied to a device's context.
        background: takes long to load or to draw, so nobody waits for it: the renderers below
            serve until it is ready.
        release_after_s: seconds without anybody who watches after which it is let go, until it
            is needed again; None keeps it.
        by_size: most of preparing is done with the first frame of a size. So a portrait is
            prepared for each size that is on stage, and a frame drawn there to make it ready.
    """

    name: str
    make: Callable[[], Renderer]
    prepares_aside: bool = False
    background: bool = False
    release_after_s: float | None = None
    by_size: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Drawing:
    """One frame fresh from a renderer.

    Attributes:
        image: (height, width, 3) uint8 RGB, nobody else's.
        render_s: what drawing took, without loading and preparing.
    """

    image: Image
    render_s: float


class RenderHost:
    """Renderers in order of preference, each made, used and closed by one thread.

    A thread each, so that one renderer that loads, is slow or hangs never holds up the next.
    Renderers and their prepared portraits are shared by all stages. `draw` is for jobs of a
    renderer's `worker`, which run in its thread; everything else belongs to the event loop's.

    Args:
        sources: wanted first; not empty.
        hang_s: a frame that takes longer has hung, and its thread is replaced; a renderer that
            is always slow has `_SLOW_HANGS` times what it usually takes.
        prepare_limit_s: the same for preparing a portrait.
        load_limit_s: the same for making a renderer.
        on_device_lost: called once, with the reason, when only a new process can help: the
            device is gone, or too many threads are stuck.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        sources: Sequence[RendererSource],
        *,
        metrics: Metrics,
        hang_s: float = HANG_S,
        prepare_limit_s: float = PREPARE_LIMIT_S,
        load_limit_s: float = LOAD_LIMIT_S,
        on_device_lost: Callable[[str], None] = lambda reason: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if not sources:
            raise ValueError("sources: expected at least one renderer")
        self._sources = {source.name: source for source in sources}
        self._metrics = metrics
        self._hang_s = hang_s
        self._prepare_limit_s = prepare_limit_s
        self._load_limit_s = load_limit_s
        self._on_device_lost = on_device_lost
        self._lost = False
        self._devices: dict[str, str] = {}
        self._on_stage: dict[Hashable, tuple[str, Size | None]] = {}
        self._once = asyncio.Lock()
        self._once_waiting = 0
        self._ready: set[str] = set()
        self._clock = clock
        self._touched_s = clock()
        # Encodes the frames of those that draw in the background, beside their next frame.
        self._finisher = ThreadPoolExecutor(1, thread_name_prefix="finish")
        # Each thread has the renderers that it made, and closes them when it ends.
        self._mine = _Mine()
        self._workers = {
            name: RenderWorker(
                name, finisher=self._finisher, on_thread_end=self._close_mine, clock=clock
            )
            for name in self._sources
        }
        self._aside = RenderWorker("prepare", on_thread_end=self._close_mine, clock=clock)

    @property
    def names(self) -> tuple[str, ...]:
        """The renderers' names, wanted first."""
        return tuple(self._sources)

    @property
    def sources(self) -> tuple[RendererSource, ...]:
        """How to get them, wanted first."""
        return tuple(self._sources.values())

    def worker(self, name: str) -> RenderWorker:
        """The thread of that renderer."""
        return self._workers[name]

    def encodes_beside(self, name: str) -> bool:
        """Its frames are encoded while it draws the next."""
        return self._sources[name].background

    def is_ready(self, name: str) -> bool:
        """It is loaded and has not been let go since."""
        return name in self._ready

    def touch(self) -> None:
        """Somebody watches: nothing is idle."""
        self._touched_s = self._clock()

    def is_needed(self, name: str) -> bool:
        """Somebody has watched within the time for which its source keeps it."""
        allowed_s = self._sources[name].release_after_s
        return allowed_s is None or self._clock() - self._touched_s <= allowed_s

    def release_idle(self) -> None:
        """Let go of what nobody has needed for as long as its source allows."""
        for name in self.names:
            if self.is_ready(name) and not self.is_needed(name):
                log.info("renderer_let_go", renderer=name)
                self.let_go(name)

    def device(self, name: str) -> str | None:
        """The device of that renderer; None until it has been loaded."""
        return self._devices.get(name)

    def keep(self, owner: Hashable, portrait: Portrait | None, size_px: Size | None = None) -> None:
        """Keep `owner`'s portrait prepared until it names another, or None.

        Args:
            size_px: (width, height) of its frames.
        """
        if portrait is None:
            self._on_stage.pop(owner, None)
        else:
            self._on_stage[owner] = portrait.key, size_px

    async def prepare(
        self, name: str, portrait: Portrait, owner: Hashable, size_px: Size | None = None
    ) -> None:
        """Have the renderer loaded and the portrait prepared, as far as that is not done yet.

        Args:
            size_px: (width, height) of the frames to come.

        Raises:
            RenderError: it could not be done.
        """
        aside = self._sources[name].prepares_aside
        has = partial(self._has, name, portrait, size_px)
        if not aside or await self.finish(name, has, owner):
            await self.finish(name, partial(self._prepare, name, portrait, size_px), owner)
            return
        job = partial(self._prepare_aside, name, portrait, size_px)
        prepared = await self._finish(self._aside, job, owner)
        take_in = partial(self._take_in, name, portrait, size_px, prepared)
        await self.finish(name, take_in, owner)

    async def finish(self, name: str, job: Callable[[], T], owner: Hashable) -> T:
        """Carry out a renderer's job that may take its time; replace a thread that gets stuck.

        Raises:
            RenderError: the job raised it, was dropped, or hung (`JobDroppedError`).
        """
        return await self._finish(self._workers[name], job, owner)

    def let_go(self, name: str) -> None:
        """Close a renderer and free what it holds; the next job that needs it loads it anew."""
        self._ready.discard(name)
        self._workers[name].submit(partial(self._close_one, name), "let go")

    async def _finish(self, worker: RenderWorker, job: Callable[[], T], owner: Hashable) -> T:
        future = worker.submit(job, owner)
        try:
            while not (await asyncio.wait((future,), timeout=_LOOK_S))[0]:
                self.rescue()
        finally:
            future.cancel()
        return future.result()

    async def draw_once(
        self, portrait: Portrait, controls: FaceControls, size_px: tuple[int, int]
    ) -> Drawing:
        """Draw a picture that belongs to no stage, with the best renderer that can.

        One at a time, in turn with the stages' frames, so that many requests do not hold
        those up.

        Raises:
            RenderError: no renderer can; or too many requests wait (`JobDroppedError`).
        """
        if self._once_waiting >= ONCE_WAITING:
            raise JobDroppedError(DropReason.FULL)
        self._once_waiting += 1
        try:
            async with self._once:
                return await self._draw_best(portrait, quantise(controls), size_px)
        finally:
            self._once_waiting -= 1

    async def _draw_best(
        self, portrait: Portrait, controls: FaceControls, size_px: tuple[int, int]
    ) -> Drawing:
        errors = []
        for name in self._without_waiting():
            try:
                await self.prepare(name, portrait, "once", size_px)
                job = partial(self.draw, name, portrait, controls, size_px)
                return await self.finish(name, job, "once")
            except RenderError as error:
                self.note(error)
                errors.append(error)
        raise errors[0]

    def _without_waiting(self) -> tuple[str, ...]:
        """The renderers that need not be loaded first, as far as there are any."""
        at_hand = (s.name for s in self.sources if not s.background or self.is_ready(s.name))
        return tuple(at_hand) or self.names

    def rescue(self) -> None:
        """Replace a thread whose job has exceeded its limit."""
        for worker in (*self._workers.values(), self._aside):
            if not worker.overdue:
                continue
            if worker.abandon():
                self._ready.discard(worker.name)
                log.error("stuck_thread_replaced", worker=worker.name)
            else:
                self.report_lost("too many renders hang")

    def note(self, error: BaseException) -> None:
        """If the device is lost, tell the application."""
        if isinstance(error, DeviceLostError):
            self.report_lost(str(error) or "device lost")

    def report_lost(self, reason: str) -> None:
        """Only a new process can help; tell the application, once."""
        if not self._lost:
            self._lost = True
            log.critical("render_device_lost", reason=reason)
            self._on_device_lost(reason)

    async def close(self, deadline_s: float) -> bool:
        """Let the jobs in flight finish, close the renderers and end the threads.

        Returns:
            False if one is still at work after `deadline_s`.
        """
        workers = (*self._workers.values(), self._aside)
        ended = await asyncio.gather(*(worker.close(deadline_s) for worker in workers))
        self._finisher.shutdown(wait=False)
        return all(ended)

    # --- in the threads -------------------------------------------------------------------

    def draw(
        self, name: str, portrait: Portrait, controls: FaceControls, size_px: tuple[int, int]
    ) -> Drawing:
        """Draw one frame.

        Raises:
            RenderError: whatever went wrong.
        """
        loaded = self._loaded(name)
        prepared = self._prepared(loaded, portrait, size_px)
        self._workers[name].allow(self._hang_limit_s(name, loaded))
        begun_s = time.perf_counter()
        image = _guarded(lambda: loaded.renderer.render(prepared, controls, size_px))
        render_s = loaded.render_s = time.perf_counter() - begun_s
        self._metrics.observe(Metric.RENDER_SECONDS, render_s, renderer=name)
        return Drawing(_checked(image, size_px), render_s)

    def _hang_limit_s(self, name: str, loaded: _Loaded) -> float:
        if not self._sources[name].background:
            return self._hang_s
        if loaded.render_s is None:
            # The first frame compiles, tunes and allocates.
            return max(self._hang_s, self._prepare_limit_s)
        return max(self._hang_s, _SLOW_HANGS * loaded.render_s)

    def _prepare(self, name: str, portrait: Portrait, size_px: Size | None) -> PreparedPortrait:
        return self._prepared(self._loaded(name), portrait, size_px)

    def _prepare_aside(
        self, name: str, portrait: Portrait, size_px: Size | None
    ) -> PreparedPortrait:
        """The other thread's instance does the work and keeps nothing."""
        renderer = self._loaded(name).renderer
        self._aside.allow(self._prepare_limit_s)
        return self._made_ready(renderer, portrait, size_px)

    def _made_ready(
        self, renderer: Renderer, portrait: Portrait, size_px: Size | None
    ) -> PreparedPortrait:
        prepared = _guarded(lambda: renderer.prepare(portrait))
        if size_px is not None and self._sources[renderer.name].by_size:
            _guarded(lambda: renderer.render(prepared, FaceControls(), size_px))
        return prepared

    def _key(self, name: str, portrait: Portrait, size_px: Size | None) -> tuple[str, Size | None]:
        return portrait.key, size_px if self._sources[name].by_size else None

    def _has(self, name: str, portrait: Portrait, size_px: Size | None) -> bool:
        return self._key(name, portrait, size_px) in self._loaded(name).prepared

    def _take_in(
        self, name: str, portrait: Portrait, size_px: Size | None, prepared: PreparedPortrait
    ) -> None:
        self._keep(self._loaded(name), self._key(name, portrait, size_px), prepared)

    def _loaded(self, name: str) -> _Loaded:
        loaded = self._mine.renderers.get(name)
        if loaded is None:
            self._workers[name].allow(self._load_limit_s)
            begun_s = time.perf_counter()
            renderer = _guarded(self._sources[name].make)
            loaded = self._mine.renderers[name] = _Loaded(renderer)
            took_s = time.perf_counter() - begun_s
            log.info("renderer_loaded", renderer=name, device=renderer.device, s=round(took_s, 3))
            self._devices[name] = renderer.device
            self._ready.add(name)
        return loaded

    def _prepared(
        self, loaded: _Loaded, portrait: Portrait, size_px: Size | None
    ) -> PreparedPortrait:
        name = loaded.renderer.name
        key = self._key(name, portrait, size_px)
        prepared = loaded.prepared.get(key)
        if prepared is None:
            self._workers[name].allow(self._prepare_limit_s)
            prepared = self._made_ready(loaded.renderer, portrait, size_px)
            self._keep(loaded, key, prepared)
        loaded.prepared.move_to_end(key)
        return prepared

    def _keep(
        self, loaded: _Loaded, key: tuple[str, Size | None], prepared: PreparedPortrait
    ) -> None:
        """Those on stage stay prepared; of the others, the few used last."""
        loaded.prepared[key] = prepared
        on_stage = set(self._on_stage.copy().values())
        on_stage |= {(portrait, None) for portrait, _ in on_stage}
        spare = [each for each in loaded.prepared if each not in on_stage]
        for each in spare[: max(0, len(spare) - SPARE_PORTRAITS)]:
            del loaded.prepared[each]

    def _close_mine(self) -> None:
        for name in tuple(self._mine.renderers):
            self._close_one(name)

    def _close_one(self, name: str) -> None:
        loaded = self._mine.renderers.pop(name, None)
        if loaded is None:
            return
        self._ready.discard(name)
        loaded.prepared.clear()
        try:
            loaded.renderer.close()
        except Exception:
            log.exception("renderer_not_closed", renderer=name)


@dataclass(slots=True, eq=False)
class _Loaded:
    """A renderer of one thread.

    Attributes:
        prepared: by portrait key, used last at the end.
        render_s: what its last frame took; None before the first, which is the slowest.
    """

    renderer: Renderer
    render_s: float | None = None
    prepared: OrderedDict[tuple[str, Size | None], PreparedPortrait] = field(
        default_factory=OrderedDict
    )


class _Mine(threading.local):
    def __init__(self) -> None:
        self.renderers: dict[str, _Loaded] = {}


def _guarded(call: Callable[[], T]) -> T:
    """Whatever goes wrong inside a renderer is a `RenderError`."""
    try:
        return call()
    except RenderError:
        raise
    except AvatarError as error:
        raise RenderError(str(error)) from error
    except MemoryError as error:
        raise OutOfMemoryError(str(error)) from error
    except Exception as error:
        raise RenderError(f"{type(error).__name__}: {error}") from error


def _checked(image: object, size_px: tuple[int, int]) -> Image:
    width, height = size_px
    if not isinstance(image, np.ndarray):
        raise BadFrameError(f"drew {type(image).__name__} instead of an array")
    if image.shape != (height, width, 3) or image.dtype != np.uint8:
        raise BadFrameError(
            f"drew {image.shape} {image.dtype} instead of {(height, width, 3)} uint8"
        )
    return image

"""The renderers, each in a thread of its own that owns it from load to close."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final, TypeVar

import structlog

from pipeline.errors import DeviceLostError, DropReason, JobDroppedError, RenderError
from pipeline.frame_cache import quantise
from pipeline.ports import Metrics
from pipeline.render_worker import RenderWorker
from pipeline.thread_renderers import (
    Drawing,
    Limits,
    RendererSource,
    Size,
    ThreadRenderers,
)
from pipeline.types import FaceControls, Portrait

log = structlog.get_logger()

__all__ = ["Drawing", "RenderHost", "RendererSource"]

T = TypeVar("T")

HANG_S: Final = 5.0
PREPARE_LIMIT_S: Final = 60.0
LOAD_LIMIT_S: Final = 300.0
ONCE_WAITING: Final = 32
_LOOK_S: Final = 0.25


class RenderHost:
    """Renderers in order of preference, each made, used and closed by one thread.

    A thread each, so that one renderer that loads, is slow or hangs never holds up the next.
    Renderers and their prepared portraits are shared by all stages. `draw` is for jobs of a
    renderer's `worker`, which run in its thread; everything else belongs to the event loop's.

    Args:
        sources: wanted first; not empty.
        hang_s, prepare_limit_s, load_limit_s: see `Limits`; a thread that exceeds them is
            replaced.
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
        self._on_device_lost = on_device_lost
        self._lost = False
        self._once = asyncio.Lock()
        self._once_waiting = 0
        self._clock = clock
        self._touched_s = clock()
        # Encodes the frames of those that draw in the background, beside their next frame.
        self._finisher = ThreadPoolExecutor(1, thread_name_prefix="finish")
        self._renderers = ThreadRenderers(
            self._sources,
            Limits(hang_s, prepare_limit_s, load_limit_s),
            metrics=metrics,
            allow=self._allow,
        )
        close_all = self._renderers.close_all
        self._workers = {
            name: RenderWorker(name, finisher=self._finisher, on_thread_end=close_all, clock=clock)
            for name in self._sources
        }
        self._aside = RenderWorker("prepare", on_thread_end=close_all, clock=clock)

    def _allow(self, limit_s: float) -> None:
        """Called by a job: every worker's `allow` speaks of the thread that calls."""
        self._aside.allow(limit_s)

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
        return self._renderers.is_ready(name)

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
        return self._renderers.device(name)

    def keep(self, owner: Hashable, portrait: Portrait | None, size_px: Size | None = None) -> None:
        """Keep `owner`'s portrait prepared until it names another, or None.

        Args:
            size_px: (width, height) of its frames.
        """
        self._renderers.keep(owner, portrait, size_px)

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
        has = partial(self._renderers.has, name, portrait, size_px)
        if not aside or await self.finish(name, has, owner):
            job = partial(self._renderers.prepare, name, portrait, size_px)
            await self.finish(name, job, owner)
            return
        prepare = partial(self._renderers.prepare_aside, name, portrait, size_px)
        prepared = await self._finish(self._aside, prepare, owner)
        take_in = partial(self._renderers.take_in, name, portrait, size_px, prepared)
        await self.finish(name, take_in, owner)

    async def finish(self, name: str, job: Callable[[], T], owner: Hashable) -> T:
        """Carry out a renderer's job that may take its time; replace a thread that gets stuck.

        Raises:
            RenderError: the job raised it, was dropped, or hung (`JobDroppedError`).
        """
        return await self._finish(self._workers[name], job, owner)

    def let_go(self, name: str) -> None:
        """Close a renderer and free what it holds; the next job that needs it loads it anew."""
        self._renderers.not_ready(name)
        self._workers[name].submit(partial(self._renderers.close, name), "let go")

    async def _finish(self, worker: RenderWorker, job: Callable[[], T], owner: Hashable) -> T:
        future = worker.submit(job, owner)
        try:
            while not (await asyncio.wait((future,), timeout=_LOOK_S))[0]:
                self.rescue()
        finally:
            future.cancel()
        return future.result()

    async def draw_once(self, portrait: Portrait, controls: FaceControls, size_px: Size) -> Drawing:
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
        self, portrait: Portrait, controls: FaceControls, size_px: Size
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
                self._renderers.not_ready(worker.name)
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

    def draw(self, name: str, portrait: Portrait, controls: FaceControls, size_px: Size) -> Drawing:
        """Draw one frame; called in the renderer's thread.

        Raises:
            RenderError: whatever went wrong.
        """
        return self._renderers.draw(name, portrait, controls, size_px)

"""Composition root: what the daemon is made of, and in which order that starts and stops.

This file and those of its parts, `http_side` and `renderers`, name concrete adapters and
renderers; no other does.
"""

from __future__ import annotations

import asyncio
import os
import platform
import sys
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import structlog
import uvloop

from adapters.access import HttpLimits
from adapters.events_client import Address, EventPublishers
from adapters.forms import UNTIDY_HEADERS
from adapters.media_bridge import MediaBridgeSink
from adapters.metrics import PrometheusMetrics
from adapters.systemd import SystemdNotifier
from adapters.vmc import VmcInput
from orchestrator import __version__
from orchestrator.cast import Cast
from orchestrator.characters import CharacterBook
from orchestrator.clock import SystemClock
from orchestrator.event_log_file import EventLog
from orchestrator.expression.emotions import EmotionTable
from orchestrator.front_desk import FrontDesk, there
from orchestrator.hardware import gpu_name
from orchestrator.housekeeping import Housekeeping
from orchestrator.http_side import HTTP_STOP_S, HttpSide, certificate, where_to_look
from orchestrator.journal import unrecorded
from orchestrator.lifecycle import (
    ExitStatus,
    feed_watchdog,
    first_of,
    running,
    signals_to,
    stop_step,
)
from orchestrator.logs import logging_to
from orchestrator.pictures import Pictures
from orchestrator.process import freeze_garbage, set_up_process
from orchestrator.renderers import choose_renderers, face_detectors
from orchestrator.settings import Settings, state_dir
from orchestrator.sheet import Sheets
from orchestrator.stage import Stage
from orchestrator.stage_kit import StageKit
from orchestrator.stages import StageSet
from orchestrator.state_file import StateFile, StateSaver
from orchestrator.tables import character_store, load_tables
from orchestrator.uploads import Uploads
from pipeline.errors import ConfigError
from pipeline.frame_cache import FrameCache
from pipeline.picture import FormatEncoder
from pipeline.ports import Metric
from pipeline.render_host import RenderHost

log = structlog.get_logger()

SERVER_NAME: Final = f"avatar-orchestrator/{__version__}"
PROBE_S: Final = 5.0
# The stop's deadlines. Their sum is below the unit's TimeoutStopSec, and what usually
# happens is over in a fraction of a second.
PRODUCERS_STOP_S: Final = 1.0
VIEWERS_STOP_S: Final = 2.0
STAGES_STOP_S: Final = 1.0
STATE_STOP_S: Final = 1.0
EVENT_LOG_STOP_S: Final = 0.25
RENDER_STOP_S: Final = 0.5


def run_daemon(settings: Settings, config_file: Path) -> int:
    """Run until a signal or a fatal error.

    Returns:
        The process's exit status.

    Raises:
        ConfigError: the daemon can never run like this.
        PortTakenError: another process listens on one of its ports.
    """
    set_up_process(settings.limits)
    for untidy in UNTIDY_HEADERS:
        warnings.simplefilter("ignore", untidy)
    with logging_to(settings.log):
        daemon = Daemon(settings, config_file)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            status = runner.run(daemon.run())
    if daemon.still_rendering:
        # The interpreter would end that thread in the middle of torch's own code, which aborts.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    return status


class Daemon:
    """Everything that runs, put together.

    Args:
        settings: checked.
        config_file: where they come from; emotions and characters lie beside it.

    Attributes:
        still_rendering: it has stopped, but a thread is still in the middle of a frame.

    Raises:
        ConfigError: the emotion table or a character file is wrong.
    """

    def __init__(self, settings: Settings, config_file: Path) -> None:
        self._settings = settings
        self._config_file = config_file
        self._clock = SystemClock()
        self._metrics = PrometheusMetrics()
        self._notifier = SystemdNotifier()
        self._certificate = certificate(settings)
        self._store = character_store(settings)
        self._store.clean_up()
        self._emotions, self._characters = load_tables(settings, config_file, self._store)
        self._sources, self._why = choose_renderers(settings)
        self._detectors = face_detectors(settings)
        self._state = StateFile(state_dir(settings))
        self._desk = FrontDesk(
            self._emotions,
            renderer=self._sources[0].name,
            gpu=gpu_name(),
            most_stages=settings.limits.stages,
            clock=self._clock.now,
        )
        self._stop = asyncio.Event()
        self._status = ExitStatus.OK
        self.still_rendering = False
        self._reloading: asyncio.Task[None] | None = None

    async def run(self) -> int:
        """Start, publish, stop in order."""
        try:
            with signals_to(self.stop, self.reload):
                async with AsyncExitStack() as resources:
                    await self._live(resources)
        finally:
            self._notifier.close()
        log.info("stopped", status=int(self._status))
        return self._status

    def stop(self) -> None:
        """Begin the stop; asking again changes nothing."""
        self._stop.set()

    def reload(self) -> None:
        """Read certificate, emotions and characters anew; a mistake in them keeps what runs."""
        if self._desk.not_ready is None and (self._reloading is None or self._reloading.done()):
            self._reloading = asyncio.create_task(self._reload(), name="reload")

    async def _reload(self) -> None:
        self._notifier.reloading()
        try:
            if self._certificate is not None:
                await asyncio.to_thread(self._certificate.renew)
            emotions, characters = await there(self._desk.cast).reread(self._read_tables)
        except ConfigError as error:
            log.error("reload_refused", error=str(error))
            self._desk.reload_problem = f"not reloaded: {error}"
        else:
            self._desk.reload_problem = None
            self._desk.emotions = emotions
            if self._desk.stage_set is not None:
                self._desk.stage_set.reload(emotions, characters)
            log.info("reloaded", emotions=len(emotions.labels), characters=list(characters.names))
        self._notifier.ready()

    def _read_tables(self) -> tuple[EmotionTable, CharacterBook]:
        return load_tables(self._settings, self._config_file, self._store)

    async def _live(self, resources: AsyncExitStack) -> None:
        settings, desk = self._settings, self._desk

        def at_the_end(
            name: str, close: Callable[[], Awaitable[object]], deadline_s: float
        ) -> None:
            """Stopping is the reverse of starting: last come, first closed."""
            resources.push_async_callback(lambda: stop_step(name, close(), deadline_s))

        http = HttpSide(settings, desk, self._metrics)
        resources.push_async_callback(http.fetcher.close)
        server = await http.serve(self._certificate)
        at_the_end("server", server.close, 2 * HTTP_STOP_S)

        files = ThreadPoolExecutor(1, thread_name_prefix="files")
        resources.callback(files.shutdown, wait=False, cancel_futures=True)
        desk.host = host = RenderHost(
            self._sources,
            metrics=self._metrics,
            hang_s=settings.renderer.hang_s,
            on_device_lost=self._device_lost,
            clock=self._clock.now,
        )
        at_the_end("renderer", partial(self._close_renderers, host), 2 * RENDER_STOP_S)
        cache = FrameCache(settings.cache.max_bytes, self._metrics)
        encoder = FormatEncoder(cache, self._metrics)
        at_the_end("encoder", lambda: encoder.close(RENDER_STOP_S), 2 * RENDER_STOP_S)
        journal = self._event_log()
        if journal is not None:
            at_the_end("event-log", lambda: journal.close(EVENT_LOG_STOP_S), 2 * EVENT_LOG_STOP_S)
        kit = StageKit(
            server=SERVER_NAME,
            idle=settings.idle,
            deadline_s=settings.renderer.deadline_ms / 1000.0,
            host=host,
            cache=cache,
            encoder=encoder,
            files=files,
            metrics=self._metrics,
            clock=self._clock,
            detectors=self._detectors,
            journal=journal or unrecorded,
        )
        desk.stage_set = stages = StageSet(settings, kit, self._emotions, self._characters)
        resources.callback(stages.let_go)
        uploads = Uploads(
            settings.limits.upload_bytes, settings.limits.upload_pixels, self._detectors
        )
        at_the_end("uploads", lambda: uploads.close(RENDER_STOP_S), 2 * RENDER_STOP_S)
        desk.pictures = Pictures(stages.get, host=host, encoder=encoder, uploads=uploads)
        desk.cast = cast = Cast(
            settings,
            store=self._store,
            emotions=self._emotions,
            book=self._characters,
            stages=stages,
            uploads=uploads,
            encoder=encoder,
            files=files,
            detectors=self._detectors,
        )
        desk.sheets = Sheets(
            lambda: cast.book,
            lambda: desk.emotions,
            host=host,
            encoder=encoder,
            files=files,
            detectors=self._detectors,
        )
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(files, self._state.clean_up)
        memory = await loop.run_in_executor(files, self._state.load)
        stage = await first_of(stages.open(memory), self._stop)
        if stage is None:
            return
        saver = StateSaver(self._state, stages.memory, files)
        stages.hooks.changed, desk.saver = saver.soon, saver
        stages.hooks.removed = http.audience.let_go
        at_the_end("state", saver.now, STATE_STOP_S)
        freeze_garbage()

        at_the_end("viewers", http.audience.close, VIEWERS_STOP_S)
        if settings.media_bridge.url:
            desk.bridge = bridge = MediaBridgeSink(
                settings.media_bridge.url,
                settings.media_bridge.token or None,
                stage=stage,
                metrics=self._metrics,
            )
            await resources.enter_async_context(self._vital("media-bridge", bridge.run()))
        at_the_end("stages", stages.close, STAGES_STOP_S)
        stages.run()
        await resources.enter_async_context(self._vital("stage", stage.run()))
        at_the_end("producers", http.events.close, PRODUCERS_STOP_S)
        await self._take_from_elsewhere(resources, http.limits)
        housekeeping = self._housekeeping(stages, host, cache, saver)
        await resources.enter_async_context(housekeeping)
        watchdog_s = self._notifier.watchdog_interval_s
        if watchdog_s is not None:
            feeding = feed_watchdog(self._notifier.watchdog, desk.making_progress, watchdog_s)
            await resources.enter_async_context(self._vital("watchdog", feeding))
        await self._publish_until_stopped(stage, server.port)

    async def _take_from_elsewhere(self, resources: AsyncExitStack, limits: HttpLimits) -> None:
        """Dial publishers, and listen for face trackers, where the settings ask for it."""
        events, vmc = self._settings.events, self._settings.vmc
        if events.connect:
            tokens = events.tokens or ("",) * len(events.connect)
            publishers = EventPublishers(
                [
                    Address(url, token or None, events.stage or None)
                    for url, token in zip(events.connect, tokens, strict=True)
                ],
                daemon=self._desk,
                metrics=self._metrics,
                limits=limits,
                answers=events.answers,
            )
            await resources.enter_async_context(self._vital("publishers", publishers.run()))
        if vmc.port:
            trackers = VmcInput(
                self._desk, self._metrics, stage=vmc.stage or None, weight=vmc.weight
            )
            resources.callback(trackers.close)
            await trackers.listen(vmc.host, vmc.port)

    def _event_log(self) -> EventLog | None:
        """The file of all that acts on the faces, where the settings want one.

        Raises:
            ConfigError: it cannot be written.
        """
        settings = self._settings
        if not settings.log.events_file:
            return None
        path = state_dir(settings) / Path(settings.log.events_file).expanduser()
        return EventLog(path, settings.log.events_max_bytes, self._metrics)

    async def _publish_until_stopped(self, stage: Stage, port: int) -> None:
        await first_of(stage.first_frame.wait(), self._stop)
        if not self._stop.is_set():
            self._desk.not_ready = None
            renderer = stage.renderer()
            self._metrics.set(
                Metric.BUILD_INFO,
                1.0,
                version=__version__,
                python=platform.python_version(),
                renderer=renderer["name"],
                device=renderer["device"],
            )
            self._notifier.ready(f"publishing {stage.character_name} with {renderer['name']}")
            log.info("ready", renderer=renderer["name"], why=self._why, port=port)
            sys.stdout.write(where_to_look(self._settings, port))
            sys.stdout.flush()
            await self._stop.wait()
        self._desk.not_ready = "stopping"
        self._notifier.stopping()
        log.info("stopping")

    async def _close_renderers(self, host: RenderHost) -> None:
        self.still_rendering = not await host.close(RENDER_STOP_S)

    def _device_lost(self, reason: str) -> None:
        """Only a new process helps: end with the status that is restarted."""
        log.critical("ending_because_of_device", reason=reason)
        self._status = ExitStatus.DEVICE_LOST
        self.stop()

    @asynccontextmanager
    async def _vital(self, name: str, work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
        """Run a task that the daemon cannot do without until the block ends."""

        def ended(task: asyncio.Task[None]) -> None:
            if task.cancelled() or self._stop.is_set():
                return
            log.critical("vital_task_ended", task=name, exc_info=task.exception())
            self._status = ExitStatus.SOFTWARE
            self.stop()

        async with running(name, work) as task:
            task.add_done_callback(ended)
            yield

    def _housekeeping(
        self, stages: StageSet, host: RenderHost, cache: FrameCache, saver: StateSaver
    ) -> Housekeeping:
        """Periodic work: figures to the log, the state to its file, a look at what is broken."""

        async def report() -> None:
            stats = cache.stats
            for stage in stages:
                log.info(
                    "figures",
                    stage=stage.name,
                    seq=stage.seq,
                    viewers=stage.snapshot()["viewers"],
                    cache_entries=stats.entries,
                    cache_bytes=stats.bytes,
                    cache_hits=stats.hits,
                    cache_misses=stats.misses,
                    degraded=stage.degraded,
                )

        async def probe() -> None:
            stages.probe()
            host.release_idle()

        housekeeping = Housekeeping()
        every_s = self._settings.log.report_every_s
        if every_s > 0.0:
            housekeeping.every(every_s, report)
        housekeeping.every(self._settings.state.save_every_s, saver.now)
        housekeeping.every(PROBE_S, probe)
        return housekeeping

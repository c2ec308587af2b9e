"""Composition root: the one file that names concrete adapters and renderers."""

from __future__ import annotations

import asyncio
import gc
import os
import platform
import resource
import sys
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

import structlog
import uvloop

from adapters.access import AccessPolicy, HttpLimits
from adapters.characters_api import CharactersEndpoint
from adapters.events_client import Address, EventPublishers
from adapters.events_ws import EventsEndpoint
from adapters.forms import UNTIDY_HEADERS
from adapters.frames_ws import FramesEndpoint
from adapters.http_api import build_application
from adapters.listening import serve
from adapters.media_bridge import MediaBridgeSink
from adapters.metrics import PrometheusMetrics
from adapters.mjpeg import MjpegEndpoint
from adapters.portrait_fetch import PortraitFetcher, Reach
from adapters.render_api import RenderEndpoint
from adapters.sheet_api import SheetEndpoint
from adapters.stages_api import StagesEndpoint
from adapters.systemd import SystemdNotifier
from adapters.tls import Certificate
from adapters.viewer import Audience
from adapters.vmc import VmcInput, check_host
from orchestrator import __version__
from orchestrator.cast import Cast
from orchestrator.characters import CharacterBook
from orchestrator.clock import SystemClock
from orchestrator.event_log_file import EventLog
from orchestrator.expression.emotions import EmotionTable
from orchestrator.hardware import gpu_name
from orchestrator.housekeeping import Housekeeping
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
from orchestrator.renderers import choose_renderers, face_detectors
from orchestrator.settings import Settings, StageOverrides, state_dir
from orchestrator.sheet import Sheets
from orchestrator.stage import Stage
from orchestrator.stage_kit import StageKit
from orchestrator.stages import StageSet
from orchestrator.state_file import StateFile, StateSaver
from orchestrator.tables import character_store, load_tables
from orchestrator.uploads import Uploads
from pipeline.bodies import CharactersBody, HealthBody, StageBody, StagesBody
from pipeline.errors import (
    ConfigError,
    ErrorCode,
    InvalidEventError,
)
from pipeline.frame_cache import FrameCache
from pipeline.orders import StageOrder
from pipeline.picture import FormatEncoder
from pipeline.ports import Metric
from pipeline.render_host import RenderHost

log = structlog.get_logger()

_Part = TypeVar("_Part")

SERVER_NAME: Final = f"avatar-orchestrator/{__version__}"
# A frame or a deliberate rest at least this often, or the watchdog is not fed.
PROGRESS_S: Final = 5.0
PROBE_S: Final = 5.0
# The stop's deadlines. Their sum is below the unit's TimeoutStopSec, and what usually
# happens is over in a fraction of a second.
PRODUCERS_STOP_S: Final = 1.0
VIEWERS_STOP_S: Final = 2.0
STAGES_STOP_S: Final = 1.0
STATE_STOP_S: Final = 1.0
EVENT_LOG_STOP_S: Final = 0.25
RENDER_STOP_S: Final = 0.5
HTTP_STOP_S: Final = 0.5
GIL_SWITCH_S: Final = 0.0005
# Beside the places for viewers and producers: half for other requests, half for our own files.
SPARE_FILES: Final = 256
PROBLEM_CHARS: Final = 400


def access_policy(settings: Settings) -> AccessPolicy:
    """Who may connect.

    Raises:
        ConfigError: `auth.token` is missing where it is needed, or `vmc.host` is open to others.
    """
    if settings.vmc.port:
        check_host(settings.vmc.host, anybody=settings.auth.mode == "none")
    return AccessPolicy(
        host=settings.server.host,
        token=settings.auth.token,
        mode=settings.auth.mode,
        origins=settings.auth.allowed_origins,
        hosts=settings.auth.allowed_hosts,
    )


def certificate(settings: Settings) -> Certificate | None:
    """What TLS is served with; None where it is not.

    Raises:
        ConfigError: the files of `server.tls_cert` and `server.tls_key` cannot be used.
    """
    if not settings.server.tls_cert:
        return None
    key = settings.server.tls_key
    return Certificate(
        Path(settings.server.tls_cert).expanduser(), Path(key).expanduser() if key else None
    )


def run_daemon(settings: Settings, config_file: Path) -> int:
    """Run until a signal or a fatal error.

    Returns:
        The process's exit status.

    Raises:
        ConfigError: the daemon can never run like this.
    """
    # A short switch interval keeps the event loop quick while the render thread holds the GIL.
    sys.setswitchinterval(GIL_SWITCH_S)
    _allow_files(settings.limits.viewers + settings.limits.producers + SPARE_FILES)
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
    """Everything that runs, put together; implements `ports.DaemonPort`.

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
        self._gpu = gpu_name()
        self._state = StateFile(state_dir(settings))
        self._started_s = self._clock.now()
        self._stop = asyncio.Event()
        self._status = ExitStatus.OK
        self._not_ready: str | None = "starting"
        self._stages: StageSet | None = None
        self._cast: Cast | None = None
        self._pictures: Pictures | None = None
        self._save: Callable[[], Awaitable[None]] = _nothing
        self._sheets: Sheets | None = None
        self._host: RenderHost | None = None
        self.still_rendering = False
        self._reloading: asyncio.Task[None] | None = None
        self._reload_problem: str | None = None
        self._bridge: MediaBridgeSink | None = None
        self._saver: StateSaver | None = None

    # --- what adapters call ---------------------------------------------------------------

    def stage(self, name: str | None) -> Stage:
        """The stage of that name, the default one for None."""
        if self._stages is None:
            raise InvalidEventError(ErrorCode.NOT_READY, "the stage is being set up; try again")
        return self._stages.get(name)

    @property
    def _main(self) -> Stage | None:
        return self._stages.main if self._stages is not None else None

    def health(self, name: str | None = None) -> HealthBody:
        """The body of GET /health: of the daemon, and of the stage of that name."""
        stage = self._main if name is None else self.stage(name)
        renderer = stage.renderer() if stage is not None else None
        degraded = stage.degraded if stage is not None else None
        return {
            "status": "ok" if degraded is None else "degraded",
            "renderer": renderer["name"] if renderer is not None else self._sources[0].name,
            "device": renderer["device"] if renderer is not None else "unknown",
            "gpu_available": self._gpu is not None,
            "gpu_name": self._gpu,
            "model_loaded": self._host is not None and self._host.is_ready(self._sources[0].name),
            "uptime_s": round(self._clock.now() - self._started_s, 3),
            "degraded": degraded,
            "problems": self._problems(),
        }

    def _problems(self) -> list[str]:
        """What is not as it should be, beside what is drawn."""
        found = {
            "configuration": self._reload_problem,
            "state": self._saver and self._saver.problem,
            "media bridge": self._bridge and self._bridge.problem,
        }
        for stage in self._stages or ():
            found[f"stage {stage.name}"] = stage.problem
        return [f"{part}: {problem}"[:PROBLEM_CHARS] for part, problem in found.items() if problem]

    def not_ready_reason(self, name: str | None = None) -> str | None:
        """None when frames are being published on that stage, else why not."""
        if self._not_ready is not None:
            return self._not_ready
        stage = self._main if name is None else self.stage(name)
        if stage is None or not self._in_progress(stage):
            return "no frame for too long"
        return None if stage.published else "no frame yet"

    def characters(self, name: str | None = None) -> CharactersBody:
        """The body of GET /v1/characters; `current` is who is on the stage of that name."""
        stage = self._main if name is None else self.stage(name)
        on_stage = stage.character_name if stage is not None else None
        listed = self._cast.bodies() if self._cast is not None else []
        return {"characters": listed, "current": on_stage}

    def expressions(self) -> Sequence[str]:
        """Canonical labels, `neutral` first."""
        return self._emotions.labels

    def stages(self) -> StagesBody:
        """The body of GET /v1/stages."""
        open_stages = _there(self._stages)
        bodies = [open_stages.body(stage.name) for stage in open_stages]
        return {"stages": bodies, "limit": self._settings.limits.stages}

    async def create_stage(self, order: StageOrder) -> StageBody:
        """Open a stage at run time; see `StageSet.create`."""
        overrides = StageOverrides(
            character=order.character,
            fps=order.fps,
            width=order.width,
            height=order.height,
            jpeg_quality=order.jpeg_quality,
            idle_seed=order.idle_seed,
        )
        open_stages = _there(self._stages)
        await open_stages.create(order.name, overrides)
        await self._save()
        return open_stages.body(order.name)

    async def remove_stage(self, name: str) -> None:
        """Close a stage that was made at run time; see `StageSet.remove`."""
        await _there(self._stages).remove(name)
        await self._save()

    # --- life -----------------------------------------------------------------------------

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
        if self._not_ready is None and (self._reloading is None or self._reloading.done()):
            self._reloading = asyncio.create_task(self._reload(), name="reload")

    async def _reload(self) -> None:
        self._notifier.reloading()
        try:
            if self._certificate is not None:
                await asyncio.to_thread(self._certificate.renew)
            emotions, characters = await _there(self._cast).reread(self._read_tables)
        except ConfigError as error:
            log.error("reload_refused", error=str(error))
            self._reload_problem = f"not reloaded: {error}"
        else:
            self._reload_problem = None
            self._emotions, self._characters = emotions, characters
            if self._stages is not None:
                self._stages.reload(emotions, characters)
            log.info("reloaded", emotions=len(emotions.labels), characters=list(characters.names))
        self._notifier.ready()

    def _read_tables(self) -> tuple[EmotionTable, CharacterBook]:
        return load_tables(self._settings, self._config_file, self._store)

    async def _live(self, resources: AsyncExitStack) -> None:
        settings = self._settings

        def at_the_end(
            name: str, close: Callable[[], Awaitable[object]], deadline_s: float
        ) -> None:
            """Stopping is the reverse of starting: last come, first closed."""
            resources.push_async_callback(lambda: stop_step(name, close(), deadline_s))

        limits = HttpLimits(
            message_bytes=settings.limits.message_bytes,
            messages_per_s=settings.limits.messages_per_s,
            producers=settings.limits.producers,
            upload_bytes=settings.limits.upload_bytes,
        )
        audience = Audience(
            self._metrics, limit=settings.limits.viewers, stall_s=settings.stage.viewer_stall_s
        )
        events = EventsEndpoint(self, metrics=self._metrics, limits=limits)
        fetcher = PortraitFetcher(
            Reach(settings.characters.fetch),
            max_bytes=settings.limits.upload_bytes,
            total_s=settings.characters.fetch_s,
        )
        resources.push_async_callback(fetcher.close)
        endpoints = (
            events,
            FramesEndpoint(self, audience),
            MjpegEndpoint(self, audience),
            RenderEndpoint(lambda: _there(self._pictures), limits),
            CharactersEndpoint(lambda: _there(self._cast), fetcher, limits),
            SheetEndpoint(lambda: _there(self._sheets)),
            StagesEndpoint(lambda: self, limits),
        )
        server = await serve(
            build_application(
                self,
                metrics=self._metrics,
                access=access_policy(settings),
                limits=limits,
                extra_routes=[route for each in endpoints for route in each.routes()],
            ),
            settings.server.host,
            settings.server.port,
            tcp_user_timeout_s=settings.server.tcp_user_timeout_s,
            shutdown_s=HTTP_STOP_S,
            tls=None if self._certificate is None else self._certificate.context,
            most=_most_connections(settings),
        )
        at_the_end("server", server.close, 2 * HTTP_STOP_S)

        files = ThreadPoolExecutor(1, thread_name_prefix="files")
        resources.callback(files.shutdown, wait=False, cancel_futures=True)
        self._host = host = RenderHost(
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
        self._stages = stages = StageSet(settings, kit, self._emotions, self._characters)
        resources.callback(stages.let_go)
        uploads = Uploads(
            settings.limits.upload_bytes, settings.limits.upload_pixels, self._detectors
        )
        at_the_end("uploads", lambda: uploads.close(RENDER_STOP_S), 2 * RENDER_STOP_S)
        self._pictures = Pictures(stages.get, host=host, encoder=encoder, uploads=uploads)
        self._cast = Cast(
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
        self._sheets = Sheets(
            lambda: _there(self._cast).book,
            lambda: self._emotions,
            host=host,
            encoder=encoder,
            files=files,
            detectors=self._detectors,
        )
        memory = await asyncio.get_running_loop().run_in_executor(files, self._state.load)
        stage = await first_of(stages.open(memory), self._stop)
        if stage is None:
            return
        self._saver = saver = StateSaver(self._state, stages.memory, files)
        stages.hooks.changed, self._save = saver.soon, saver.now
        stages.hooks.removed = audience.let_go
        at_the_end("state", saver.now, STATE_STOP_S)
        _freeze_garbage()

        at_the_end("viewers", audience.close, VIEWERS_STOP_S)
        if settings.media_bridge.url:
            self._bridge = bridge = MediaBridgeSink(
                settings.media_bridge.url,
                settings.media_bridge.token or None,
                stage=stage,
                metrics=self._metrics,
            )
            await resources.enter_async_context(self._vital("media-bridge", bridge.run()))
        at_the_end("stages", stages.close, STAGES_STOP_S)
        stages.run()
        await resources.enter_async_context(self._vital("stage", stage.run()))
        at_the_end("producers", events.close, PRODUCERS_STOP_S)
        await self._take_from_elsewhere(resources, limits)
        housekeeping = self._housekeeping(stages, host, cache, saver)
        await resources.enter_async_context(housekeeping)
        watchdog_s = self._notifier.watchdog_interval_s
        if watchdog_s is not None:
            feeding = feed_watchdog(self._notifier.watchdog, self._making_progress, watchdog_s)
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
                daemon=self,
                metrics=self._metrics,
                limits=limits,
                answers=events.answers,
            )
            await resources.enter_async_context(self._vital("publishers", publishers.run()))
        if vmc.port:
            trackers = VmcInput(self, self._metrics, stage=vmc.stage or None, weight=vmc.weight)
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
            self._not_ready = None
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
            self._say_where_to_look(port)
            await self._stop.wait()
        self._not_ready = "stopping"
        self._notifier.stopping()
        log.info("stopping")

    def _say_where_to_look(self, port: int) -> None:
        host = self._settings.server.host
        shown = "127.0.0.1" if host in ("", "0.0.0.0", "::") else host
        scheme = "http" if self._certificate is None else "https"
        address = f"{scheme}://{f'[{shown}]' if ':' in shown else shown}:{port}"
        token = "-H 'Authorization: Bearer <token>' " if self._settings.auth.token else ""
        sys.stdout.write(
            f"\n  Watch the face:  {address}/\n  Make it smile:   "
            f'curl {token}-d \'{{"type":"emotion","emotion":"happy"}}\' '
            f"{address}/v1/events\n\n"
        )
        sys.stdout.flush()

    async def _close_renderers(self, host: RenderHost) -> None:
        self.still_rendering = not await host.close(RENDER_STOP_S)

    def _making_progress(self) -> bool:
        return self._main is not None and self._in_progress(self._main)

    def _in_progress(self, stage: Stage) -> bool:
        return self._clock.now() - stage.progress_s < PROGRESS_S

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


async def _nothing() -> None:
    """Until there is something to save."""


def _there(part: _Part | None) -> _Part:
    """A part of the daemon that is made while it starts.

    Raises:
        InvalidEventError: `not_ready`: it has not been made yet.
    """
    if part is None:
        raise InvalidEventError(ErrorCode.NOT_READY, "the daemon is starting; try again")
    return part


def _allow_files(wanted: int) -> None:
    """Raise the soft limit of open files as far as needed and allowed: a viewer is one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def _most_connections(settings: Settings) -> int:
    """As many as there are places, and some for other requests; fewer where files are scarce."""
    wanted = settings.limits.viewers + settings.limits.producers + SPARE_FILES // 2
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return wanted
    return max(1, min(wanted, soft - SPARE_FILES // 2))


def _freeze_garbage() -> None:
    """Keep what start-up made out of every later collection: a full one would cost frames."""
    gc.collect()
    gc.freeze()

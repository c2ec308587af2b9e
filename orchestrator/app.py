"""Composition root: the one file that names concrete adapters and renderers."""

from __future__ import annotations

import asyncio
import gc
import platform
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

import structlog
import uvloop
from apscheduler.schedulers.asyncio import AsyncIOScheduler

from adapters.access import AccessPolicy
from adapters.events_ws import EventsEndpoint
from adapters.frames_ws import FramesEndpoint
from adapters.http_api import build_application, serve
from adapters.media_bridge import MediaBridgeSink
from adapters.metrics import PrometheusMetrics
from adapters.mjpeg import MjpegEndpoint
from adapters.systemd import SystemdNotifier
from orchestrator import __version__
from orchestrator.characters import CharacterBook
from orchestrator.clock import SystemClock
from orchestrator.expression.emotions import EmotionTable
from orchestrator.lifecycle import (
    STEP_DEADLINE_S,
    ExitStatus,
    feed_watchdog,
    first_of,
    running,
    signals_to,
    stop_step,
)
from orchestrator.logs import logging_to
from orchestrator.settings import Settings, default_config_dir, state_dir
from orchestrator.stage import Stage
from orchestrator.state_file import StateFile
from pipeline.errors import AvatarError, ConfigError, ErrorCode, InvalidEventError
from pipeline.fallback import FallbackLadder
from pipeline.frame_cache import FrameCache
from pipeline.mesh.renderer import MeshRenderer
from pipeline.ports import Metric, Renderer
from pipeline.render_worker import RenderWorker

log = structlog.get_logger()

SERVER_NAME: Final = f"avatar-orchestrator/{__version__}"
MAIN_STAGE: Final = "main"
# A frame or a deliberate rest at least this often, or the watchdog is not fed.
PROGRESS_S: Final = 5.0
STATE_SAVE_DEADLINE_S: Final = 2.0
GIL_SWITCH_S: Final = 0.0005


def emotions_file(settings: Settings, config_file: Path) -> Path:
    """The emotion table that the settings name, else the one beside the settings."""
    if settings.emotions.file:
        return Path(settings.emotions.file).expanduser()
    return _beside(config_file, "emotions.toml")


def characters_dir(settings: Settings, config_file: Path) -> Path:
    """The folder of characters that the settings name, else the one beside the settings."""
    if settings.characters.dir:
        return Path(settings.characters.dir).expanduser()
    return _beside(config_file, "characters")


def _beside(config_file: Path, name: str) -> Path:
    beside = config_file.parent / name
    return beside if beside.exists() else default_config_dir() / name


def choose_renderers(settings: Settings) -> tuple[tuple[RendererSource, ...], str]:
    """The renderers that the settings ask for, wanted first, and why it is those.

    Raises:
        ConfigError: one is insisted on that is not there.
    """
    if settings.renderer.backend == "liveportrait":
        raise ConfigError(
            "renderer.backend", "this version has no LivePortrait renderer; take auto or mesh"
        )
    insisted = settings.renderer.backend == "mesh"
    reason = "renderer.backend asks for it" if insisted else "the only renderer of this version"
    return (RendererSource("mesh", MeshRenderer),), reason


def run_daemon(settings: Settings, config_file: Path) -> int:
    """Run until a signal or a fatal error.

    Returns:
        The process's exit status.

    Raises:
        ConfigError: the daemon can never run like this.
    """
    # A short switch interval keeps the event loop quick while the render thread holds the GIL.
    sys.setswitchinterval(GIL_SWITCH_S)
    with logging_to(settings.log):
        daemon = Daemon(settings, config_file)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(daemon.run())


class Daemon:
    """Everything that runs, put together; implements `ports.DaemonPort`.

    Args:
        settings: checked.
        config_file: where they come from; emotions and characters lie beside it.

    Raises:
        ConfigError: the emotion table or a character file is wrong.
    """

    def __init__(self, settings: Settings, config_file: Path) -> None:
        self._settings = settings
        self._config_file = config_file
        self._clock = SystemClock()
        self._metrics = PrometheusMetrics()
        self._notifier = SystemdNotifier()
        self._emotions, self._characters = self._tables()
        self._sources, self._why = choose_renderers(settings)
        self._state = StateFile(state_dir(settings))
        self._started_s = self._clock.now()
        self._stop = asyncio.Event()
        self._status = ExitStatus.OK
        self._not_ready: str | None = "starting"
        self._saved: dict[str, Any] | None = None
        self._save_soon = asyncio.Event()
        self._stage: Stage | None = None

    # --- what adapters call ---------------------------------------------------------------

    def stage(self, name: str | None) -> Stage:
        """The stage of that name, the default one for None."""
        if self._stage is None:
            raise InvalidEventError(ErrorCode.NOT_READY, "the stage is being set up; try again")
        if name is not None and name != self._stage.name:
            raise InvalidEventError(
                ErrorCode.UNKNOWN_STAGE,
                f"there is no stage {name[:64]!r}; there is {self._stage.name}",
                field="stage",
                suggestions=(self._stage.name,),
            )
        return self._stage

    def health(self) -> Mapping[str, Any]:
        """The body of GET /health."""
        stage = self._stage
        renderer = stage.renderer() if stage is not None else None
        degraded = stage.degraded if stage is not None else None
        return {
            "status": "ok" if degraded is None else "degraded",
            "renderer": renderer["name"] if renderer is not None else self._sources[0].name,
            "device": renderer["device"] if renderer is not None else "unknown",
            "gpu_available": False,
            "gpu_name": None,
            "model_loaded": stage is not None and stage.published,
            "uptime_s": round(self._clock.now() - self._started_s, 3),
            "degraded": degraded,
        }

    def not_ready_reason(self) -> str | None:
        """None when frames are being published, else why not."""
        if self._not_ready is not None:
            return self._not_ready
        return None if self._making_progress() else "no frame for too long"

    def characters(self) -> Mapping[str, Any]:
        """The body of GET /v1/characters."""
        on_stage = self._stage.character_name if self._stage is not None else None
        listed = [
            {"name": each.name, "title": each.title, "licence": each.licence}
            for each in self._characters
        ]
        return {"characters": listed, "current": on_stage}

    def expressions(self) -> Sequence[str]:
        """Canonical labels, `neutral` first."""
        return self._emotions.labels

    # --- life -----------------------------------------------------------------------------

    async def run(self) -> int:
        """Start, publish, stop in order."""
        with signals_to(self.stop, self.reload):
            async with AsyncExitStack() as resources:
                await self._live(resources)
        log.info("stopped", status=int(self._status))
        return self._status

    def stop(self) -> None:
        """Begin the stop; asking again changes nothing."""
        self._stop.set()

    def reload(self) -> None:
        """Read emotions and characters anew; a mistake in them keeps what runs."""
        try:
            emotions, characters = self._tables()
        except ConfigError as error:
            log.error("reload_refused", error=str(error))
            return
        self._emotions, self._characters = emotions, characters
        if self._stage is not None:
            self._stage.reload(emotions, characters)
        log.info("reloaded", emotions=len(emotions.labels), characters=list(characters.names))

    async def _live(self, resources: AsyncExitStack) -> None:
        def closing(name: str, close: Callable[[], Awaitable[object]]) -> None:
            """At the end of life, in reverse order of these calls."""
            resources.push_async_callback(lambda: stop_step(name, close(), STEP_DEADLINE_S))

        settings = self._settings
        audience = Audience(settings.limits.viewers, self._metrics, settings.stage.viewer_stall_s)
        events = EventsEndpoint(self, self._metrics, self._limits())
        frames = FramesEndpoint(self, audience)
        mjpeg = MjpegEndpoint(self, audience)
        application = build_application(
            self,
            metrics=self._metrics,
            access=self._access(),
            limits=self._limits(),
            extra_routes=[*events.routes(), *frames.routes(), *mjpeg.routes()],
        )
        server = await serve(
            application,
            settings.server.host,
            settings.server.port,
            tcp_user_timeout_s=settings.server.tcp_user_timeout_s,
            shutdown_s=STEP_DEADLINE_S,
        )
        closing("server", server.close)
        self._announce(server.port)

        files = ThreadPoolExecutor(1, thread_name_prefix="files")
        resources.callback(files.shutdown, wait=False, cancel_futures=True)
        stage = await self._set_up_stage(files, closing)
        closing("state", lambda: self._save(files, stage))
        if await first_of(self._introduce(files, stage), self._stop) is None:
            return
        self._stage = stage
        self._freeze_garbage()

        async with AsyncExitStack() as intake:
            watchdog_s = self._notifier.watchdog_interval_s
            tasks = [
                running("state-saver", self._save_when_changed(files, stage)),
                running("stage", stage.run()),
            ]
            if watchdog_s is not None:
                feeding = feed_watchdog(self._notifier.watchdog, self._making_progress, watchdog_s)
                tasks.append(running("watchdog", feeding))
            if settings.media_bridge.url:
                bridge = MediaBridgeSink(
                    settings.media_bridge.url,
                    settings.media_bridge.token,
                    stage=stage,
                    metrics=self._metrics,
                )
                tasks.append(running("media-bridge", bridge.run()))
            for task in tasks:
                vital = await intake.enter_async_context(task)
                vital.add_done_callback(self._vital_task_ended)
            intake.push_async_callback(
                lambda: stop_step("viewers", audience.close(), 2 * STEP_DEADLINE_S)
            )
            intake.push_async_callback(
                lambda: stop_step("producers", events.close(), STEP_DEADLINE_S)
            )
            intake.callback(self._say_stopping)
            housekeeping = self._housekeeping(stage, files)
            intake.callback(housekeeping.shutdown, wait=False)
            await first_of(self._until_first_frame(stage), self._stop)
            await self._stop.wait()

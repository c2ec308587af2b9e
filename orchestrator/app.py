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


def choose_renderer(settings: Settings) -> tuple[Callable[[], Renderer], str]:
    """The renderer that the settings ask for, and why it is that one.

    Raises:
        ConfigError: one is insisted on that is not there.
    """
    if settings.renderer.backend == "liveportrait":
        raise ConfigError(
            "renderer.backend", "this version has no LivePortrait renderer; take auto or mesh"
        )
    insisted = settings.renderer.backend == "mesh"
    reason = "renderer.backend asks for it" if insisted else "the only renderer of this version"
    return MeshRenderer, reason

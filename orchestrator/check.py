"""`avatar-orchestrator check`: what would run, what would not, and why."""

from __future__ import annotations

import importlib
import importlib.util
import platform
import socket
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TextIO

from adapters.dialling import without_secrets
from orchestrator import __version__
from orchestrator.expression.emotions import EmotionTable
from orchestrator.hardware import gpu_name
from orchestrator.lifecycle import ExitStatus
from orchestrator.motion import read_motion
from orchestrator.settings import Settings, state_dir
from pipeline.errors import AvatarError, ConfigError

Verdict = Literal["ok", "note", "FAIL"]
# Below this a recorded face is hardly the one that is shown.
LEAST_EXPLAINED: Final = 0.3


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report."""

    verdict: Verdict
    topic: str
    text: str


def check(settings: Settings, config: Path, out: TextIO) -> int:
    """Print the report.

    Args:
        settings: already checked in themselves.
        config: the file that they come from.

    Returns:
        0 when the daemon would run, else EX_CONFIG.
    """
    failed = False
    for finding in findings(settings, config):
        failed = failed or finding.verdict == "FAIL"
        out.write(f"{finding.verdict:<4}  {finding.topic:<12}  {finding.text}\n")
    out.write("would not run: see FAIL above\n" if failed else "would run\n")
    return ExitStatus.CONFIG if failed else ExitStatus.OK


def findings(settings: Settings, config: Path) -> Iterator[Finding]:
    """Everything that is looked at, in the order in which the daemon needs it."""
    yield Finding(
        "ok",
        "version",
        f"avatar-orchestrator {__version__}, Python {platform.python_version()}, "
        f"{platform.system()} {platform.machine()}",
    )
    yield Finding("ok", "settings", f"{config} and AVATAR_* variables")
    opencv = _opencv()
    yield opencv
    if opencv.verdict == "FAIL":
        return
    yield from _files(settings, config)
    yield from _devices(settings)
    yield from _tried("port", _port, settings)
    yield from _tried("access", _access, settings)
    yield from _tried("state", _state, settings)
    if settings.vmc.port:
        yield from _tried("vmc", _vmc, settings)
    if settings.events.connect:
        yield Finding("ok", "publishers", f"{len(settings.events.connect)} will be dialled")
    bridge = without_secrets(settings.media_bridge.url) if settings.media_bridge.url else ""
    yield Finding("ok", "media bridge", f"frames go to {bridge}" if bridge else "none is set")


def _tried(topic: str, look: Callable[[Settings], str], settings: Settings) -> Iterator[Finding]:
    try:
        yield Finding("ok", topic, look(settings))
    except (AvatarError, OSError) as error:
        yield Finding("FAIL", topic, str(error))


def _opencv() -> Finding:
    """OpenCV's desktop build does not import on a bare server: say how to mend that."""
    try:
        cv2 = importlib.import_module("cv2")
    except ImportError as error:
        return Finding(
            "FAIL",
            "opencv",
            f"cv2 does not import ({error}). The desktop build has overwritten the headless one; "
            "put it back: pip uninstall -y opencv-python && "
            "pip install --force-reinstall --no-deps opencv-python-headless",
        )
    return Finding("ok", "opencv", f"{cv2.__version__}")


def _files(settings: Settings, config: Path) -> Iterator[Finding]:
    from orchestrator.tables import character_store, emotions_file, everybody

    try:
        emotions = EmotionTable.load(emotions_file(settings, config), motions=read_motion)
        yield Finding("ok", "emotions", ", ".join(emotions.labels))
        yield from _recordings(emotions)
        book = everybody(settings, config, emotions, character_store(settings))
    except ConfigError as error:
        yield Finding("FAIL", "files", str(error))
        return
    needed = {"stage": settings.stage} | {
        f"stages.{name}": each.over(settings.stage) for name, each in settings.stages.items()
    }
    names = {each.character for each in needed.values()}
    for character in book:
        wanted = character.name in names
        try:
            loaded = character.load()
        except AvatarError as error:
            yield Finding("FAIL" if wanted else "note", "character", f"{character.name}: {error}")
            continue
        height, width = loaded.portrait.image.shape[:2]
        source = loaded.portrait.landmarks.source
        text = f"{character.name}: {width}x{height}, landmarks: {source}"
        yield Finding("ok", "character", text + (", shown first" if wanted else ""))
        for warning in loaded.warnings:
            yield Finding("note", "character", f"{character.name}: {warning}")
    for table, stage in needed.items():
        if stage.character not in book.names:
            problem = f"{table}.character: there is no {stage.character!r}"
            yield Finding("FAIL", "character", f"{problem}; there are {', '.join(book.names)}")
        else:
            picture = f"{stage.width}x{stage.height} at {stage.fps:g} fps"
            yield Finding("ok", table, f"{stage.character}, {picture}")


def _recordings(emotions: EmotionTable) -> Iterator[Finding]:
    """How much of what was recorded the emotions that come from a motion file show."""
    for label in emotions.labels:
        recording = emotions[label].recording
        if recording is not None:
            verdict: Verdict = "ok" if recording.explained >= LEAST_EXPLAINED else "note"
            where = f"frame {recording.frame} of {recording.file}"
            shown = f"controls show {recording.explained:.0%} of its keypoint motion"
            yield Finding(verdict, "motion", f"{label}: {where}, {shown}")


def _devices(settings: Settings) -> Iterator[Finding]:
    from orchestrator.renderers import PACKAGES, choose_renderers

    try:
        sources, reason = choose_renderers(settings)
        for source in sources:
            if source.background:
                # It takes long to load, and the next one serves meanwhile: its files are looked at.
                yield Finding("ok", "renderer", f"{source.name}, in the background: {reason}")
                continue
            renderer = source.make()
            yield Finding("ok", "renderer", f"{renderer.name} on {renderer.device}: {reason}")
            renderer.close()
    except AvatarError as error:
        yield Finding("FAIL", "renderer", str(error))
    yield Finding("ok", "gpu", gpu_name() or "none that the NVIDIA driver knows of")
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    text = f"not installed: {', '.join(missing)}" if missing else "its packages are installed"
    yield Finding("note", "liveportrait", text)
    if settings.liveportrait.weights_dir:
        yield from _weights(Path(settings.liveportrait.weights_dir).expanduser(), settings)


def _weights(folder: Path, settings: Settings) -> Iterator[Finding]:
    from orchestrator.models.catalogue import bundled_catalogue
    from orchestrator.models.checking import examine

    remedy = f"avatar-orchestrator models download --to {folder}"
    if not folder.is_dir():
        problem = f"liveportrait.weights_dir: no folder {folder}; {remedy}"
        insisted = settings.renderer.backend == "liveportrait"
        yield Finding("FAIL" if insisted else "note", "weights", problem)
        return
    for finding in examine(bundled_catalogue(), folder, remedy):
        yield Finding(finding.verdict, "weights", f"{finding.topic}: {finding.text}")


def _port(settings: Settings) -> str:
    host, port = settings.server.host, settings.server.port
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)
        except OSError as error:
            raise ConfigError(
                "server.port", f"{host}:{port} cannot be listened on: {error.strerror}"
            ) from error
    return f"{host}:{port} is free"


def _vmc(settings: Settings) -> str:
    host, port = settings.vmc.host, settings.vmc.port
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((host, port))
        except OSError as error:
            problem = f"UDP {host}:{port} cannot be listened on: {error.strerror}"
            raise ConfigError("vmc.port", problem) from error
    return f"face trackers send to UDP {host}:{port}, which is free"


def _access(settings: Settings) -> str:
    from orchestrator.http_side import access_policy, certificate

    spoken = "plain HTTP" if certificate(settings) is None else "TLS"
    if access_policy(settings).needs_token:
        return f"clients must show the token; {spoken}"
    return f"no token is asked for; {spoken}"


def _state(settings: Settings) -> str:
    folder = state_dir(settings)
    existing = folder
    while not existing.exists():
        existing = existing.parent
    try:
        with tempfile.TemporaryDirectory(dir=existing):
            return f"{folder} is writable" if existing == folder else f"{folder} will be made"
    except OSError as error:
        problem = f"{folder} cannot be written: {existing}: {error.strerror}"
        raise ConfigError("state.dir", problem) from error

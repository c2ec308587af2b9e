"""The command `avatar-orchestrator`: arguments to settings to run; maps errors to exit statuses."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from orchestrator import __version__
from orchestrator.lifecycle import ExitStatus
from orchestrator.settings import Settings, load_settings
from pipeline.errors import AvatarError, ConfigError, PortTakenError

# Before anything imports numpy: OpenBLAS would answer each small product of a frame with threads
# that spin for more, which costs half a core and gains nothing.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


class _Parser(argparse.ArgumentParser):
    """Ends with EX_USAGE, so that a service manager can tell it from a crash."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(ExitStatus.USAGE, f"{self.prog}: {message}\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one sub-command.

    Returns:
        The exit status; see `lifecycle.ExitStatus`.
    """
    options = _parser().parse_args(arguments)
    try:
        return int(options.command(options))
    except ConfigError as error:
        return _complain(error, ExitStatus.CONFIG)
    except PortTakenError as error:
        return _complain(error, ExitStatus.UNAVAILABLE)
    except AvatarError as error:
        return _complain(error, ExitStatus.SOFTWARE)
    except KeyboardInterrupt:
        return 130


def _complain(problem: object, status: ExitStatus, command: str = "") -> ExitStatus:
    """Say what is wrong; returns the status to end with."""
    print(f"avatar-orchestrator {command}".rstrip() + f": {problem}", file=sys.stderr)
    return status


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="avatar-orchestrator",
        description="Gives an LLM character a living face: emotion events in, portrait frames out.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=_Parser)
    _add_run(commands)
    _add_check(commands)
    _add_doctor(commands)
    _add_send(commands)
    _add_render(commands)
    _add_record(commands)
    _add_replay(commands)
    _add_motion(commands)
    _add_models(commands)
    return parser


def _configured(commands: Any, name: str, text: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="settings (default: the bundled avatar.toml)"
    )
    return parser


def _add_run(commands: Any) -> None:
    parser = _configured(commands, "run", "Run the daemon until SIGTERM.")
    parser.set_defaults(command=_run)


def _add_check(commands: Any) -> None:
    parser = _configured(
        commands, "check", "Check configuration, files, devices and ports; say what would run."
    )
    parser.set_defaults(command=_check)


def _add_doctor(commands: Any) -> None:
    parser = _configured(
        commands, "doctor", "Examine the whole installation; say what to do about what is found."
    )
    parser.add_argument("--json", action="store_true", help="for machines")
    parser.set_defaults(command=_doctor)


def _add_send(commands: Any) -> None:
    parser = _configured(commands, "send", "Send one emotion to a running daemon.")
    parser.add_argument("emotion", nargs="?", help="label or alias, such as happy or joy")
    parser.add_argument("--intensity", type=float, metavar="0..1")
    parser.add_argument("--attack-ms", type=float)
    parser.add_argument("--hold-ms", type=float)
    parser.add_argument("--decay-ms", type=float)
    parser.add_argument("--policy", choices=["replace", "queue", "blend", "override"])
    parser.add_argument("--priority", type=int, metavar="0..9")
    parser.add_argument("--stage")
    parser.add_argument("--json", metavar="MESSAGE", help="send this message as it is instead")
    parser.add_argument("--url", help="address of the daemon (default: from the settings)")
    parser.add_argument(
        "--no-wait", action="store_true", help="do not wait for the receipts, only for the answer"
    )
    parser.set_defaults(command=_send)


def _add_render(commands: Any) -> None:
    parser = _configured(
        commands, "render", "Draw one picture, or a contact sheet, without a daemon."
    )
    parser.add_argument("--portrait", type=Path, metavar="FILE", help="a photo of one face")
    parser.add_argument("--landmarks", type=Path, metavar="FILE", help="its landmarks as JSON")
    parser.add_argument("--character", help="take this character's portrait instead")
    parser.add_argument("--expression", default="neutral", help="label or alias")
    parser.add_argument("--intensity", type=float, default=1.0, metavar="0..1")
    parser.add_argument(
        "--control",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="an ARKit blendshape (0..1) or pitch, yaw, roll (degrees) on top; may be repeated",
    )
    parser.add_argument("--sheet", action="store_true", help="draw the contact sheet instead")
    parser.add_argument("--renderer", choices=["auto", "mesh", "liveportrait"])
    parser.add_argument(
        "--weights",
        type=Path,
        metavar="DIR",
        help="LivePortrait's weights (default: the settings')",
    )
    parser.add_argument("--size", type=int, metavar="PIXELS", help="width and height")
    parser.add_argument("--out", type=Path, required=True, help="a .jpg, .png or .webp file")
    parser.set_defaults(command=_render)


def _add_record(commands: Any) -> None:
    parser = _configured(commands, "record", "Record what a running daemon shows to a video file.")
    parser.add_argument("out", type=Path, metavar="FILE", help="a .mp4 or .webm file")
    parser.add_argument("--seconds", type=float, help="how long (default: until Ctrl-C)")
    parser.add_argument("--fps", type=float, help="of the file (default: the stage's)")
    parser.add_argument("--stage")
    parser.add_argument("--url", help="address of the daemon (default: from the settings)")
    parser.set_defaults(command=_record)


def _add_replay(commands: Any) -> None:
    parser = _configured(
        commands, "replay", "Draw the faces of an event log again, without a daemon."
    )
    parser.add_argument(
        "files",
        type=Path,
        nargs="+",
        metavar="EVENTS",
        help="the log (log.events_file), oldest first",
    )
    parser.add_argument(
        "--out", type=Path, metavar="PATH", help="a .mp4 or .webm file, or a folder for PNG images"
    )
    parser.add_argument("--stage", default="main")
    parser.add_argument("--renderer", choices=["auto", "mesh", "liveportrait"])
    parser.add_argument("--fps", type=float, help="default: the stage's")
    parser.add_argument("--size", type=int, metavar="PIXELS", help="width and height")
    for name, text in (("from", "default: 1 before the first message"), ("to", "default: the end")):
        parser.add_argument(
            f"--{name}",
            type=float,
            dest=f"{name}_s",
            metavar="SECONDS",
            help=f"since the stage began; {text}",
        )
    parser.add_argument(
        "--anyway", action="store_true", help="also with other emotions than those of the log"
    )
    parser.set_defaults(command=_replay)


def _add_models(commands: Any) -> None:
    text = "Fetch, check or list the weights of LivePortrait and its face detector."
    parser = commands.add_parser("models", help=text, description=text)
    actions = parser.add_subparsers(required=True, metavar="ACTION", dest="action")
    download = _configured(actions, "download", "Fetch what is missing, verified and resumed.")
    download.add_argument("--to", type=Path, metavar="DIR", help="folder for the weights")
    download.add_argument("--only", choices=["liveportrait", "insightface"])
    download.add_argument("--yes", action="store_true", help="accept the licences unasked")
    download.add_argument(
        "--offline", action="store_true", help="take from Hugging Face's local cache alone"
    )
    check = _configured(actions, "check", "Say for each file whether it is the right one.")
    listing = _configured(actions, "list", "Show each file, its licence, size and whereabouts.")
    for each in (check, listing):
        each.add_argument("folder", nargs="?", type=Path, metavar="DIR")
        each.add_argument("--to", type=Path, metavar="DIR", help="the same, as for download")
    for each in (download, check, listing):
        each.set_defaults(command=_models)


def _add_motion(commands: Any) -> None:
    text = "Import LivePortrait's recorded motion templates, or look at one."
    parser = commands.add_parser("motion", help=text, description=text)
    actions = parser.add_subparsers(required=True, metavar="ACTION", dest="action")
    text = "Make a motion file, which an emotion may name, of a .pkl template; runs nothing in it."
    importing = actions.add_parser("import", help=text, description=text)
    importing.add_argument("file", type=Path, metavar="FILE", help="a .pkl template")
    importing.add_argument("--out", type=Path, metavar="FILE", help="default: FILE.motion")
    text = "Say how long a motion is, which frame is its peak, and what face that gives."
    showing = actions.add_parser("show", help=text, description=text)
    showing.add_argument("file", type=Path, metavar="FILE", help="a motion file, or a template")
    showing.add_argument("--frame", type=int, metavar="N", help="this frame's face instead")
    for each in (importing, showing):
        each.set_defaults(command=_motion)


def _settings(options: argparse.Namespace) -> tuple[Settings, Path]:
    return load_settings(options.config)


def _run(options: argparse.Namespace) -> int:
    from orchestrator.app import run_daemon

    settings, path = _settings(options)
    return run_daemon(settings, path)


def _check(options: argparse.Namespace) -> int:
    from orchestrator.check import check

    settings, path = _settings(options)
    return check(settings, path, sys.stdout)


def _doctor(options: argparse.Namespace) -> int:
    from orchestrator.doctor.command import doctor

    return doctor(options.config, sys.stdout, machine_readable=options.json)


def _send(options: argparse.Namespace) -> int:
    from orchestrator.send import DaemonUnreachableError, send

    if options.emotion is None and options.json is None:
        return _complain("an emotion or --json is needed", ExitStatus.USAGE, "send")
    settings, _ = _settings(options)
    try:
        return send(settings, options, sys.stdout)
    except DaemonUnreachableError as error:
        return _complain(error, ExitStatus.UNAVAILABLE)


def _render(options: argparse.Namespace) -> int:
    from orchestrator.render import render

    settings, path = _settings(options)
    return render(settings, path, options, sys.stdout)


def _record(options: argparse.Namespace) -> int:
    from orchestrator.client import ConnectError
    from orchestrator.record import record
    from orchestrator.send import DaemonUnreachableError

    settings, _ = _settings(options)
    try:
        return record(settings, options, sys.stdout)
    except (ConnectError, DaemonUnreachableError) as error:
        return _complain(error, ExitStatus.UNAVAILABLE)


def _replay(options: argparse.Namespace) -> int:
    from orchestrator.replay import replay

    settings, path = _settings(options)
    return replay(settings, path, options, sys.stdout)


def _motion(options: argparse.Namespace) -> int:
    from orchestrator.motion import motion

    return motion(options, sys.stdout)


def _models(options: argparse.Namespace) -> int:
    from orchestrator.models.command import models
    from orchestrator.models.download import ConsentNeededError
    from orchestrator.models.hub import HubError

    settings, _ = _settings(options)
    try:
        return models(settings, options, sys.stdout, sys.stdin)
    except ConsentNeededError as error:
        return _complain(error, ExitStatus.USAGE, "models")
    except HubError as error:
        return _complain(error, ExitStatus.UNAVAILABLE, "models")


if __name__ == "__main__":
    sys.exit(main())

"""`avatar-orchestrator motion`: recorded motion, imported and looked at; and who reads it.

LivePortrait's templates come as pickles. `motion import` turns one into a motion file, which an
emotion in `emotions.toml` may name.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Final, TextIO

from pipeline.errors import ConfigError
from pipeline.liveportrait.recorded import RecordedMotion
from pipeline.liveportrait.templates import MotionTemplate

SUFFIX: Final = ".motion"


def read_motion(path: Path) -> RecordedMotion:
    """What an emotion's `motion` names.

    Raises:
        ConfigError: it is no motion file.
        OSError: it cannot be read.
    """
    return RecordedMotion.load(path)


def motion(options: argparse.Namespace, out: TextIO) -> int:
    """Carry out `import` or `show`.

    Raises:
        ConfigError: an option or file is wrong; nothing has been written.
    """
    if options.action == "import":
        _import(options.file, options.out, out)
    else:
        _describe(_opened(options.file), options.frame, out)
    return 0


def _import(file: Path, to: Path | None, out: TextIO) -> None:
    template = _opened(file).template
    to = to or file.with_suffix(SUFFIX)
    if to.suffix != SUFFIX:
        raise ConfigError("--out", f"expected a file that ends in {SUFFIX}, got {to}")
    try:
        template.save(to)
    except OSError as error:
        raise ConfigError("--out", f"{to}: cannot be written: {error.strerror}") from error
    _describe(RecordedMotion(template), None, out)
    out.write(f'{to}: written; an emotion beside it takes it with motion = "{to.name}"\n')


def _opened(file: Path) -> RecordedMotion:
    """A motion file, or a template that is not imported yet."""
    try:
        if file.suffix == SUFFIX:
            return read_motion(file)
        return RecordedMotion(MotionTemplate.import_pickle(file))
    except OSError as error:
        raise ConfigError(str(file), f"cannot be read: {error.strerror}") from error


def _describe(recorded: RecordedMotion, frame: int | None, out: TextIO) -> None:
    template = recorded.template
    shown = recorded.peak if frame is None else frame
    try:
        face = recorded.face(shown)
    except IndexError as error:
        raise ConfigError("--frame", str(error)) from error
    measured = {"eyes": template.eyes, "lips": template.lips}
    ratios = " and ".join(name for name, array in measured.items() if array is not None)
    named = face.controls.as_mapping()
    head = ", ".join(
        f"{angle} {round(named.pop(angle), 1) + 0.0}" for angle in ("pitch", "yaw", "roll")
    )
    strongest = sorted(named.items(), key=lambda each: -each[1])
    lines = {
        "motion": f"{len(recorded)} frames at {template.fps} fps, "
        f"{len(recorded) / template.fps:.2f} s",
        "ratios": ratios or "none: lids and lips are told from keypoints",
        "peak": f"frame {recorded.peak} of 0 to {len(recorded) - 1}, "
        f"at {recorded.peak / template.fps:.2f} s",
        "face": f"frame {shown}; ARKit controls show {face.explained:.0%} of its keypoint motion",
        "head": f"{head} degrees",
        "controls": ", ".join(f"{name} {weight:.2f}" for name, weight in strongest) or "none",
    }
    for topic, text in lines.items():
        out.write(f"{topic:<10}{text}\n")

"""Emotions as data: what each looks like, how fast it comes and goes, what it may be called.

`config/emotions.toml` is the table and explains its keys.
"""

from __future__ import annotations

import bisect
import difflib
import re
import tomllib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import numpy as np

from orchestrator.expression.idle import IdleAmplitude
from orchestrator.expression.recording import MotionReader, Recording
from pipeline.errors import ConfigError, ErrorCode, InvalidEventError
from pipeline.types import ARKIT_INDEX, HEAD_LIMIT_DEG, FaceControls, Float32Array

NEUTRAL: Final = "neutral"
BASIC_EMOTIONS: Final = (NEUTRAL, "happy", "sad", "surprised", "angry", "disgusted", "fearful")
"""These always exist; neutral, and the six basic emotions of Ekman."""

HEAD_ANGLES: Final = ("pitch", "yaw", "roll")
IDLE_PARTS: Final = ("gaze", "sway", "breath")
KEYS: Final = (
    "aliases", "max", "attack_ms", "hold_ms", "decay_ms", "head", "idle", "controls",
    "motion", "motion_frame",
)  # fmt: skip

# Ranges of the wire protocol, milliseconds.
MAX_FADE_MS: Final = 60_000.0
MAX_HOLD_MS: Final = 3_600_000.0
MAX_IDLE_FACTOR: Final = 4.0

LABEL: Final = re.compile(r"(?!.{33})[a-z][a-z0-9]*(?:_[a-z0-9]+)*")
MAX_NAME_CHARS: Final = 64
SUGGESTIONS: Final = (3, 5)
PEAK: Final = "peak"


@dataclass(frozen=True, slots=True, eq=False)
class Emotion:
    """One emotion of the table.

    Attributes:
        label: canonical name, lower case.
        aliases: other names, in the order of the file.
        maximum: weight on the face at intensity 1, in (0, 1].
        attack_s, decay_s: seconds to 95 % of the way in and out, unless an event says otherwise.
        hold_s: seconds at full strength, unless an event says otherwise.
        controls: the face at weight 1.
        idle: size of idle life at weight 1.
        recording: where the controls come from, None where the table has them itself.
    """

    label: str
    aliases: tuple[str, ...]
    maximum: float
    attack_s: float
    hold_s: float
    decay_s: float
    controls: FaceControls = field(default_factory=FaceControls)
    idle: IdleAmplitude = field(default_factory=IdleAmplitude)
    recording: Recording | None = None


class EmotionTable:
    """Every emotion that can be shown. Never changes.

    Args:
        emotions: the seven basic ones and any further, in any order.
        source: where they come from, for messages.

    Attributes:
        labels: canonical names, `neutral` first.
        rows: label to row of the two arrays below.
        shapes: (emotions, 55) float32, each row the 52 controls and pitch, yaw, roll in degrees
            at weight 1; read-only.
        idle: (emotions, 3) float32, each row the size of gaze, sway and breath; read-only.

    Raises:
        ConfigError: a basic emotion is missing, or a name means two of them.
    """

    def __init__(self, emotions: Iterable[Emotion], source: str = "emotions") -> None:
        by_label = {emotion.label: emotion for emotion in emotions}
        for label in BASIC_EMOTIONS:
            if label not in by_label:
                raise ConfigError(f"{source}: {label}", "this emotion must exist")
        self._emotions = {NEUTRAL: by_label[NEUTRAL]} | by_label
        self._names = _names(self._emotions.values(), source)
        self._sorted_names = sorted(self._names)
        self.labels: Final = tuple(self._emotions)
        self.rows: Final[Mapping[str, int]] = MappingProxyType(
            {label: row for row, label in enumerate(self.labels)}
        )
        self.shapes: Final = _frozen(
            [shape_of(e.controls).tolist() for e in self._emotions.values()]
        )
        self.idle: Final = _frozen(
            [[getattr(e.idle, part) for part in IDLE_PARTS] for e in self._emotions.values()]
        )

    @classmethod
    def load(cls, path: Path, motions: MotionReader | None = None) -> EmotionTable:
        """Read and check a table.

        Args:
            motions: reads the motion files that it names; None where it may name none.

        Raises:
            ConfigError: it cannot be read, or a key is unknown, missing or out of range, or a
                motion file is not what it should be; names the file and the full path of the key.
        """
        try:
            tables = tomllib.loads(path.read_text("utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise ConfigError(str(path), f"cannot be read: {error}") from error
        keys = _Keys(path, "", tables)
        return cls([_emotion(keys, label, motions) for label in tables], str(path))

    def __getitem__(self, label: str) -> Emotion:
        return self._emotions[label]

    def resolve(self, name: str, field: str = "emotion") -> str:
        """The canonical label of a label or alias.

        Args:
            name: in any case; '-', '_' and space are the same.
            field: of the message that it comes from, for the error.

        Raises:
            InvalidEventError: code `unknown_emotion`, with three to five near labels.
        """
        label = self._names.get(_normalised(name))
        if label is None:
            near = self._near(name)
            raise InvalidEventError(
                ErrorCode.UNKNOWN_EMOTION,
                f"there is no emotion {name[:MAX_NAME_CHARS]!r}; near ones are {', '.join(near)}",
                field=field,
                suggestions=near,
            )
        return label

    def knows(self, name: str) -> bool:
        """Whether `resolve` has a label for it."""
        return _normalised(name) in self._names

    def begins_name(self, beginning: str) -> bool:
        """Whether a name that `resolve` has a label for may begin so."""
        wanted = _normalised(beginning)
        at = bisect.bisect_left(self._sorted_names, wanted)
        return at < len(self._sorted_names) and self._sorted_names[at].startswith(wanted)

    def _near(self, name: str) -> tuple[str, ...]:
        """Labels whose name or alias is spelt alike, nearest first, filled up with others."""
        fewest, most = SUGGESTIONS
        alike = difflib.get_close_matches(
            _normalised(name[:MAX_NAME_CHARS]), self._names, n=2 * most, cutoff=0.6
        )
        near = tuple(dict.fromkeys(self._names[match] for match in alike))
        others = [label for label in (*BASIC_EMOTIONS[1:], NEUTRAL) if label not in near]
        return (*near[:most], *others[: max(0, fewest - len(near))])


def _normalised(name: str) -> str:
    return re.sub(r"[\s_-]+", " ", name).strip().casefold()


def shape_of(controls: FaceControls) -> Float32Array:
    """One row of `EmotionTable.shapes`: (55,) float32."""
    head = np.array([controls.pitch, controls.yaw, controls.roll], np.float32)
    return np.concatenate([controls.weights, head])


def _frozen(rows: list[list[float]]) -> Float32Array:
    array = np.array(rows, np.float32)
    array.flags.writeable = False
    return array


def _names(emotions: Iterable[Emotion], source: str) -> dict[str, str]:
    """Every normalised label and alias, to its label."""
    emotions = list(emotions)
    names = {_normalised(emotion.label): emotion.label for emotion in emotions}
    for emotion in emotions:
        for alias in emotion.aliases:
            taken = names.setdefault(_normalised(alias), emotion.label)
            if taken != emotion.label or _normalised(alias) == _normalised(emotion.label):
                raise ConfigError(
                    f"{source}: {emotion.label}.aliases", f"{alias!r} already means {taken!r}"
                )
    return names


# --- reading the file ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Keys:
    """One TOML table, with where it is."""

    file: Path
    at: str
    table: Mapping[str, Any]

    def wrong(self, key: str, problem: str) -> ConfigError:
        return ConfigError(f"{self.file}: {self.at}{key}", problem)

    def allow(self, known: Collection[str], what: str = "key") -> None:
        for key in self.table:
            if key not in known:
                near = difflib.get_close_matches(key, known, n=3)
                hint = f"; did you mean {' or '.join(near)}?" if near else ""
                raise self.wrong(key, f"there is no such {what}{hint}")

    def sub(self, key: str) -> _Keys:
        table = self.table.get(key, {})
        if not isinstance(table, dict):
            raise self.wrong(key, f"expected a table, got {table!r}")
        return _Keys(self.file, f"{self.at}{key}.", table)

    def number(self, key: str, low: float, high: float, default: float | None = None) -> float:
        value = self.table.get(key, default)
        if value is None:
            raise self.wrong(key, f"is missing; expected a number in [{low:.9g}, {high:.9g}]")
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.wrong(key, f"expected a number, got {value!r}")
        if not low <= value <= high:
            raise self.wrong(key, f"expected a number in [{low:.9g}, {high:.9g}], got {value!r}")
        return float(value)


def _emotion(tables: _Keys, label: str, motions: MotionReader | None) -> Emotion:
    if not LABEL.fullmatch(label):
        raise tables.wrong(
            label, "a label has lower-case letters, digits and single '_', at most 32"
        )
    keys = tables.sub(label)
    keys.allow(KEYS)
    maximum = keys.number("max", 0.0, 1.0)
    if maximum == 0.0:
        raise keys.wrong("max", "must be above 0, or the emotion never shows")
    controls, recording = _face(keys, motions)
    return Emotion(
        label=label,
        aliases=_aliases(keys),
        maximum=maximum,
        attack_s=keys.number("attack_ms", 0.0, MAX_FADE_MS) / 1000.0,
        hold_s=keys.number("hold_ms", 0.0, MAX_HOLD_MS) / 1000.0,
        decay_s=keys.number("decay_ms", 0.0, MAX_FADE_MS) / 1000.0,
        controls=controls,
        idle=_idle(keys.sub("idle")),
        recording=recording,
    )


def _aliases(keys: _Keys) -> tuple[str, ...]:
    aliases = keys.table.get("aliases", [])
    if not isinstance(aliases, list):
        raise keys.wrong("aliases", f"expected a list of names, got {aliases!r}")
    seen: set[str] = set()
    for index, alias in enumerate(aliases):
        where = f"aliases[{index}]"
        if not isinstance(alias, str) or not 1 <= len(_normalised(alias)) <= MAX_NAME_CHARS:
            raise keys.wrong(where, f"expected 1 to {MAX_NAME_CHARS} characters, got {alias!r}")
        if _normalised(alias) in seen:
            raise keys.wrong(where, f"{alias!r} is there twice")
        seen.add(_normalised(alias))
    return tuple(aliases)


def _face(keys: _Keys, motions: MotionReader | None) -> tuple[FaceControls, Recording | None]:
    written = _controls(keys)
    if "motion" not in keys.table:
        if "motion_frame" in keys.table:
            raise keys.wrong("motion_frame", "there is no motion that it could be a frame of")
        return written, None
    if "controls" in keys.table:
        raise keys.wrong("controls", "the face comes from motion; leave one of them out")
    controls, recording = _recorded(keys, motions)
    if "head" in keys.table:
        controls = replace(controls, **{a: getattr(written, a) for a in HEAD_ANGLES})
    return controls, recording


def _recorded(keys: _Keys, motions: MotionReader | None) -> tuple[FaceControls, Recording]:
    name = keys.table["motion"]
    if not isinstance(name, str) or not name.isprintable() or not name:
        raise keys.wrong("motion", f"expected the name of a motion file, got {name!r}")
    if motions is None:
        raise keys.wrong("motion", "recorded motions cannot be read here")
    file = keys.file.parent / name
    try:
        motion = motions(file)
    except ConfigError as error:
        raise keys.wrong("motion", str(error)) from error
    except OSError as error:
        raise keys.wrong("motion", f"{file}: cannot be read: {error.strerror}") from error
    frame = keys.table.get("motion_frame", PEAK)
    if frame == PEAK:
        frame = motion.peak
    if isinstance(frame, bool) or not isinstance(frame, int) or not 0 <= frame < len(motion):
        raise keys.wrong(
            "motion_frame",
            f"expected {PEAK!r} or a frame of {file} from 0 to {len(motion) - 1}, got {frame!r}",
        )
    face = motion.face(frame)
    return face.controls, Recording(file, frame, face.explained)


def _controls(keys: _Keys) -> FaceControls:
    shapes, head = keys.sub("controls"), keys.sub("head")
    shapes.allow(ARKIT_INDEX, "ARKit blendshape")
    head.allow(HEAD_ANGLES)
    angles = {a: head.number(a, -HEAD_LIMIT_DEG, HEAD_LIMIT_DEG, 0.0) for a in HEAD_ANGLES}
    return FaceControls.of(
        **angles, **{name: shapes.number(name, 0.0, 1.0) for name in shapes.table}
    )


def _idle(keys: _Keys) -> IdleAmplitude:
    keys.allow(IDLE_PARTS)
    return IdleAmplitude(**{p: keys.number(p, 0.0, MAX_IDLE_FACTOR, 1.0) for p in IDLE_PARTS})

"""Layers to one face: emotions by weight, the character's rest, mood, idle life.

Written order, each on top of what is below it:

1. emotions: the weighted sum of their faces, each times the character's gain, their mouth times
   what the character's state leaves of it;
2. rest: the character's resting correction, fading as `happy` comes and, where it keeps the
   lips together, as the jaw opens;
3. mood: as far as the face is neutral;
4. idle life: a blink shuts the lids whatever they do; gaze and head sway add up;
5. direct controls: they take the place of all that, but for the resting correction, or add to it.

Then opposites net out, and everything is clamped to its range.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import numpy as np
import numpy.typing as npt

from orchestrator.expression.easing import RELEASE
from orchestrator.expression.emotions import NEUTRAL, EmotionTable, shape_of
from orchestrator.expression.idle import IdleAmplitude, IdleOffsets
from orchestrator.expression.mood import MoodOffsets
from pipeline.types import ARKIT_BLENDSHAPES, ARKIT_INDEX, FaceControls, Float32Array

HAPPY: Final = "happy"
NO_GAINS: Final[Mapping[str, float]] = MappingProxyType({})

OPEN_JAW: Final = 0.25
"""From here on nothing of the resting correction keeps the lips together."""

_CONTROLS: Final = len(ARKIT_BLENDSHAPES)


def _columns(*names: str) -> npt.NDArray[np.intp]:
    return np.array([ARKIT_INDEX[name] for name in names], np.intp)


_SMILE: Final = _columns("mouthSmileLeft", "mouthSmileRight")
_MOUTH: Final = _columns(*(n for n in ARKIT_BLENDSHAPES if n.startswith(("jaw", "mouth"))))
_JAW: Final = ARKIT_INDEX["jawOpen"]
_LIP_CLOSERS: Final = _columns(
    "mouthClose", "mouthPressLeft", "mouthPressRight", "mouthRollLower", "mouthRollUpper",
    "mouthShrugLower", "mouthShrugUpper",
)  # fmt: skip
_BLINKS: Final = _columns("eyeBlinkLeft", "eyeBlinkRight")
_WIDES: Final = _columns("eyeWideLeft", "eyeWideRight")
# To the character's left and up, in the order of left eye, right eye.
_GAZE: Final = _columns("eyeLookOutLeft", "eyeLookInRight", "eyeLookUpLeft", "eyeLookUpRight")
# Of each pair of opposites only the difference shows.
ONE_WAY: Final = np.append(_GAZE, _columns("jawLeft", "mouthLeft"))
OTHER_WAY: Final = _columns(
    "eyeLookInLeft", "eyeLookOutRight", "eyeLookDownLeft", "eyeLookDownRight",
    "jawRight", "mouthRight",
)  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class InjectedControls:
    """What producers do to the face directly.

    Attributes:
        keep: (55,) float32 in [0, 1], the share of the layers below that stays, in the order of
            `EmotionTable.shapes`.
        add: (55,) float32, what comes to it.
    """

    keep: Float32Array
    add: Float32Array


def compose(
    weights: Mapping[str, float],
    emotions: EmotionTable,
    *,
    gains: Mapping[str, float] = NO_GAINS,
    idle: IdleOffsets | None = None,
    mood: MoodOffsets | None = None,
    rest: FaceControls | None = None,
    mouth: float = 1.0,
    injected: InjectedControls | None = None,
) -> FaceControls:
    """The face that these layers add up to.

    Args:
        weights: label to weight on the face, in [0, 1]. A label that the table does not have
            (any more) shows nothing.
        emotions: what each looks like.
        gains: label to the character's factor on it, 1 where absent.
        idle: idle life at this moment.
        mood: the mood at this moment.
        rest: what makes the character's portrait look neutral (one that smiles needs some
            `mouthFrown`). There in full on a neutral face; since a smile is what it works
            against, it goes as `happy` comes and is gone at that emotion's maximum. What in it
            keeps the lips together also goes as the emotions open the jaw, up to `OPEN_JAW`.
        mouth: factor on what emotions do with jaw and lips, in [0, 1]. A smile that is smaller
            for it also leaves more of the resting correction.
        injected: direct controls. They are relative to the character's neutral face, so the
            resting correction stays under them, and goes with their smile and their jaw.
    """
    shares = _shares(weights, emotions)
    neutral = shares[0]
    if gains:
        shares = shares * np.array([gains.get(label, 1.0) for label in emotions.labels], np.float32)
    face: Float32Array = shares @ emotions.shapes
    if mouth != 1.0:
        face[_MOUTH] *= mouth
    correction: Float32Array | None = None
    if rest is not None:
        correction = _fading_rest(rest, face, _smiles(weights, emotions, mouth, injected), injected)
        face += correction
    if mood is not None:
        face[:_CONTROLS] += neutral * mood.controls
    if idle is not None:
        _add_idle(face, idle)
    if injected is not None:
        face = injected.keep * face + injected.add
        if correction is not None:
            face += (1.0 - injected.keep) * correction
    _net(face)
    pitch, yaw, roll = face[_CONTROLS:].tolist()
    return FaceControls.clamped(face[:_CONTROLS], pitch, yaw, roll)


def idle_amplitude(
    weights: Mapping[str, float], emotions: EmotionTable, mood: MoodOffsets | None = None
) -> IdleAmplitude:
    """How large idle life is for what is on the face: the emotions' own sizes by weight.

    Args:
        weights: as in `compose`.
        emotions: how large idle life is under each.
        mood: the mood at this moment; it livens or calms the neutral share.
    """
    shares = _shares(weights, emotions)
    unknown = max(0.0, 1.0 - float(shares.sum()))
    if mood is not None:
        shares[0] *= mood.idle
    gaze, sway, breath = (shares @ emotions.idle + unknown).tolist()
    return IdleAmplitude(gaze, sway, breath)


def _shares(weights: Mapping[str, float], emotions: EmotionTable) -> Float32Array:
    """Weights in the order of the table (neutral first); neutral is what is left, if not given."""
    shares = np.zeros(len(emotions.labels), np.float32)
    for label, weight in weights.items():
        row = emotions.rows.get(label)
        if row is not None:
            shares[row] = weight
    if NEUTRAL not in weights:
        shares[0] = max(0.0, 1.0 - sum(weights.values()))
    return shares


def _smiles(
    weights: Mapping[str, float],
    emotions: EmotionTable,
    mouth: float,
    injected: InjectedControls | None,
) -> tuple[float, float]:
    """How far the face, and how far its mouth, smiles: 0 not at all, 1 as `happy` at its maximum.

    Direct controls count by the smile that they ask for.
    """
    happy = emotions[HAPPY]
    face = min(max(weights.get(HAPPY, 0.0) / happy.maximum, 0.0), 1.0)
    lips = mouth * face
    if injected is not None:
        whole = happy.maximum * float(emotions.shapes[emotions.rows[HAPPY], _SMILE].sum())
        asked = float(injected.add[_SMILE].sum()) / whole if whole > 0.0 else 0.0
        kept = float(injected.keep[_SMILE].sum()) / len(_SMILE)
        face, lips = kept * face + asked, kept * lips + asked
    return min(face, 1.0), min(lips, 1.0)


def _fading_rest(
    rest: FaceControls,
    face: Float32Array,
    smiles: tuple[float, float],
    injected: InjectedControls | None,
) -> Float32Array:
    """What is left of the resting correction over the face that the emotions give."""
    jaw_open = float(face[_JAW])
    if injected is not None:
        jaw_open = float(injected.keep[_JAW]) * jaw_open + float(injected.add[_JAW])
    shape = shape_of(rest)
    fading = (1.0 - smiles[0]) * shape
    fading[_MOUTH] = (1.0 - smiles[1]) * shape[_MOUTH]
    fading[_LIP_CLOSERS] *= 1.0 - RELEASE.at(jaw_open / OPEN_JAW)
    return fading


def _add_idle(face: Float32Array, idle: IdleOffsets) -> None:
    lids = np.clip(face[_BLINKS], 0.0, 1.0)
    face[_BLINKS] = 1.0 - (1.0 - lids) * (1.0 - idle.blink)
    face[_WIDES] *= 1.0 - idle.blink
    eyes_open = np.tile(1.0 - face[_BLINKS], 2)
    face[_GAZE] += eyes_open * (idle.gaze_x, idle.gaze_x, idle.gaze_y, idle.gaze_y)
    face[_CONTROLS:] += (idle.pitch, idle.yaw, idle.roll)


def _net(face: Float32Array) -> None:
    """Leave only the difference of controls that work against each other."""
    difference = face[ONE_WAY] - face[OTHER_WAY]
    face[ONE_WAY] = np.maximum(difference, 0.0)
    face[OTHER_WAY] = np.maximum(-difference, 0.0)

"""Values that every part of the product shares.

Times are seconds (floats) on the monotonic clock unless the name ends in `_ms`,
which is wire format only. Images are `(H, W, 3) uint8 RGB`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

Float32Array = npt.NDArray[np.float32]
Image = npt.NDArray[np.uint8]

# Apple's ARFaceAnchor.BlendShapeLocation names, in Apple's documented order.
ARKIT_BLENDSHAPES: Final[tuple[str, ...]] = (
    "eyeBlinkLeft", "eyeLookDownLeft", "eyeLookInLeft", "eyeLookOutLeft", "eyeLookUpLeft",
    "eyeSquintLeft", "eyeWideLeft",
    "eyeBlinkRight", "eyeLookDownRight", "eyeLookInRight", "eyeLookOutRight", "eyeLookUpRight",
    "eyeSquintRight", "eyeWideRight",
    "jawForward", "jawLeft", "jawRight", "jawOpen",
    "mouthClose", "mouthFunnel", "mouthPucker", "mouthLeft", "mouthRight",
    "mouthSmileLeft", "mouthSmileRight", "mouthFrownLeft", "mouthFrownRight",
    "mouthDimpleLeft", "mouthDimpleRight", "mouthStretchLeft", "mouthStretchRight",
    "mouthRollLower", "mouthRollUpper", "mouthShrugLower", "mouthShrugUpper",
    "mouthPressLeft", "mouthPressRight", "mouthLowerDownLeft", "mouthLowerDownRight",
    "mouthUpperUpLeft", "mouthUpperUpRight",
    "browDownLeft", "browDownRight", "browInnerUp", "browOuterUpLeft", "browOuterUpRight",
    "cheekPuff", "cheekSquintLeft", "cheekSquintRight", "noseSneerLeft", "noseSneerRight",
    "tongueOut",
)  # fmt: skip
ARKIT_INDEX: Final[Mapping[str, int]] = MappingProxyType(
    {name: index for index, name in enumerate(ARKIT_BLENDSHAPES)}
)
HEAD_LIMIT_DEG: Final = 45.0

# Landmark sets beside the iBUG 68: InsightFace's and LivePortrait's.
DENSE_COUNTS: Final = (106, 203)


@dataclass(frozen=True, slots=True, eq=False)
class FaceControls:
    """One face: ARKit-52 blendshape weights and head pose.

    "Left" and "Right" are the character's own, as in ARKit. Head angles follow the
    geometry that LivePortrait uses (x right, y down, z into the image): positive pitch
    looks down, positive yaw turns the nose towards the left edge of the image, positive
    roll tilts the top of the head towards the right edge of the image.

    Attributes:
        weights: (52,) float32 in [0, 1], in the order of `ARKIT_BLENDSHAPES`; read-only.
        pitch, yaw, roll: degrees in [-45, 45].
    """

    weights: Float32Array = field(default_factory=lambda: np.zeros(52, np.float32))
    pitch: float = 0.0
    yaw: float = 0.0
    roll: float = 0.0

    def __post_init__(self) -> None:
        weights = np.array(self.weights, dtype=np.float32)
        if weights.shape != (len(ARKIT_BLENDSHAPES),):
            raise ValueError(f"weights: expected shape (52,), got {weights.shape}")
        if not (np.isfinite(weights).all() and weights.min() >= 0.0 and weights.max() <= 1.0):
            raise ValueError("weights: expected finite numbers in [0, 1]")
        for name in ("pitch", "yaw", "roll"):
            angle = getattr(self, name)
            if not (math.isfinite(angle) and abs(angle) <= HEAD_LIMIT_DEG):
                raise ValueError(f"{name}: expected degrees in [-45, 45], got {angle!r}")
        weights.flags.writeable = False
        object.__setattr__(self, "weights", weights)

    @classmethod
    def clamped(
        cls, weights: npt.ArrayLike, pitch: float = 0.0, yaw: float = 0.0, roll: float = 0.0
    ) -> Self:
        """Controls from sums that may lie slightly outside their ranges."""
        limit = HEAD_LIMIT_DEG
        return cls(
            np.clip(np.asarray(weights, np.float32), 0.0, 1.0),
            min(max(pitch, -limit), limit),
            min(max(yaw, -limit), limit),
            min(max(roll, -limit), limit),
        )

    @classmethod
    def of(cls, *, pitch: float = 0.0, yaw: float = 0.0, roll: float = 0.0, **named: float) -> Self:
        """Controls from blendshape names: `FaceControls.of(jawOpen=0.5, yaw=10)`.

        Raises:
            KeyError: a name is not an ARKit blendshape.
        """
        weights = np.zeros(len(ARKIT_BLENDSHAPES), np.float32)
        for name, value in named.items():
            weights[ARKIT_INDEX[name]] = value
        return cls(weights, pitch, yaw, roll)

    def __getitem__(self, name: str) -> float:
        return float(self.weights[ARKIT_INDEX[name]])

    def as_mapping(self) -> dict[str, float]:
        """Non-zero blendshapes by name, and the three head angles."""
        named = {n: float(w) for n, w in zip(ARKIT_BLENDSHAPES, self.weights, strict=True) if w}
        return named | {"pitch": self.pitch, "yaw": self.yaw, "roll": self.roll}


class Policy(StrEnum):
    """What a new cue does to the cues that are on; protocol section 1."""

    REPLACE = "replace"
    QUEUE = "queue"
    BLEND = "blend"
    OVERRIDE = "override"


@dataclass(frozen=True, slots=True)
class EmotionEvent:
    """What a producer asks the face to show, as it came from the wire.

    Attributes:
        id: 1..64 printable ASCII characters, unique for ten minutes.
        emotion: label or alias, any case; None where only `mix` is given.
        intensity: requested strength, not yet clamped to [0, 1].
        mix: further emotions, label or alias to strength, not yet clamped.
        attack_s, decay_s: seconds to 95 % of the way in and out; None is the emotion's default.
        hold_s: seconds at full strength; None is the emotion's default, inf holds until
            something replaces it.
        at_s: start this many seconds after receipt.
        priority: 0..9.
        ttl_s: expire if not started within this many seconds; None never does.
    """

    id: str
    emotion: str | None = None
    intensity: float = 1.0
    mix: Mapping[str, float] = field(default_factory=dict)
    attack_s: float | None = None
    hold_s: float | None = None
    decay_s: float | None = None
    at_s: float = 0.0
    policy: Policy = Policy.REPLACE
    priority: int = 5
    ttl_s: float | None = None


@dataclass(frozen=True, slots=True)
class Interrupt:
    """Fade out every cue within `fade_s` seconds and empty the queue."""

    id: str
    fade_s: float = 0.12


@dataclass(frozen=True, slots=True)
class GetState:
    """Ask for the stage's snapshot."""

    id: str | None = None


@dataclass(frozen=True, slots=True)
class Mood:
    """The slow layer under the cues: valence and arousal in [-1, 1], fading over `decay_s`."""

    id: str | None
    valence: float
    arousal: float
    decay_s: float


@dataclass(frozen=True, slots=True)
class CharacterSwitch:
    """Show another character on this stage."""

    id: str
    character: str


@dataclass(frozen=True, slots=True)
class TextDelta:
    """The next piece of a text that may hold emotion tags.

    Attributes:
        id: of the text; the same in all its deltas.
        delta: what comes next.
        final: nothing comes after it.
    """

    id: str
    delta: str
    final: bool = False


class Activity(StrEnum):
    """What the character is doing; the `state` of protocol section 1."""

    IDLE = "idle"
    LISTENING = "listening"
    THINKING = "thinking"
    SPEAKING = "speaking"


@dataclass(frozen=True, slots=True)
class StateChange:
    """The character does something else from now on."""

    id: str | None
    state: Activity


class ControlsMode(StrEnum):
    """What direct controls do to what the emotions give."""

    SET = "set"
    ADD = "add"


@dataclass(frozen=True, slots=True)
class DirectControls:
    """Facial controls straight from a producer, for as long as it keeps sending.

    Attributes:
        mode: cross-fade to these controls, or add them.
        weights: ARKit blendshape to value in [0, 1]; those that it is about.
        head: `pitch`, `yaw`, `roll` to degrees in [-45, 45]; those that it is about.
        weight: strength of the whole, in [0, 1].
    """

    id: str | None = None
    mode: ControlsMode = ControlsMode.SET
    weights: Mapping[str, float] = field(default_factory=dict)
    head: Mapping[str, float] = field(default_factory=dict)
    weight: float = 1.0


StageMessage = (
    EmotionEvent
    | Interrupt
    | GetState
    | Mood
    | CharacterSwitch
    | TextDelta
    | StateChange
    | DirectControls
)


# --- what a stage answers, each as plain data; adapters give it its wire form ---------------


@dataclass(frozen=True, slots=True)
class CueAccepted:
    """The event is on the timeline (or was already: `duplicate`).

    Attributes:
        used: canonical label of the main emotion (the strongest of `mix` where none was named).
        intensity: requested intensity after clamping to [0, 1].
        mix: canonical label to clamped strength, without the main emotion.
        mapped_from: what was sent, where an alias was mapped; else None.
        clamped: some number was outside its range and was clamped.
    """

    id: str
    used: str
    intensity: float
    mix: Mapping[str, float]
    mapped_from: str | None
    clamped: bool
    duplicate: bool = False


@dataclass(frozen=True, slots=True)
class CueStarted:
    """First published frame with at least 10 % of the change."""

    id: str
    seq: int
    pts_s: float
    latency_s: float
    no_change: bool = False


@dataclass(frozen=True, slots=True)
class CuePeaked:
    """First published frame with at least 90 % of the change."""

    id: str
    seq: int
    pts_s: float
    latency_s: float
    no_change: bool = False


@dataclass(frozen=True, slots=True)
class CueFinished:
    """The cue has decayed; `seq` is the first frame published without it."""

    id: str
    seq: int
    pts_s: float


@dataclass(frozen=True, slots=True)
class CueSuperseded:
    """The cue was replaced or interrupted by the message `by`."""

    id: str
    by: str
    seq: int
    pts_s: float


@dataclass(frozen=True, slots=True)
class CueExpired:
    """The cue's ttl ran out before it could start."""

    id: str


@dataclass(frozen=True, slots=True)
class ErrorInfo:
    """The `error` object of the protocol."""

    code: str
    message: str
    field: str | None = None
    suggestions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CueRejected:
    """The event was not accepted; nothing has changed."""

    id: str
    error: ErrorInfo


@dataclass(frozen=True, slots=True)
class InterruptDone:
    """The last of the interrupted cues has left the face."""

    id: str
    superseded: tuple[str, ...]
    seq: int
    pts_s: float
    latency_s: float


@dataclass(frozen=True, slots=True)
class StateSnapshot:
    """The body of GET /v1/state, ready for JSON."""

    id: str | None
    body: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class MoodOk:
    """The mood was taken."""

    id: str | None


@dataclass(frozen=True, slots=True)
class StateOk:
    """The state was taken."""

    id: str | None


@dataclass(frozen=True, slots=True)
class CharacterSwitched:
    """The new character is on the face since frame `seq`."""

    id: str
    character: str
    seq: int


@dataclass(frozen=True, slots=True)
class TextCue:
    """A tag of a text, and the cue that it becomes.

    Attributes:
        id: of the cue.
        emotion: canonical label.
        intensity: requested strength, clamped to [0, 1].
        at: how many characters (code points) of the clean delta come before it.
    """

    id: str
    emotion: str
    intensity: float
    at: int


@dataclass(frozen=True, slots=True)
class TextClean:
    """What of a text is clear by now, without its tags; and these, in order."""

    id: str
    delta: str
    cues: tuple[TextCue, ...]


@dataclass(frozen=True, slots=True)
class Failure:
    """A message that belongs to no cue could not be taken."""

    id: str | None
    error: ErrorInfo


StageReply = (
    CueAccepted
    | CueStarted
    | CuePeaked
    | CueFinished
    | CueSuperseded
    | CueExpired
    | CueRejected
    | InterruptDone
    | StateSnapshot
    | MoodOk
    | StateOk
    | CharacterSwitched
    | TextClean
    | Failure
)


# --- portraits ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class FaceLandmarks:
    """Where a face lies in an image, in pixels.

    Attributes:
        points: (68, 2) float32 (x, y), iBUG/300-W order: jaw 0-16 from the image's left,
            brows 17-21 and 22-26, nose 27-35, eyes 36-41 and 42-47, outer lips 48-59,
            inner lips 60-67; read-only.
        irises: (2, 3) float32 (x, y, radius), the eye at the image's left first; read-only.
        source: where they come from: `file`, `insightface` or `fitted`; `anchors` where a file
            or network told no more than eyes and mouth, and the rest is an average face.
        dense: the (106, 2) or (203, 2) float32 points that `points` were taken from, in
            InsightFace's or LivePortrait's order; None where there are 68 alone; read-only.
    """

    points: Float32Array
    irises: Float32Array
    source: str
    dense: Float32Array | None = None

    def __post_init__(self) -> None:
        self._check("points", [(68, 2)])
        self._check("irises", [(2, 3)])
        if self.dense is not None:
            self._check("dense", [(count, 2) for count in DENSE_COUNTS])

    def _check(self, name: str, shapes: Sequence[tuple[int, int]]) -> None:
        array = np.array(getattr(self, name), dtype=np.float32)
        if array.shape not in shapes or not np.isfinite(array).all():
            wanted = " or ".join(map(str, shapes))
            raise ValueError(f"{name}: expected finite numbers of shape {wanted}")
        array.flags.writeable = False
        object.__setattr__(self, name, array)

    def moved(self, shift: npt.ArrayLike = 0.0, scale: npt.ArrayLike = 1.0) -> FaceLandmarks:
        """All of them at `(point + shift) * scale`; both may be (x, y) pairs."""
        by, factor = np.asarray(shift, np.float32), np.asarray(scale, np.float32)
        irises = self.irises.copy()
        irises[:, :2] = (irises[:, :2] + by) * factor
        irises[:, 2] *= factor.mean()
        dense = None if self.dense is None else (self.dense + by) * factor
        return FaceLandmarks((self.points + by) * factor, irises, self.source, dense)


@dataclass(frozen=True, slots=True, eq=False)
class Portrait:
    """A checked portrait, cropped to what is shown.

    Attributes:
        name: for messages and logs.
        image: (H, W, 3) uint8 RGB; read-only.
        landmarks: of the main face, in pixels of `image`.
        key: content hash over image and landmarks; part of the frame cache's key.
    """

    name: str
    image: Image
    landmarks: FaceLandmarks
    key: str


# --- frames -------------------------------------------------------------------------------


class ImageFormat(StrEnum):
    """Still-image encodings of the protocol."""

    JPEG = "jpeg"
    WEBP = "webp"
    PNG = "png"

    @property
    def content_type(self) -> str:
        return f"image/{self.value}"


@dataclass(frozen=True, slots=True)
class FrameInfo:
    """Everything a frame says about itself except its pixels; the `avf1` header less `dropped`.

    Attributes:
        seq: rises by one per published frame.
        pts_s: seconds since the stage started, on its media clock.
        ts_ms: wall clock at publishing, milliseconds since the epoch.
        emotion: label to weight on the face, `neutral` included.
        event: id of the newest cue on the face.
        cached: the image came from the frame cache.
        degraded: None, or why this is not the wanted renderer's frame.
    """

    seq: int
    pts_s: float
    ts_ms: float
    width: int
    height: int
    emotion: Mapping[str, float]
    event: str | None
    cached: bool
    degraded: str | None

"""What the daemon says about itself, as JSON objects: the shapes of its longer answers.

Stage and daemon fill these, where the type checker holds them to every key, and the
descriptions of the protocol are generated from them. So a key that is not here is not sent.
Keys that are `NotRequired` came after protocol 1.0 was first published.
"""

from __future__ import annotations

from typing import Final, Literal, NotRequired, TypedDict

PROTOCOL_VERSION: Final = "1.0"


class EmotionBody(TypedDict):
    """An emotion as `hello` lists it.

    Attributes:
        aliases: further names that lead to it.
        max: weight on the face at intensity 1.
        attack_ms: time to 95 % of the way in, unless the event says otherwise.
        hold_ms: time at full strength, unless the event says otherwise; null holds on.
        decay_ms: time to 95 % of the way out, unless the event says otherwise.
    """

    aliases: list[str]
    max: float
    attack_ms: float | None
    hold_ms: float | None
    decay_ms: float | None


class RendererBody(TypedDict):
    """What draws the frames.

    Attributes:
        name: `mesh` or another.
        device: `cpu`, `cuda:0`, `mps`.
        degraded: null, or why frames are not the wanted renderer's.
    """

    name: str
    device: str
    degraded: str | None


class HelloBody(TypedDict):
    """The greeting of every producer.

    Attributes:
        type: tells the messages apart.
        protocol: version of the protocol.
        server: name and version of the daemon.
        stage: the stage that messages go to which name none.
        character: who is on stage.
        emotions: label to what is known of it.
        policies: values of `policy`.
        states: values of `state`.
        controls: ARKit's blendshape names.
        fps: frames per second of the stage's clock.
        width: of a frame, in pixels.
        height: of a frame, in pixels.
        formats: image formats that viewers may ask for.
        renderer: what draws the frames.
    """

    type: Literal["hello"]
    protocol: str
    server: str
    stage: str
    character: str
    emotions: dict[str, EmotionBody]
    policies: list[str]
    states: NotRequired[list[str]]
    controls: list[str]
    fps: float
    width: int
    height: int
    formats: list[str]
    renderer: RendererBody


class CueBody(TypedDict):
    """A cue on the timeline.

    Attributes:
        id: of the event, or of the text and the number of the tag in it.
        emotion: canonical label.
        phase: where in its life it is.
        since_ms: time since that phase began.
        remaining_ms: time until it ends; null if nothing but another cue ends it.
    """

    id: str
    emotion: str
    phase: Literal["scheduled", "queued", "attack", "hold", "decay", "suspended"]
    since_ms: float | None
    remaining_ms: float | None


class MoodBody(TypedDict):
    """The slow layer under the cues, as it is now.

    Attributes:
        valence: from -1, displeased, to 1, pleased.
        arousal: from -1, calm, to 1, excited.
    """

    valence: float
    arousal: float


class CacheBody(TypedDict):
    """The frame cache.

    Attributes:
        hits: frames that were found in it, since the start.
        misses: frames that were not.
        bytes: what it holds.
        entries: frames in it.
    """

    hits: int
    misses: int
    bytes: int
    entries: int


class StateBody(TypedDict):
    """A stage as it is now.

    Attributes:
        stage: its name.
        seq: of the newest frame; -1 before the first.
        pts_ms: media time of the newest frame.
        character: who is on stage.
        state: what the character is doing.
        weights: label to weight on the face; `neutral` is 1 minus the sum of the others.
        controls: ARKit blendshape to value, those that are not zero; and the head's `pitch`,
            `yaw` and `roll` in degrees.
        mood: the slow layer under the cues.
        cues: those on the face.
        queue: those that have not begun.
        viewers: number of viewers by kind.
        renderer: what draws the frames.
        cache: the frame cache.
        fps: frames published per second, measured over two seconds.
    """

    stage: str
    seq: int
    pts_ms: float | None
    character: str
    state: str
    weights: dict[str, float]
    controls: dict[str, float]
    mood: NotRequired[MoodBody]
    cues: list[CueBody]
    queue: list[CueBody]
    viewers: dict[str, int]
    renderer: RendererBody
    cache: CacheBody
    fps: float


class HealthBody(TypedDict):
    """How the daemon is.

    Attributes:
        status: `degraded` while frames are not the wanted renderer's.
        renderer: name of what draws.
        device: what it runs on; `unknown` before the first stage.
        gpu_available: the machine has a GPU that could be used.
        gpu_name: its name.
        model_loaded: the wanted renderer is loaded.
        uptime_s: seconds since the start.
        degraded: null, or why frames are not the wanted renderer's.
        problems: what else is not as it should be, each as `part: what is wrong`; gone when it is.
    """

    status: Literal["ok", "degraded"]
    renderer: str
    device: str
    gpu_available: bool
    gpu_name: str | None
    model_loaded: bool
    uptime_s: float
    degraded: str | None
    problems: list[str]


class CharacterBody(TypedDict):
    """A character that can be shown.

    Attributes:
        name: what messages call it.
        title: what people call it.
        licence: of its portrait.
        thumbnail: path of a small JPEG.
        uploaded: it was added at run time, and can be deleted.
        stages: where it is on.
    """

    name: str
    title: str
    licence: str
    thumbnail: NotRequired[str]
    uploaded: NotRequired[bool]
    stages: NotRequired[list[str]]


class AddedCharacterBody(CharacterBody):
    """A character that has been added.

    Attributes:
        name: what messages call it.
        title: what people call it.
        licence: of its portrait.
        thumbnail: path of a small JPEG.
        uploaded: it was added at run time, and can be deleted.
        stages: where it is on.
        warnings: what would make a better portrait.
    """

    warnings: list[str]


class CharactersBody(TypedDict):
    """Who can be shown.

    Attributes:
        characters: all of them.
        current: who is on the default stage; null before there is one.
    """

    characters: list[CharacterBody]
    current: str | None


class ReadyBody(TypedDict):
    """Frames are being published."""

    status: Literal["ready"]


class RangeBody(TypedDict):
    """A range of numbers, both ends in it."""

    min: float
    max: float


class ExpressionsBody(TypedDict):
    """What can be shown.

    Attributes:
        expressions: canonical labels, `neutral` first.
        intensities: how strong it may be.
    """

    expressions: list[str]
    intensities: RangeBody


class StageBody(TypedDict):
    """A stage.

    Attributes:
        name: what messages call it.
        character: who is on.
        fps: frames per second of its clock.
        width: of a frame, in pixels.
        height: of a frame, in pixels.
        viewers: how many watch it.
        degraded: null, or why its frames are not the wanted renderer's.
        made: by POST, and can be deleted.
    """

    name: str
    character: str
    fps: float
    width: int
    height: int
    viewers: int
    degraded: str | None
    made: bool


class StagesBody(TypedDict):
    """All stages, the default one first.

    Attributes:
        stages: all of them.
        limit: how many there may be.
    """

    stages: list[StageBody]
    limit: int

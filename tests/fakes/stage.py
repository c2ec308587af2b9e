"""A stage and a daemon without a face, for tests of the adapters."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pipeline.errors import ErrorCode, InvalidEventError
from pipeline.ports import FrameSink, Reply
from pipeline.types import (
    CharacterSwitch,
    CharacterSwitched,
    CueAccepted,
    EmotionEvent,
    FrameInfo,
    GetState,
    ImageFormat,
    Interrupt,
    InterruptDone,
    Mood,
    MoodOk,
    StageMessage,
    StateChange,
    StateOk,
    StateSnapshot,
    TextClean,
    TextDelta,
)

LABELS = ("neutral", "happy", "sad", "surprised", "angry", "disgusted", "fearful")

# One grey pixel as a JPEG file.
JPEG = bytes.fromhex(
    "ffd8ffe000104a46494600010100000100010000ffdb00430002010101010102010101020202020204030202020205"
    "04040304060506060605060606070908060709070606080b08090a0a0a0a0a06080b0c0b0a0c090a0a0affc0000b08"
    "0001000101011100ffc4001f0000010501010101010100000000000000000102030405060708090a0bffc400b51000"
    "02010303020403050504040000017d01020300041105122131410613516107227114328191a1082342b1c11552d1f0"
    "2433627282090a161718191a25262728292a3435363738393a434445464748494a535455565758595a636465666768"
    "696a737475767778797a838485868788898a92939495969798999aa2a3a4a5a6a7a8a9aab2b3b4b5b6b7b8b9bac2c3"
    "c4c5c6c7c8c9cad2d3d4d5d6d7d8d9dae1e2e3e4e5e6e7e8e9eaf1f2f3f4f5f6f7f8f9faffda0008010100003f002b"
    "ffd9"
)

Answer = Callable[[StageMessage, Reply], None]


class FakeStage:
    """Implements `pipeline.ports.StagePort`; answers at once, or as `answer` says.

    Attributes:
        submitted: every message with the reply that it came with.
        answer: takes the place of the usual answers; a test may set it.
        sinks: attached sinks.
        newest: the frame published last.
    """

    def __init__(self, name: str = "main") -> None:
        self._name = name
        self.submitted: list[tuple[StageMessage, Reply]] = []
        self.answer: Answer = self.usual_answer
        self.sinks: list[FrameSink] = []
        self.newest: tuple[FrameInfo, bytes] | None = None
        self.asked_formats: list[ImageFormat] = []

    @property
    def name(self) -> str:
        return self._name

    @property
    def messages(self) -> list[StageMessage]:
        """What was submitted, without the replies."""
        return [message for message, _ in self.submitted]

    @property
    def last_reply(self) -> Reply:
        """The reply of the message submitted last."""
        return self.submitted[-1][1]

    def hello(self) -> Mapping[str, Any]:
        return {
            "type": "hello",
            "protocol": "1.0",
            "server": "avatar-orchestrator/0.0.0",
            "stage": self._name,
            "character": "astronaut",
            "emotions": {label: {"aliases": [], "max": 1.0} for label in LABELS},
        }

    def submit(self, message: StageMessage, reply: Reply) -> None:
        self.submitted.append((message, reply))
        self.answer(message, reply)

    def usual_answer(self, message: StageMessage, reply: Reply) -> None:
        """What a stage says whose face is always at rest."""
        match message:
            case EmotionEvent():
                used = message.emotion or max(message.mix, key=lambda label: message.mix[label])
                intensity = min(max(message.intensity, 0.0), 1.0)
                clamped = intensity != message.intensity
                reply(CueAccepted(message.id, used, intensity, message.mix, None, clamped))
            case Interrupt():
                reply(InterruptDone(message.id, (), 7, 0.25, 0.004))
            case Mood():
                reply(MoodOk(message.id))
            case CharacterSwitch():
                reply(CharacterSwitched(message.id, message.character, 8))
            case StateChange():
                reply(StateOk(message.id))
            case TextDelta():
                reply(TextClean(message.id, message.delta, ()))
            case GetState():
                reply(StateSnapshot(message.id, self.snapshot()))

    def snapshot(self) -> Mapping[str, Any]:
        return {"stage": self._name, "seq": 7, "weights": {"neutral": 1.0}, "cues": []}

    async def picture(self, image_format: ImageFormat) -> tuple[FrameInfo, bytes] | None:
        self.asked_formats.append(image_format)
        return self.newest

    def attach(self, sink: FrameSink) -> None:
        self.sinks.append(sink)
        if self.newest is not None:
            sink.offer(*self.newest)

    def detach(self, sink: FrameSink) -> None:
        if sink in self.sinks:
            self.sinks.remove(sink)

    def publish(self, seq: int = 0, image: bytes = JPEG) -> list[bool]:
        """Publish a frame; returns which of the sinks took it."""
        info = FrameInfo(
            seq=seq,
            pts_s=seq / 30.0,
            ts_ms=1.7e12 + seq,
            width=1,
            height=1,
            emotion={"neutral": 1.0},
            event=None,
            cached=False,
            degraded=None,
        )
        self.newest = (info, image)
        return [sink.offer(info, image) for sink in list(self.sinks)]


class FakeDaemon:
    """Implements `pipeline.ports.DaemonPort` around some stages, the first of them the default."""

    def __init__(self, *stages: FakeStage) -> None:
        self.stages = {stage.name: stage for stage in stages or (FakeStage(),)}
        self.reason: str | None = None

    @property
    def main(self) -> FakeStage:
        """The default stage."""
        return next(iter(self.stages.values()))

    def stage(self, name: str | None) -> FakeStage:
        if name is None:
            return self.main
        if name not in self.stages:
            problem = f"there is no stage {name!r}; there are {', '.join(self.stages)}"
            raise InvalidEventError(ErrorCode.UNKNOWN_STAGE, problem, field="stage")
        return self.stages[name]

    def health(self, name: str | None = None) -> Mapping[str, Any]:
        self.stage(name)
        return {
            "status": "ok",
            "renderer": "fake",
            "device": "cpu",
            "degraded": None,
            "problems": ["configuration: /etc/secret/emotions.toml: happy: expected a table"],
        }

    def not_ready_reason(self, name: str | None = None) -> str | None:
        self.stage(name)
        return self.reason

    def characters(self, name: str | None = None) -> Mapping[str, Any]:
        self.stage(name)
        return {"characters": [{"name": "astronaut"}], "current": "astronaut"}

    def expressions(self) -> Sequence[str]:
        return LABELS

"""Who is in front of a stage: a producer that keeps its answers, a viewer that keeps its frames."""

from typing import Any

from pipeline.types import FrameInfo, ImageFormat, StageReply


class Answers:
    """A `Reply` that keeps everything."""

    def __init__(self) -> None:
        self.closed = False
        self.all: list[StageReply] = []

    def __call__(self, reply: StageReply) -> None:
        self.all.append(reply)

    def kinds(self, id_: str | None = None) -> list[str]:
        """Names of their types, in order."""
        return [type(reply).__name__ for reply in self.all if id_ in (None, reply.id)]

    def one(self, kind: str, id_: str | None = None) -> Any:
        """The only one of that type."""
        found = [r for r in self.all if type(r).__name__ == kind and id_ in (None, r.id)]
        assert len(found) == 1, (kind, id_, self.all)
        return found[0]

    def code(self) -> str:
        """The error code of the newest."""
        return getattr(self.all[-1], "error").code  # noqa: B009 - of several types


class Viewer:
    """A sink that keeps the frames' headers."""

    kind = "websocket"
    format = ImageFormat.JPEG

    def __init__(self) -> None:
        self.infos: list[FrameInfo] = []

    def offer(self, info: FrameInfo, image: bytes) -> bool:
        self.infos.append(info)
        return True

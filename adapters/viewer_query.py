"""What a viewer asks for: the query of its request, and the frames that fit its `max_fps`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Final, TypeVar

from msgspec import Meta

from pipeline.errors import ErrorCode, InvalidEventError
from pipeline.types import ImageFormat

MAX_FPS: Final = 1000.0

# A frame that is so much of an interval early counts as on time: a stage may have one come nearly
# as much of its own period earlier, and that is the one that somebody waits for.
_EARLY_SHARE: Final = 0.32

MaxFps = Annotated[float, Meta(gt=0.0, le=MAX_FPS)]
Choice = TypeVar("Choice", bound=StrEnum)


class Framing(StrEnum):
    """How a frame is put into a WebSocket message."""

    AVF1 = "avf1"
    BARE = "bare"


@dataclass(frozen=True, slots=True)
class ViewerQuery:
    """The query of a viewer's request.

    Attributes:
        stage: name of the stage; the default one if it is left out.
        format: wanted encoding.
        framing: wanted framing; WebSocket only.
        max_fps: at most this many frames per second of media time; all of them if left out.
    """

    stage: str | None = None
    format: ImageFormat = ImageFormat.JPEG
    framing: Framing = Framing.AVF1
    max_fps: MaxFps | None = None

    @classmethod
    def parse(cls, query: Mapping[str, str]) -> ViewerQuery:
        """Read and check a query; names not known here are ignored.

        Raises:
            InvalidEventError: a value is not one of those allowed; names the field.
        """
        return cls(
            stage=query.get("stage"),
            format=_choice(query, "format", ImageFormat.JPEG),
            framing=_choice(query, "framing", Framing.AVF1),
            max_fps=_max_fps(query.get("max_fps")),
        )


def _choice(query: Mapping[str, str], field: str, default: Choice) -> Choice:
    value = query.get(field, default.value)
    try:
        return type(default)(value)
    except ValueError:
        allowed = ", ".join(type(default))
        raise InvalidEventError(
            ErrorCode.INVALID_MESSAGE, f"{field} must be one of {allowed}", field=field
        ) from None


def _max_fps(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0.0 < value <= MAX_FPS:
        raise InvalidEventError(
            ErrorCode.INVALID_MESSAGE,
            f"max_fps must be a number above 0 and at most {MAX_FPS:g}",
            field="max_fps",
        )
    return value


class Pace:
    """Picks frames so that on average no more than `max_fps` of them are picked."""

    def __init__(self, max_fps: float) -> None:
        self._interval_s = 1.0 / max_fps
        self._due_s: float | None = None

    def due(self, pts_s: float) -> bool:
        """Whether to pick the frame at this media time, which never decreases."""
        if self._due_s is None:
            self._due_s = pts_s - _EARLY_SHARE * self._interval_s
        if pts_s < self._due_s:
            return False
        # On the grid of the first frame; after a pause, half an interval from this one.
        self._due_s = max(self._due_s + self._interval_s, pts_s + self._interval_s / 2)
        return True

"""What HTTP clients order beside events: single pictures, characters, stages; and who takes it.

Orders are checked by the adapter as far as types and ranges go; whether names are known and places
free is for whoever takes them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from pipeline.bodies import AddedCharacterBody, StageBody, StagesBody
from pipeline.types import ImageFormat


@dataclass(frozen=True, slots=True, eq=False)
class PictureOrder:
    """Single pictures of one face, apart from what is live.

    Attributes:
        source: a picture file; None takes the character on stage.
        expressions: labels or aliases, at least one; one picture each.
        intensity: 0 to 1.
        format: of the pictures.
        stage: whose character, size and quality; None for the default one.
        field: what the client calls `expressions`, for errors.
    """

    source: bytes | None
    expressions: tuple[str, ...]
    intensity: float
    format: ImageFormat
    stage: str | None = None
    field: str = "expression"


@dataclass(frozen=True, slots=True, eq=False)
class SinglePicture:
    """One picture that was ordered.

    Attributes:
        label: canonical label of the emotion that it shows.
        data: one complete image file.
    """

    label: str
    data: bytes


@dataclass(frozen=True, slots=True, eq=False)
class CharacterOrder:
    """A character to be added.

    Attributes:
        name: what messages will call it.
        portrait: a picture file.
        title: what people call it; empty for its name.
        licence: of the portrait.
        gains: emotion label to factor.
        idle_seed: chooses blinks and glances; None takes one from the name.
    """

    name: str
    portrait: bytes
    title: str
    licence: str
    gains: Mapping[str, float]
    idle_seed: int | None


@dataclass(frozen=True, slots=True)
class StageOrder:
    """A stage to be opened; what is None is as on `main`."""

    name: str
    character: str | None = None
    fps: float | None = None
    width: int | None = None
    height: int | None = None
    jpeg_quality: int | None = None
    idle_seed: int | None = None


class PictureMaker(Protocol):
    """Draws single pictures."""

    async def draw(self, order: PictureOrder) -> list[SinglePicture]:
        """One picture for every label, each label once, in the order in which they were asked for.

        Raises:
            InvalidEventError: unknown emotion or stage, or not ready.
            PortraitError: the source cannot be used.
            RenderError: no renderer can draw it, or too much is waiting.
        """
        ...


class CharacterKeeper(Protocol):
    """Keeps the characters that come and go at run time."""

    def expect(self, name: str) -> None:
        """Check whether a character of that name could be added now, before its picture comes.

        Raises:
            InvalidEventError: as `add`.
        """
        ...

    async def add(self, order: CharacterOrder) -> AddedCharacterBody:
        """Add a character for good.

        Raises:
            InvalidEventError: a name that cannot be or is taken, too many, or gains of
                emotions that there are not.
            PortraitError: the picture cannot be used.
            StorageError: it could not be written.
        """
        ...

    async def remove(self, name: str) -> None:
        """Remove a character that was added.

        Raises:
            InvalidEventError: there is none, it was not added at run time, or it is on a stage.
            StorageError: it could not be removed.
        """
        ...

    async def thumbnail(self, name: str) -> bytes:
        """A small JPEG of a character.

        Raises:
            InvalidEventError: there is none of that name.
            PortraitError: its picture cannot be used.
            RenderError: too much is waiting.
        """
        ...


class SheetMaker(Protocol):
    """Draws contact sheets."""

    async def sheet(self, name: str) -> bytes:
        """A JPEG of everything that a character can do.

        Raises:
            InvalidEventError: there is none of that name.
            PortraitError: its picture cannot be used.
            RenderError: no renderer can draw it, or too much is waiting.
        """
        ...


class StageKeeper(Protocol):
    """Keeps the stages."""

    def stages(self) -> StagesBody:
        """The body of GET /v1/stages."""
        ...

    async def create_stage(self, order: StageOrder) -> StageBody:
        """Open a stage.

        Raises:
            InvalidEventError: a name that cannot be or is taken, too many, unknown character.
            PortraitError: the character's picture cannot be used.
            RenderError: no renderer can show it.
        """
        ...

    async def remove_stage(self, name: str) -> None:
        """Close a stage that was made at run time.

        Raises:
            InvalidEventError: there is none of that name, or it stays.
        """
        ...

"""Characters: folders or TOML files under `config/characters/`.

`config/characters/<name>/character.toml`, or `config/characters/<name>.toml`:

    title = "Eileen Collins"         # shown to people; default: the name
    portrait = "portrait.jpg"        # relative to the file
    landmarks = "landmarks.json"     # optional, relative to the file
    crop = [0, 0, 768, 768]          # optional: x, y, width, height in pixels of the portrait
    idle_seed = 7                    # optional: which blinks and glances; default: from the name
    licence = "Public domain (NASA)" # optional
    [gains]                          # optional: emotion label -> factor, 0 to 2
    happy = 0.9
    [rest]                           # optional: controls that make the portrait's face neutral
    mouthFrownLeft = 0.2             # (a photo that smiles); ARKit names, pitch, yaw, roll
"""

from __future__ import annotations

import difflib
import re
import tomllib
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct

from pipeline.errors import ConfigError, ErrorCode, InvalidEventError
from pipeline.faces import FaceDetector
from pipeline.portrait import LoadedPortrait, load_portrait
from pipeline.types import FaceControls

CHARACTER_FILE: Final = "character.toml"
NAME_PATTERN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")

Gain = Annotated[float, Meta(ge=0.0, le=2.0)]
Pixel = Annotated[float, Meta(ge=0.0, le=100_000.0)]


class CharacterFile(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What such a file holds."""

    portrait: Annotated[str, Meta(min_length=1)]
    title: str = ""
    landmarks: str = ""
    crop: tuple[Pixel, Pixel, Pixel, Pixel] | None = None
    idle_seed: Annotated[int, Meta(ge=0, le=2**32 - 1)] | None = None
    licence: str = ""
    gains: dict[str, Gain] = {}
    rest: dict[str, float] = {}


class Character(Struct, frozen=True):
    """One character, read and checked, its portrait not yet loaded.

    Attributes:
        name: what messages and settings call it.
        title: what people call it.
        gains: emotion label to factor on its controls, 1 where absent.
        rest: what makes the portrait's own face a neutral one.
        idle_seed: chooses its blinks, glances and sway.
        uploaded: it was added at run time.
    """

    name: str
    title: str
    portrait: Path
    landmarks: Path | None
    crop: tuple[float, float, float, float] | None
    gains: Mapping[str, float]
    rest: FaceControls
    idle_seed: int
    licence: str
    uploaded: bool = False

    def load(self, detectors: Sequence[FaceDetector] = ()) -> LoadedPortrait:
        """Read the portrait and find its face. Slow: belongs in a thread.

        Args:
            detectors: see `pipeline.faces.find_face`; not needed where there are landmarks.

        Raises:
            PortraitError: the picture cannot be used.
        """
        return load_portrait(
            self.portrait, landmarks=self.landmarks, crop=self.crop, detectors=detectors
        )


class CharacterBook:
    """The characters of one folder.

    Args:
        characters: by name, not empty.
    """

    def __init__(self, characters: Mapping[str, Character]) -> None:
        self._characters = dict(characters)

    @classmethod
    def load(cls, folder: Path, emotions: tuple[str, ...]) -> CharacterBook:
        """Read every character of a folder.

        Args:
            folder: `config/characters` or another.
            emotions: labels that `gains` may name.

        Raises:
            ConfigError: a file is wrong, or there is no character at all.
        """
        characters = {}
        for path in sorted([*folder.glob(f"*/{CHARACTER_FILE}"), *folder.glob("*.toml")]):
            character = _read(path, emotions)
            if character.name in characters:
                raise ConfigError(str(path), f"there are two characters named {character.name!r}")
            characters[character.name] = character
        if not characters:
            raise ConfigError(str(folder), f"no <name>/{CHARACTER_FILE} and no <name>.toml in it")
        return cls(characters)

    def __iter__(self) -> Iterator[Character]:
        return iter(self._characters.values())

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._characters)

    def with_one(self, character: Character) -> CharacterBook:
        """These and another."""
        return CharacterBook({**self._characters, character.name: character})

    def with_all(self, characters: Mapping[str, Character]) -> CharacterBook:
        """These and others; of two with the same name, these."""
        return CharacterBook({**self._characters, **dict(characters), **self._characters})

    def without(self, name: str) -> CharacterBook:
        """These but one."""
        return CharacterBook({k: each for k, each in self._characters.items() if k != name})

    def get(self, name: str, event_id: str | None = None) -> Character:
        """The character of that name.

        Raises:
            InvalidEventError: code `unknown_character`, with near names.
        """
        character = self._characters.get(name)
        if character is None:
            near = difflib.get_close_matches(name, self._characters, n=3, cutoff=0.3)
            raise InvalidEventError(
                ErrorCode.UNKNOWN_CHARACTER,
                f"there is no character {name[:64]!r}; there are {', '.join(self._characters)}",
                field="character",
                suggestions=near or list(self._characters)[:3],
                event_id=event_id,
            )
        return character


def _read(path: Path, emotions: tuple[str, ...]) -> Character:
    name = path.parent.name if path.name == CHARACTER_FILE else path.stem
    if not NAME_PATTERN.fullmatch(name):
        raise ConfigError(
            str(path), "a character's name has letters, digits, '-' and '_', at most 64"
        )
    try:
        raw = msgspec.convert(tomllib.loads(path.read_text("utf-8")), CharacterFile)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(str(path), f"cannot be read: {error}") from error
    except msgspec.ValidationError as error:
        raise ConfigError(str(path), str(error).replace("$.", "").replace("`", "")) from error
    return character_of(raw, path, name, emotions)


def character_of(
    raw: CharacterFile, path: Path, name: str, emotions: tuple[str, ...], *, uploaded: bool = False
) -> Character:
    """A character from what its file holds.

    Args:
        path: of the file; the names of others in it are relative to it.
        emotions: labels that `gains` may name.

    Raises:
        ConfigError: something in it is wrong.
    """
    for label in raw.gains:
        if label not in emotions:
            raise ConfigError(f"{path}: gains.{label}", f"expected one of {', '.join(emotions)}")
    try:
        rest = FaceControls.of(**raw.rest)
    except (KeyError, ValueError) as error:
        raise ConfigError(f"{path}: rest", f"expected ARKit names with 0..1: {error}") from error
    portrait = path.parent / raw.portrait
    landmarks = path.parent / raw.landmarks if raw.landmarks else None
    for key, file in (("portrait", portrait), ("landmarks", landmarks)):
        if file is not None and not file.is_file():
            raise ConfigError(f"{path}: {key}", f"there is no file {file}")
    seed = raw.idle_seed if raw.idle_seed is not None else zlib.crc32(name.encode())
    return Character(
        name=name,
        title=raw.title or name,
        portrait=portrait,
        landmarks=landmarks,
        crop=raw.crop,
        gains=raw.gains,
        rest=rest,
        idle_seed=seed,
        licence=raw.licence,
        uploaded=uploaded,
    )

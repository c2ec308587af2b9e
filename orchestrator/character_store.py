"""Characters that were added at run time, on disk: `<state directory>/characters/<name>/`.

    character.json    as `character.toml` of the configured ones, in JSON
    portrait.png      the crop that is shown, decoded and written anew: nothing of the file that
                      was sent is kept, neither what was hidden in it nor where it was taken
    landmarks.json    the face that was found when it was accepted

A folder appears complete under its name, or not at all.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec
import structlog

from orchestrator.characters import Character, CharacterFile, character_of
from pipeline.encoding import encode
from pipeline.errors import ConfigError, ErrorCode, InvalidEventError, StorageError
from pipeline.landmarks import document_of
from pipeline.orders import CharacterOrder
from pipeline.portrait import LoadedPortrait
from pipeline.types import ImageFormat

log = structlog.get_logger()

CHARACTER_FILE: Final = "character.json"
PORTRAIT_FILE: Final = "portrait.png"
LANDMARKS_FILE: Final = "landmarks.json"
_MAX_FILE_BYTES: Final = 65_536
# Neither can be a character's name: what a crash left behind is not taken for one.
_UNFINISHED: Final = ".new-"
_LEAVING: Final = ".old-"


class CharacterStore:
    """Reads and writes that folder. Slow: all methods belong in one thread.

    Args:
        folder: made when the first character is added.
        max_bytes: what all characters may take together.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder = folder
        self._max_bytes = max_bytes

    def clean_up(self) -> None:
        """Remove what a crash has left behind; before anything else is done here."""
        for folder in (*self._leftovers(_UNFINISHED), *self._leftovers(_LEAVING)):
            shutil.rmtree(folder, ignore_errors=True)

    def load(self, emotions: tuple[str, ...]) -> dict[str, Character]:
        """Every character that can be used; the others are logged and left alone.

        Args:
            emotions: labels that `gains` may name.
        """
        characters = {}
        for path in sorted(self._folder.glob(f"*/{CHARACTER_FILE}")):
            try:
                character = _read(path, emotions)
            except ConfigError as error:
                log.error("uploaded_character_not_read", file=str(path), error=error.problem)
            else:
                characters[character.name] = character
        return characters

    def add(
        self, order: CharacterOrder, loaded: LoadedPortrait, emotions: tuple[str, ...]
    ) -> Character:
        """Write a character that has been checked.

        Raises:
            InvalidEventError: all of them would take too much room.
            PortraitError: what was written cannot be read again.
            StorageError: it could not be written.
        """
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            unfinished = Path(tempfile.mkdtemp(dir=self._folder, prefix=_UNFINISHED))
        except OSError as error:
            raise _not_kept(order.name, error) from error
        try:
            self._write(unfinished, order, loaded)
            self._check_room()
            # As after a restart, or not at all.
            _read(unfinished / CHARACTER_FILE, emotions, order.name).load()
            final = self._folder / order.name
            if final.exists():
                raise StorageError(
                    f"a folder {order.name} that is no character is in the way in the state "
                    "directory; remove it"
                )
            unfinished.rename(final)
            _flush(self._folder)
            return _read(final / CHARACTER_FILE, emotions)
        except OSError as error:
            raise _not_kept(order.name, error) from error
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)

    def remove(self, name: str) -> None:
        """Take a character away; a crash leaves all of it or nothing.

        Raises:
            StorageError: it could not be removed.
        """
        try:
            leaving = Path(tempfile.mkdtemp(dir=self._folder, prefix=_LEAVING))
            (self._folder / name).rename(leaving / name)
            _flush(self._folder)
        except OSError as error:
            raise StorageError(f"{name} could not be removed: {error.strerror}") from error
        shutil.rmtree(leaving, ignore_errors=True)

    def _write(self, folder: Path, order: CharacterOrder, loaded: LoadedPortrait) -> None:
        portrait = loaded.portrait
        height, width = portrait.image.shape[:2]
        about = CharacterFile(
            portrait=PORTRAIT_FILE,
            title=order.title,
            landmarks=LANDMARKS_FILE,
            crop=(0.0, 0.0, float(width), float(height)),
            idle_seed=order.idle_seed,
            licence=order.licence,
            gains=dict(order.gains),
        )
        _write_file(folder / PORTRAIT_FILE, encode(portrait.image, ImageFormat.PNG, 100))
        landmarks = msgspec.json.encode(document_of(portrait.landmarks))
        _write_file(folder / LANDMARKS_FILE, landmarks)
        _write_file(folder / CHARACTER_FILE, msgspec.json.encode(about))
        _flush(folder)

    def _check_room(self) -> None:
        taken = sum(path.stat().st_size for path in self._folder.rglob("*") if path.is_file())
        if taken > self._max_bytes:
            raise InvalidEventError(
                ErrorCode.CONFLICT,
                f"added characters may take {self._max_bytes} bytes "
                "(characters.max_uploaded_bytes); delete one first",
            )

    def _leftovers(self, prefix: str) -> Iterator[Path]:
        return self._folder.glob(f"{prefix}*")


def _read(path: Path, emotions: tuple[str, ...], name: str | None = None) -> Character:
    try:
        if path.stat().st_size > _MAX_FILE_BYTES:
            raise ConfigError(str(path), f"larger than {_MAX_FILE_BYTES} bytes")
        raw = msgspec.json.decode(path.read_bytes(), type=CharacterFile)
    except OSError as error:
        raise ConfigError(str(path), f"cannot be read: {error.strerror}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigError(str(path), str(error)) from error
    return character_of(raw, path, name or path.parent.name, emotions, uploaded=True)


def _write_file(path: Path, data: bytes) -> None:
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _flush(folder: Path) -> None:
    """Have the names in a folder on disk, too."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _not_kept(name: str, error: OSError) -> StorageError:
    return StorageError(f"{name} could not be written to the state directory: {error.strerror}")

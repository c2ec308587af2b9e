"""Where the frames of a replay go: a video file, a folder of images, or nowhere."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, Protocol

import msgspec

from orchestrator.video import SUFFIXES, VideoFile
from pipeline.encoding import encode
from pipeline.errors import ConfigError, StorageError
from pipeline.types import Image, ImageFormat

if TYPE_CHECKING:
    from orchestrator.replay import Shot

INDEX: Final = "frames.jsonl"
_LOSSLESS: Final = 100  # PNG ignores the quality


class Output(Protocol):
    """Takes frames in order."""

    @property
    def name(self) -> str: ...

    def add(self, shot: Shot, image: Image) -> None:
        """Take the next frame.

        Raises:
            StorageError: it cannot be written.
        """
        ...

    def finish(self) -> None:
        """There are no more frames.

        Raises:
            StorageError: the end cannot be written.
        """
        ...

    def give_up(self) -> None:
        """Leave nothing half done. Idempotent, harmless after `finish`."""
        ...


@contextlib.contextmanager
def open_output(path: Path | None, fps: float, size_px: tuple[int, int]) -> Iterator[Output]:
    """The output for a path: by its suffix a video, else a folder; None for digests alone.

    Raises:
        ConfigError: there can be no such output.
    """
    output: Output
    if path is None:
        output = Nowhere()
    elif path.suffix.lower() in SUFFIXES:
        output = Video(path, fps, size_px)
    else:
        output = Folder(path)
    try:
        yield output
    finally:
        output.give_up()


class Nowhere:
    """Takes frames for their digests alone."""

    name: Final = "replayed"

    def add(self, shot: Shot, image: Image) -> None:
        """Nothing is kept."""

    def finish(self) -> None:
        """Nothing to do."""

    def give_up(self) -> None:
        """Nothing to do."""


class Video:
    """A video file."""

    def __init__(self, path: Path, fps: float, size_px: tuple[int, int]) -> None:
        self._file = VideoFile(path, fps, size_px)
        self.name = f"{path} ({self._file.codec})"

    def add(self, shot: Shot, image: Image) -> None:
        self._file.write(image)

    def finish(self) -> None:
        self._file.finish()

    def give_up(self) -> None:
        self._file.give_up()


class Folder:
    """PNG images, numbered from 0, and `frames.jsonl` with a line for each.

    Args:
        path: of the folder; made if it is not there, and empty if it is.

    Raises:
        ConfigError: it cannot be made, or something is in it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._count = 0
        self.name = str(path)
        try:
            path.mkdir(parents=True, exist_ok=True)
            if any(path.iterdir()):
                raise ConfigError("--out", f"{path} is not empty")
            self._index: BinaryIO = (path / INDEX).open("wb")
        except OSError as error:
            suffixes = " or ".join(SUFFIXES)
            problem = f"{path}: expected a folder or a {suffixes} file: {error.strerror or error}"
            raise ConfigError("--out", problem) from error

    def add(self, shot: Shot, image: Image) -> None:
        name = f"{self._count:06}.png"
        controls = shot.face.as_mapping()
        line = {
            "file": name,
            "at_s": round(shot.at_s, 6),
            "emotion": {label: round(w, 6) for label, w in shot.moment.weights.items()},
            "event": shot.moment.event,
            "controls": {label: round(value, 4) for label, value in controls.items()},
            "sha256": hashlib.sha256(image.tobytes()).hexdigest(),
        }
        try:
            (self._path / name).write_bytes(encode(image, ImageFormat.PNG, _LOSSLESS))
            self._index.write(msgspec.json.encode(line) + b"\n")
        except OSError as error:
            problem = f"{self._path / name} could not be written: {error.strerror or error}"
            raise StorageError(problem) from error
        self._count += 1

    def finish(self) -> None:
        try:
            self._index.close()
        except OSError as error:
            raise StorageError(f"{self._path / INDEX} could not be written: {error}") from error

    def give_up(self) -> None:
        with contextlib.suppress(OSError):
            self._index.close()

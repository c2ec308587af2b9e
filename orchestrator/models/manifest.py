"""`models.json` beside the weights: what was fetched, and what was answered about licences."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta, Struct

from pipeline.errors import ConfigError

FILE_NAME: Final = "models.json"
MAX_BYTES: Final = 2**20


class Fetched(Struct, frozen=True, forbid_unknown_fields=True):
    """One file as it was when it had been verified.

    Attributes:
        size_bytes, sha256: the hub's figures, which the file agreed with.
        commit: of the repository; empty for a file from a cache that does not tell.
    """

    size_bytes: Annotated[int, Meta(ge=0)]
    sha256: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
    commit: str = ""


class Manifest(Struct, frozen=True, forbid_unknown_fields=True):
    """What is remembered about a weights folder.

    Attributes:
        licences: name of a set to whether its licence was accepted.
        files: path below the folder to what was fetched.
    """

    format: Literal[1] = 1
    repository: str = ""
    licences: dict[str, bool] = {}
    files: dict[str, Fetched] = {}

    def answered(self, name: str, accepted: bool) -> Manifest:
        return msgspec.structs.replace(self, licences={**self.licences, name: accepted})

    def with_file(self, repository: str, path: str, fetched: Fetched) -> Manifest:
        files = {**self.files, path: fetched}
        return msgspec.structs.replace(self, repository=repository, files=files)


def read_manifest(folder: Path) -> Manifest:
    """The folder's manifest; an empty one where there is none.

    Raises:
        ConfigError: it cannot be read or is something else.
    """
    file = folder / FILE_NAME
    try:
        if file.stat().st_size > MAX_BYTES:
            raise ConfigError(str(file), f"is larger than {MAX_BYTES} bytes: no manifest of models")
        return msgspec.json.decode(file.read_bytes(), type=Manifest)
    except (FileNotFoundError, NotADirectoryError):
        return Manifest()
    except OSError as error:
        raise ConfigError(str(file), f"cannot be read: {error.strerror or error}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        problem = f"is no manifest of models ({error}); without it, files are verified anew"
        raise ConfigError(str(file), problem) from error


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Replace the folder's manifest atomically.

    Raises:
        OSError: the folder cannot be written.
    """
    body = msgspec.json.format(msgspec.json.encode(manifest), indent=1) + b"\n"
    descriptor, temporary = tempfile.mkstemp(dir=folder, prefix=".models-")
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), 0o644)  # the daemon's user reads it too
            file.write(body)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(folder / FILE_NAME)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise

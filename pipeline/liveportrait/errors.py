"""What can be wrong with a weights folder, and with what the networks are given."""

from __future__ import annotations

from pathlib import Path

from pipeline.errors import AvatarError


class CheckpointError(AvatarError):
    """A weights file cannot be used.

    Args:
        file: the file, or where it was expected.
        key: the tensor or entry to blame; None where it is the whole file.
        expected, found: what should be there and what is.
    """

    def __init__(self, file: Path, key: str | None, expected: str, found: str) -> None:
        super().__init__(file, key, expected, found)
        self.file = file
        self.key = key
        self.expected = expected
        self.found = found

    def __str__(self) -> str:
        where = f"{self.file}: {self.key}" if self.key else str(self.file)
        return f"{where}: expected {self.expected}, found {self.found}"


class ArgumentError(AvatarError, ValueError):
    """A tensor handed to the networks is not one they take; nothing was calculated.

    Args:
        name: the argument.
        expected, found: what it should be and what it is.
    """

    def __init__(self, name: str, expected: str, found: str) -> None:
        super().__init__(name, expected, found)
        self.name = name
        self.expected = expected
        self.found = found

    def __str__(self) -> str:
        return f"{self.name}: expected {self.expected}, found {self.found}"

"""Which model files there are, of which licence, and where they come from and go to."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from orchestrator.settings import Settings

MIB: Final = 2**20
# Published figures are rounded, some up and some down, to two or three digits.
ABOUT: Final = 0.05


class ModelSet(Struct, frozen=True, forbid_unknown_fields=True):
    """Files under one licence.

    Attributes:
        title: what it is called.
        licence: its name; `terms` is what it means in one sentence, `url` where it is written.
    """

    title: str
    licence: str
    terms: str
    url: str

    @property
    def licence_text(self) -> str:
        return f"Licence: {self.licence} ({self.terms})."


class ModelFile(Struct, frozen=True, forbid_unknown_fields=True):
    """One file.

    Attributes:
        path: below the weights folder, and in the repository.
        set: key of its `ModelSet`.
        what: what it is for.
        needed: LivePortrait does not run without it.
        size_bytes, about_mib: the published size, exact or rounded; None where neither is known.
    """

    path: str
    set: str
    what: str
    needed: bool
    size_bytes: int | None = None
    about_mib: float | None = None

    def size_problem(self, size_bytes: int) -> str | None:
        """Why a file of this size cannot be the published one; None where it can."""
        if self.size_bytes is not None and size_bytes != self.size_bytes:
            return f"{size_bytes} bytes where {self.size_bytes} are published"
        if self.about_mib is not None and abs(size_bytes / MIB / self.about_mib - 1) > ABOUT:
            return f"{size_bytes} bytes where about {self.about_mib:g} MiB are published"
        return None

    @property
    def size_text(self) -> str:
        """`16.1 MiB`, or `?` where nothing is published."""
        if self.size_bytes is not None:
            return mib(self.size_bytes)
        return f"{self.about_mib:.1f} MiB" if self.about_mib is not None else "?"


class Catalogue(Struct, frozen=True, forbid_unknown_fields=True):
    """Every file, the sets they belong to, and the repository that holds them."""

    repository: str
    revision: str
    sets: dict[str, ModelSet]
    files: tuple[ModelFile, ...]

    @classmethod
    def parse(cls, text: str) -> Catalogue:
        return msgspec.toml.decode(text, type=cls)

    def of(self, name: str) -> tuple[ModelFile, ...]:
        """The files of one set."""
        return tuple(file for file in self.files if file.set == name)


@cache
def bundled_catalogue() -> Catalogue:
    """The one that ships with the product."""
    return Catalogue.parse(resources.files(__package__).joinpath("catalogue.toml").read_text())


def default_folder(settings: Settings, environ: Mapping[str, str] | None = None) -> Path:
    """Where weights are kept: the setting, else the XDG data home."""
    environ = os.environ if environ is None else environ
    if settings.liveportrait.weights_dir:
        return Path(settings.liveportrait.weights_dir).expanduser()
    home = environ.get("XDG_DATA_HOME")
    data = Path(home) if home else Path.home() / ".local" / "share"
    return data / "avatar-orchestrator" / "models"


def mib(size_bytes: int) -> str:
    """A size for people: `16.1 MiB`, and in bytes where that would say nothing."""
    return f"{size_bytes / MIB:.1f} MiB" if size_bytes >= MIB // 10 else f"{size_bytes} bytes"

"""Everything of a catalogue that a folder lacks, after the question about the licence."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TextIO

from orchestrator.models.catalogue import Catalogue, ModelFile, mib
from orchestrator.models.hub import Hub, HubError, HubFile, WrongFileError, sha256_of
from orchestrator.models.manifest import Fetched, Manifest, read_manifest, write_manifest
from pipeline.errors import AvatarError, ConfigError

MAX_ANSWERS: Final = 3
LOCK_NAME: Final = ".models.lock"


class ConsentNeededError(AvatarError):
    """A licence has not been accepted, and there is nobody to ask."""


@dataclass(frozen=True, slots=True)
class Terminal:
    """Where words go and answers come from."""

    out: TextIO
    answers: TextIO

    def say(self, text: str = "") -> None:
        self.out.write(text + "\n")
        self.out.flush()

    def yes_or_no(self, question: str) -> bool:
        """
        Raises:
            ConsentNeededError: no answer that is one, or no terminal to give it on.
        """
        if not self.answers.isatty():
            raise ConsentNeededError("there is no terminal to ask on: --yes accepts the licences")
        for _ in range(MAX_ANSWERS):
            self.out.write(f"{question} [y/n] ")
            self.out.flush()
            answer = self.answers.readline()
            if answer.strip().lower() in ("y", "yes"):
                return True
            if answer.strip().lower() in ("n", "no"):
                return False
            if not answer:
                break
        self.say()
        raise ConsentNeededError("no answer: nothing has been fetched")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a download came to.

    Attributes:
        accepted: names of the sets whose licence is accepted.
        failed: one sentence per file that could not be had.
    """

    accepted: tuple[str, ...]
    failed: tuple[str, ...] = ()


@dataclass
class Download:
    """One run of `models download`.

    Args:
        catalogue: what there is.
        folder: where it goes; made when it is missing.
        hub: where it comes from.
        terminal: told of each step, and asked.
        only: one set's name; None takes every set.
        yes: every licence is accepted unasked.
    """

    catalogue: Catalogue
    folder: Path
    hub: Hub
    terminal: Terminal
    only: str | None = None
    yes: bool = False
    _failed: list[str] = field(default_factory=list)

    def run(self) -> Outcome:
        """Fetch, verify and place each file; a wrong one does not keep the others from coming.

        Raises:
            ConsentNeededError: a licence is open, and there is no terminal to ask on.
            HubError: the hub cannot be reached or refuses.
            ConfigError: the folder cannot be written, has no room, or is in use by another run.
        """
        manifest = read_manifest(self.folder)
        asked = self._ask(manifest)
        accepted = tuple(name for name in self._names() if asked.licences.get(name))
        if not accepted and asked == manifest:
            return Outcome(())
        with self._writable():
            write_manifest(self.folder, asked)
            self._fetch([file for name in accepted for file in self.catalogue.of(name)])
        return Outcome(accepted, tuple(self._failed))

    def _names(self) -> Sequence[str]:
        return [self.only] if self.only else list(self.catalogue.sets)

    def _ask(self, manifest: Manifest) -> Manifest:
        """The manifest with an answer for each licence; remembered ones are not asked again."""
        say = self.terminal.say
        for name in self._names():
            each = self.catalogue.sets[name]
            files = self.catalogue.of(name)
            say(f"{each.title}, {counted(len(files))}. {each.licence_text}")
            say(f"  {each.url}")
            remembered = manifest.licences.get(name)
            if self.yes:
                manifest = manifest.answered(name, True)
            elif remembered:
                say("  accepted before")
            elif remembered is False and self.only is None:
                say(f"  declined before; --only {name} asks again")
            else:
                accepted = self.terminal.yes_or_no("  Fetch them under this licence?")
                manifest = manifest.answered(name, accepted)
        return manifest

    @contextlib.contextmanager
    def _writable(self) -> Iterator[None]:
        """The folder, made and held for this run alone."""
        with contextlib.ExitStack() as stack:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                lock = stack.enter_context((self.folder / LOCK_NAME).open("w"))
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                yield
            except BlockingIOError as error:
                problem = "another download is writing to this folder"
                raise ConfigError(str(self.folder), problem) from error
            except OSError as error:
                problem = f"cannot be written: {error.strerror or error}"
                raise ConfigError(str(error.filename or self.folder), problem) from error

    def _fetch(self, files: Sequence[ModelFile]) -> None:
        wanted = [each for file in files if (each := self._described(file)) is not None]
        missing = [file for file in wanted if not self._have(file)]
        self._check_room(missing)
        if missing:
            size = mib(sum(file.size_bytes for file in missing))
            source = "the local cache of " if self.hub.offline else ""
            self.terminal.say(
                f"{counted(len(missing))}, {size}, from {source}{self.hub.address} "
                f"at {missing[0].commit[:12]} to {self.folder}"
            )
        for file in missing:
            try:
                self._place(file)
            except WrongFileError as error:
                self._fail(str(error))

    def _described(self, file: ModelFile) -> HubFile | None:
        try:
            found = self.hub.describe(file.path)
        except HubError as error:
            if not self.hub.offline:
                raise
            if (self.folder / file.path).is_file():
                self.terminal.say(f"kept   {file.path}: not in the local cache, not compared")
            else:
                self._fail(f"{error}; without --offline and HF_HUB_OFFLINE it is fetched")
            return None
        problem = file.size_problem(found.size_bytes)
        if problem is not None:
            self._fail(f"{file.path}: {self.hub.address} has {problem}; it has not been fetched")
            return None
        return found

    def _have(self, file: HubFile) -> bool:
        """Whether the right file is in its place already; a wrong one will be replaced."""
        final = self.folder / file.path
        if not final.is_file():
            return False
        if final.stat().st_size != file.size_bytes or sha256_of(final) != file.sha256:
            self.terminal.say(f"other  {file.path}: not the hub's file, will be replaced")
            return False
        self._remember(file)
        self.terminal.say(f"have   {file.path}")
        return True

    def _check_room(self, missing: Sequence[HubFile]) -> None:
        needed = sum(file.size_bytes - self._part_bytes(file) for file in missing)
        free = shutil.disk_usage(self.folder).free
        if needed > free:
            problem = f"{mib(needed)} are needed and {mib(free)} free; --to chooses another folder"
            raise ConfigError(str(self.folder), problem)

    def _part_bytes(self, file: HubFile) -> int:
        part = part_of(self.folder, file)
        return min(part.stat().st_size, file.size_bytes) if part.is_file() else 0

    def _place(self, file: HubFile) -> None:
        final, part = self.folder / file.path, part_of(self.folder, file)
        final.parent.mkdir(parents=True, exist_ok=True)
        for stale in final.parent.glob(f".{final.name}.*.part"):
            if stale != part:
                stale.unlink()
        begun = self._part_bytes(file)
        if begun:
            self.terminal.say(f"again  {file.path}: goes on from {mib(begun)}")
        self.hub.fetch(file, part)
        with part.open("rb") as written:
            os.fsync(written.fileno())
        part.replace(final)
        self._remember(file)
        self.terminal.say(f"new    {file.path}: {mib(file.size_bytes)}, SHA-256 verified")

    def _remember(self, file: HubFile) -> None:
        fetched = Fetched(file.size_bytes, file.sha256, file.commit)
        manifest = read_manifest(self.folder)
        if manifest.files.get(file.path) != fetched:
            write_manifest(self.folder, manifest.with_file(self.hub.repository, file.path, fetched))

    def _fail(self, problem: str) -> None:
        self._failed.append(problem)
        self.terminal.say(f"FAIL   {problem}")


def part_of(folder: Path, file: HubFile) -> Path:
    """Where a file grows; named after its hash, so that two versions never mix."""
    final = folder / file.path
    return final.with_name(f".{final.name}.{file.sha256[:16]}.part")


def parts_of(folder: Path, path: str) -> list[Path]:
    """What interrupted downloads have left of a file."""
    final = folder / path
    found = sorted(final.parent.glob(f".{final.name}.*.part"))
    return [part for part in found if part.stat().st_size]


def counted(files: int) -> str:
    return "1 file" if files == 1 else f"{files} files"

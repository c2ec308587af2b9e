"""Files of a repository on the Hugging Face hub, or in its local cache, each one verified.

`hf_hub_download` throws away what an interrupted download has left, so half a gigabyte over a bad
line would start afresh each time. Its building blocks resume, and they speak plain HTTP, which
mirrors and proxies understand as well.

HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE, HF_HOME and the other variables are huggingface_hub's own; it
reads them when it is imported, which happens when a `Hub` is made and not before.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, ClassVar, Final

from orchestrator import __version__
from orchestrator.models.catalogue import mib
from pipeline.errors import AvatarError, ConfigError

PRODUCT: Final = "avatar-orchestrator"
RESETS: Final = 5
RESET_WAIT_S: Final = 1.0
_COMMIT: Final = re.compile(r"[0-9a-f]{40}")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")


class HubError(AvatarError):
    """The hub did not give what was asked; nothing under a final name has changed.

    Args:
        where: the file or address that was asked for.
        problem: what it answered, and what would help.
    """

    retryable: ClassVar[bool] = True

    def __init__(self, where: str, problem: str) -> None:
        super().__init__(where, problem)
        self.where = where
        self.problem = problem

    def __str__(self) -> str:
        return f"{self.where}: {self.problem}"


class WrongFileError(HubError):
    """What came, or would come, is not the file that it should be; it has not been kept."""


@dataclass(frozen=True, slots=True)
class HubFile:
    """One file as the hub, or its cache, describes it.

    Attributes:
        path: in the repository.
        size_bytes, sha256: what it must agree with.
        commit: of the repository.
        cached: a copy in the local cache, whose hash need not be right; None without one.
    """

    path: str
    size_bytes: int
    sha256: str
    commit: str
    cached: Path | None


class Hub:
    """One repository.

    Args:
        repository: such as `KwaiVGI/LivePortrait`.
        revision: branch, tag or commit.
        offline: answer from the local cache alone; HF_HUB_OFFLINE asks for the same.
        endpoint: None takes HF_ENDPOINT or the public hub.
        cache_dir: None takes huggingface_hub's own.

    Raises:
        ConfigError: huggingface_hub is not installed.
    """

    def __init__(
        self,
        repository: str,
        revision: str,
        *,
        offline: bool = False,
        endpoint: str | None = None,
        cache_dir: Path | None = None,
    ) -> None:
        try:
            from huggingface_hub import constants
        except ImportError as error:
            problem = "is not installed: pip install '.[models]' in the checkout"
            raise ConfigError("huggingface_hub", problem) from error
        self.offline = offline or constants.HF_HUB_OFFLINE
        self.repository = repository
        self.address = f"{(endpoint or constants.ENDPOINT).rstrip('/')}/{repository}"
        self._endpoint = endpoint
        self._cache_dir = cache_dir
        # The first file's commit is everyone's: a push in between must not mix two versions.
        self._revision = revision

    def describe(self, path: str) -> HubFile:
        """What a file must look like. Online that is one HEAD request.

        Raises:
            HubError: it is not there, or the hub does not say.
        """
        return self._described_by_cache(path) if self.offline else self._described_by_hub(path)

    def cached(self, path: str) -> Path | None:
        """A file's copy in the local cache, unverified."""
        from huggingface_hub import try_to_load_from_cache

        found = try_to_load_from_cache(
            self.repository, path, cache_dir=self._cache_dir, revision=self._revision
        )
        return Path(found) if isinstance(found, str) else None

    def fetch(self, file: HubFile, part: Path) -> None:
        """Bring a file to `part`, going on from what is there already, and verify it.

        An interrupted fetch leaves the part, a wrong one does not.

        Raises:
            HubError: the hub failed; the next try goes on from the part.
            WrongFileError: size or hash is not the one described.
            OSError: the part cannot be written.
        """
        if file.cached is not None and (self.offline or sha256_of(file.cached) == file.sha256):
            shutil.copyfile(file.cached, part)
        else:
            self._download(file, part)
        problem = _difference(part, file)
        if problem is not None:
            part.unlink()
            raise WrongFileError(file.path, f"{problem}; what came has been deleted")

    def _described_by_cache(self, path: str) -> HubFile:
        cached = self.cached(path)
        if cached is None:
            raise HubError(path, f"is not in the local cache of {self.repository}")
        # The cache keeps a file under its hash and links to it; where it cannot link, it copies.
        name = cached.resolve().name
        sha256 = name if _SHA256.fullmatch(name) else sha256_of(cached)
        commit = cached.parents[len(Path(path).parts) - 1].name
        return HubFile(path, cached.stat().st_size, sha256, commit, cached)

    def _described_by_hub(self, path: str) -> HubFile:
        from huggingface_hub import get_hf_file_metadata, hf_hub_url

        url = hf_hub_url(self.repository, path, revision=self._revision, endpoint=self._endpoint)
        with self._translated(path):
            found = get_hf_file_metadata(
                url,
                endpoint=self._endpoint,
                library_name=PRODUCT,
                library_version=__version__,
                retry_on_errors=True,
            )
        commit = found.commit_hash or ""
        if not _COMMIT.fullmatch(commit) or not found.size or not found.etag:
            problem = f"{self.address} does not answer as a Hugging Face hub does"
            raise HubError(path, f"{problem}; is HF_ENDPOINT right, or a proxy in between?")
        if not _SHA256.fullmatch(found.etag):
            raise HubError(path, f"{self.address} gives no SHA-256 for it ({found.etag[:80]!r})")
        self._revision = commit
        return HubFile(path, found.size, found.etag, commit, self.cached(path))

    def _download(self, file: HubFile, part: Path) -> None:
        """A reset connection is no reason to stop: http_get takes up all other cuts by itself."""
        import httpx2

        for attempt in range(RESETS):
            try:
                with self._translated(file.path, httpx2.ReadError):
                    self._get(file, part)
                return
            except httpx2.ReadError as error:
                if attempt + 1 == RESETS:
                    raise HubError(file.path, f"the connection broke {RESETS} times") from error
                time.sleep(RESET_WAIT_S)

    def _get(self, file: HubFile, part: Path) -> None:
        from huggingface_hub import hf_hub_url
        from huggingface_hub.errors import HfHubHTTPError
        from huggingface_hub.file_download import http_get

        # Documented there, but exported in a way that mypy does not follow.
        from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

        url = hf_hub_url(self.repository, file.path, revision=file.commit, endpoint=self._endpoint)
        headers = build_hf_headers(library_name=PRODUCT, library_version=__version__)
        headers["Accept-Encoding"] = "identity"  # a range of compressed bytes would be of no use
        if part.exists() and part.stat().st_size > file.size_bytes:
            part.unlink()
        with _BoundedFile(part, file) as kept:
            try:
                http_get(
                    url,
                    kept,
                    resume_size=kept.seek(0, os.SEEK_END),
                    headers=headers,
                    expected_size=file.size_bytes,
                    displayed_filename=Path(file.path).name,
                )
            except HfHubHTTPError as error:
                status = error.response.status_code
                if status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE or not kept.tell():
                    part.unlink()
                raise
            except OSError as error:
                # http_get's word for an answer that ended early without saying so.
                if "Consistency check failed" not in str(error):
                    raise
                came = mib(kept.seek(0, os.SEEK_END))
                part.unlink()
                problem = f"{came} came where {mib(file.size_bytes)} are announced"
                raise WrongFileError(file.path, f"{problem}; they have been deleted") from error

    @contextlib.contextmanager
    def _translated(self, path: str, *passed: type[Exception]) -> Iterator[None]:
        import httpx2
        from huggingface_hub.errors import HfHubHTTPError

        try:
            yield
        except passed:
            raise
        except HfHubHTTPError as error:
            raise HubError(path, self._refusal(error.response.status_code)) from error
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            problem = f"{self.address} cannot be reached ({str(error) or type(error).__name__})"
            raise HubError(path, problem) from error

    def _refusal(self, status: int) -> str:
        match status:
            case HTTPStatus.UNAUTHORIZED | HTTPStatus.FORBIDDEN:
                problem = "refuses it, set HF_TOKEN to a token that may read it"
            case HTTPStatus.NOT_FOUND:
                problem = "has no such file"
            case HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                problem = "does not go on from the part that was here, it has been deleted"
            case HTTPStatus.TOO_MANY_REQUESTS:
                problem = "has had too many requests, wait some minutes"
            case _:
                problem = "fails, try again later"
        return f"{self.address} {problem} (HTTP {status})"


class _BoundedFile(io.BufferedRandom):
    """Takes no more than the file is long, so that an endless answer cannot fill the disk."""

    def __init__(self, path: Path, file: HubFile) -> None:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        super().__init__(io.FileIO(descriptor, "r+"))
        self._path, self._file = path, file

    def write(self, data: Any, /) -> int:
        if self.tell() + len(data) > self._file.size_bytes:
            self._path.unlink()
            problem = f"more came than the {mib(self._file.size_bytes)} announced"
            raise WrongFileError(self._file.path, f"{problem}; it has been deleted")
        return super().write(data)


def sha256_of(path: Path) -> str:
    """The hash of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _difference(part: Path, file: HubFile) -> str | None:
    size_bytes = part.stat().st_size
    if size_bytes != file.size_bytes:
        return f"{size_bytes} bytes where {file.size_bytes} are announced"
    found = sha256_of(part)
    if found != file.sha256:
        return f"SHA-256 is {found[:16]}... where {file.sha256[:16]}... is announced"
    return None

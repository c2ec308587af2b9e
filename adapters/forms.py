"""Bodies of requests from people and tools nobody vouches for: forms with files, and JSON.

Everything is counted while it arrives: bytes of files, bytes of text, fields, and time. So a body
never takes more memory than it may, whatever it claims about itself.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final, cast
from urllib.parse import parse_qsl

from aiohttp import (
    BadContentDispositionHeader,
    BadContentDispositionParam,
    BodyPartReader,
    MultipartReader,
    StreamReader,
    hdrs,
    web,
)
from aiohttp.http_exceptions import HttpProcessingError, LineTooLong

from adapters.access import HttpLimits
from pipeline.errors import AvatarError, ErrorCode, InvalidEventError

MULTIPART: Final = "multipart/form-data"
URLENCODED: Final = "application/x-www-form-urlencoded"

_LEAST_BYTES_PER_S: Final = 16_384
_MAX_FIELDS: Final = 64
_MAX_TEXT_BYTES: Final = 65_536  # all text fields together
_HEADERS_BYTES: Final = 65_536  # of all parts, boundaries included
_MAX_DISPOSITION_CHARS: Final = 2048
_LINE_BYTES: Final = 8190  # as of a request's headers
_MAX_LINES: Final = 2048  # of boundaries and headers: thirty for each field
_VALUE: Final = r'(?:"(?:[^"\\]|\\.)*"|[^\s";]+)'
_PARAMETER: Final = re.compile(rf";\s*([A-Za-z*]+)\s*=\s*({_VALUE})")
_DISPOSITION: Final = re.compile(
    rf"form-data(?:\s*;\s*[A-Za-z*]+\s*=\s*{_VALUE})+\s*;?\s*", re.IGNORECASE
)

UNTIDY_HEADERS: Final = (BadContentDispositionHeader, BadContentDispositionParam)
"""Warnings of aiohttp about what clients send: to be ignored, or anybody could fill the log."""


@dataclass(slots=True)
class Form:
    """A form that has arrived.

    Attributes:
        texts: name of a field to its values, in order.
        files: name of a field to the file in it; fields in which none was chosen are left out.
    """

    texts: dict[str, list[str]] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)

    def text(self, name: str) -> str | None:
        """The value of a field; None if it is not there or empty.

        Raises:
            InvalidEventError: it is there more than once.
        """
        values = self.texts.get(name, [])
        if len(values) > 1:
            raise bad_field(name, f"{name} is there {len(values)} times; once is right")
        return values[0].strip() or None if values else None

    def file(self, *names: str) -> bytes | None:
        """The file in the first of these fields that has one; None if none was chosen."""
        return next((self.files[name] for name in names if name in self.files), None)


def bad_field(name: str | None, problem: str) -> InvalidEventError:
    """The refusal of a field."""
    return InvalidEventError(ErrorCode.INVALID_MESSAGE, problem, field=name)


def too_large(limit: int) -> InvalidEventError:
    """The refusal of a file beyond the limit."""
    problem = f"a file of more than {limit / 2**20:.3g} MiB"
    return InvalidEventError(ErrorCode.TOO_LARGE, problem)


class BusyError(AvatarError):
    """As many requests of this kind as are allowed are under way."""

    retryable = True


class Gate:
    """Lets a few requests at a time through, holds some back, and refuses the others.

    Args:
        at_once: how many are let through.
        waiting: how many are held back; their bodies are not read meanwhile.
    """

    def __init__(self, at_once: int = 4, waiting: int = 32) -> None:
        self._through = asyncio.Semaphore(at_once)
        self._places = at_once + waiting
        self._taken = 0

    @asynccontextmanager
    async def passed(self) -> AsyncIterator[None]:
        """Wait for a turn, and have it until the block ends.

        Raises:
            BusyError: too many wait already.
        """
        if self._taken >= self._places:
            raise BusyError("too many requests with pictures are under way; try again")
        self._taken += 1
        try:
            async with self._through:
                yield
        finally:
            self._taken -= 1


async def read_form(request: web.Request, limits: HttpLimits) -> Form:
    """Read a form: `multipart/form-data`, or urlencoded where there is no file.

    Raises:
        InvalidEventError: too large, malformed, or neither of the two.
        HTTPRequestTimeout: it took too long to arrive.
    """
    kind = request.content_type
    if not request.can_read_body:
        return Form()
    if kind == URLENCODED:
        return _parsed(await read_body(request, limits, _MAX_TEXT_BYTES))
    if kind != MULTIPART:
        raise web.HTTPUnsupportedMediaType(
            text=f"expected a form as {MULTIPART} or {URLENCODED}, not {kind[:80]!a}"
        )
    if (request.content_length or 0) > limits.upload_bytes + _MAX_TEXT_BYTES + _HEADERS_BYTES:
        raise too_large(limits.upload_bytes)
    async with _arriving(limits) as note:
        try:
            lines = cast(StreamReader, _Lines(request.content))
            reader = MultipartReader(request.headers, lines)
            return await _Reader(limits.upload_bytes, note).read(reader)
        except (ValueError, AssertionError, LineTooLong, *UNTIDY_HEADERS) as error:
            # What follows in quotes is the client's own, a token perhaps.
            why = ascii(str(error))[1:-1].partition(" b'")[0].partition(' b"')[0]
            raise bad_field(None, f"the form is malformed: {why}"[:200]) from error


async def read_body(request: web.Request, limits: HttpLimits, max_bytes: int) -> bytes:
    """Read a body as it is.

    Raises:
        InvalidEventError: it is longer than `max_bytes`.
        HTTPRequestTimeout: it took too long to arrive.
    """
    refusal = InvalidEventError(ErrorCode.TOO_LARGE, f"the body has at most {max_bytes} bytes")
    if (request.content_length or 0) > max_bytes:
        raise refusal
    body = bytearray()
    async with _arriving(limits) as note:
        async for chunk in request.content.iter_any():
            note(len(chunk))
            body += chunk
            if len(body) > max_bytes:
                raise refusal
    return bytes(body)


@asynccontextmanager
async def _arriving(limits: HttpLimits) -> AsyncIterator[Callable[[int], None]]:
    """Limits how long a body may take; gives what is to be called with the bytes that arrive."""
    begun_s, arrived = asyncio.get_running_loop().time(), 0

    def until_s() -> float:
        at_this_rate_s = limits.upload_first_s + arrived / _LEAST_BYTES_PER_S
        return begun_s + min(limits.upload_s, at_this_rate_s)

    try:
        async with asyncio.timeout_at(until_s()) as limit:

            def note(number: int) -> None:
                nonlocal arrived
                arrived += number
                limit.reschedule(until_s())

            yield note
    except TimeoutError:
        problem = (
            f"the body took too long to arrive: at least {_LEAST_BYTES_PER_S} bytes a second are "
            f"expected, and all of it within {limits.upload_s:g} s"
        )
        raise web.HTTPRequestTimeout(text=problem) from None
    except (web.RequestPayloadError, HttpProcessingError) as error:
        raise web.HTTPBadRequest(text="the body did not arrive whole") from error


def _parsed(body: bytes) -> Form:
    try:
        pairs = parse_qsl(
            body.decode(), keep_blank_values=True, errors="strict", max_num_fields=_MAX_FIELDS
        )
    except ValueError as error:
        raise bad_field(None, "the form is malformed, or has too many fields") from error
    form = Form()
    for name, value in pairs:
        form.texts.setdefault(name, []).append(value)
    return form


def _named(disposition: str) -> tuple[str, str | None]:
    """The name of a part, and of the file in it; None for no file (RFC 7578, section 4.2).

    aiohttp's own reading of this header warns about every odd one, and guesses.
    """
    if len(disposition) > _MAX_DISPOSITION_CHARS or not _DISPOSITION.fullmatch(disposition):
        raise bad_field(None, 'every part of the form needs a Content-Disposition with its name="')
    parameters = {key.lower(): value for key, value in _PARAMETER.findall(disposition)}
    name = parameters.get("name", "").strip('"')
    if not re.fullmatch(r"[ !#-\[\]-~]{1,64}", name):
        raise bad_field(None, "the name of every part has 1 to 64 printable ASCII characters")
    files = [value.strip('"') for key, value in parameters.items() if key.startswith("filename")]
    return name, "".join(files) if files else None


class _Lines:
    """The body, of which only so many lines are read as lines, and none that is too long.

    Boundaries and headers are; and so is, without an end, what somebody puts before the first
    boundary: sixteen million empty lines, or a long one in pieces of a byte each, keep the event
    loop busy for seconds.
    """

    def __init__(self, body: StreamReader) -> None:
        self._body = body
        self._lines = 0

    async def readline(self, *, max_line_length: int | None = None) -> bytes:
        self._lines += 1
        if self._lines > _MAX_LINES:
            raise bad_field(None, "the form is malformed: too many lines around its parts")
        longest = min(max_line_length or _LINE_BYTES, _LINE_BYTES)
        return await self._body.readline(max_line_length=longest)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._body, name)


class _Reader:
    """Reads the parts of one form, and counts.

    Args:
        note: called with the bytes that arrive.
    """

    def __init__(self, max_file_bytes: int, note: Callable[[int], None]) -> None:
        self._max_file_bytes = max_file_bytes
        self._note = note
        self._file_bytes = 0
        self._text_bytes = 0

    async def read(self, reader: MultipartReader) -> Form:
        form = Form()
        for _ in range(_MAX_FIELDS):
            part = await reader.next()
            if part is None:
                return form
            await self._take(part, form)
        raise bad_field(None, f"a form has at most {_MAX_FIELDS - 1} fields")

    async def _take(self, part: object, form: Form) -> None:
        if not isinstance(part, BodyPartReader):
            raise bad_field(None, "no part of the form has parts itself")
        name, file_name = _named(part.headers.get(hdrs.CONTENT_DISPOSITION, ""))
        if hdrs.CONTENT_TRANSFER_ENCODING in part.headers or hdrs.CONTENT_ENCODING in part.headers:
            raise bad_field(name, f"{name}: send it as it is, without an encoding")
        if file_name is None:
            form.texts.setdefault(name, []).append(await self._text(part, name))
        elif name in form.files:
            raise bad_field(name, f"{name} has one file, not several")
        else:
            data = await self._file(part)
            if data:
                form.files[name] = data
            elif file_name:  # a browser without a choice sends neither name nor bytes
                raise bad_field(name, f"{name}: the file is empty")

    async def _text(self, part: BodyPartReader, name: str) -> str:
        data = bytearray()
        while chunk := await part.read_chunk():
            data += chunk
            self._note(len(chunk))
            self._text_bytes += len(chunk)
            if self._text_bytes > _MAX_TEXT_BYTES:
                problem = f"the text of a form has at most {_MAX_TEXT_BYTES} bytes"
                raise InvalidEventError(ErrorCode.TOO_LARGE, problem, field=name)
        try:
            return data.decode()
        except UnicodeDecodeError:
            raise bad_field(name, f"{name}: expected text in UTF-8") from None

    async def _file(self, part: BodyPartReader) -> bytes:
        data = bytearray()
        while chunk := await part.read_chunk(65_536):
            data += chunk
            self._note(len(chunk))
            self._file_bytes += len(chunk)
            if self._file_bytes > self._max_file_bytes:
                raise too_large(self._max_file_bytes)
        return bytes(data)

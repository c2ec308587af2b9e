"""Single pictures by HTTP: POST `/api/render` and `/api/render/batch`, section 4.

For clients of the older picture service: they send a form, with a picture of a face or without
(then the character on stage is drawn), and get the picture back, or several in a zip file.
"""

from __future__ import annotations

import asyncio
import io
import math
import zipfile
from collections.abc import Callable, Sequence
from typing import Annotated, Final

import msgspec
from aiohttp import hdrs, web
from msgspec import Meta, Struct

from adapters.access import HttpLimits
from adapters.answers import LIVE_HEADERS, image_refused
from adapters.described import Answer, Body, Refusal, StageQuery, UploadedFile, described
from adapters.forms import MULTIPART, Form, Gate, bad_field, read_form
from pipeline.errors import ErrorCode, InvalidEventError, PortraitError
from pipeline.orders import PictureMaker, PictureOrder, SinglePicture
from pipeline.types import ImageFormat

ZIP: Final = "application/zip"
MAX_BATCH: Final = 32
_MAX_ZIP_BYTES: Final = 64 * 2**20
_SOURCE: Final = "source_image"
_FORMATS: Final = {**{each.value: each for each in ImageFormat}, "jpg": ImageFormat.JPEG}
_SUFFIXES: Final = {ImageFormat.JPEG: "jpg", ImageFormat.PNG: "png", ImageFormat.WEBP: "webp"}
_NO_TIME: Final = (1980, 1, 1, 0, 0, 0)  # the same pictures are the same bytes
_IMAGES: Final = tuple(each.content_type for each in ImageFormat)

_REFUSALS: Final = (
    Refusal(400, "unknown expression, a field out of range, or a picture that cannot be read"),
    Refusal(408, "the form took too long to arrive"),
    Refusal(413, "the picture has too many bytes or pixels"),
    Refusal(415, "the body is no form"),
    Refusal(422, "there is no face in the picture"),
    Refusal(503, "nothing can be drawn now, or too much is waiting"),
)

_Intensity = Annotated[float, Meta(ge=0.0, le=1.0)]


class RenderForm(Struct, frozen=True, kw_only=True):
    """A single picture.

    Attributes:
        source_image: JPEG, PNG or WebP file with a face; the character on stage without one.
        expression: label or alias, in any case.
        intensity: how strong.
        format: of the picture.
        stage: whose character, size and quality.
    """

    source_image: UploadedFile | None = None
    expression: str
    intensity: _Intensity = 1.0
    format: ImageFormat = ImageFormat.JPEG
    stage: str | None = None


class BatchForm(Struct, frozen=True, kw_only=True):
    """Several pictures of the same face.

    Attributes:
        source_image: JPEG, PNG or WebP file with a face; the character on stage without one.
        expressions: labels or aliases, in any case: a field for each, or one with commas.
        intensity: how strong.
        format: of the pictures.
        stage: whose character, size and quality.
    """

    source_image: UploadedFile | None = None
    expressions: Annotated[list[str], Meta(min_length=1, max_length=MAX_BATCH)]
    intensity: _Intensity = 1.0
    format: ImageFormat = ImageFormat.JPEG
    stage: str | None = None


class RenderEndpoint:
    """Serves both; errors are for the application to answer.

    Args:
        maker: gives who draws, or raises InvalidEventError while there is nobody.
        limits: of the form.
    """

    def __init__(self, maker: Callable[[], PictureMaker], limits: HttpLimits) -> None:
        self._maker = maker
        self._limits = limits
        self._gate = Gate()

    def routes(self) -> list[web.RouteDef]:
        """What to add to the application."""
        return [
            web.post("/api/render", self.one),
            web.post("/api/render/batch", self.batch),
        ]

    @described(
        Answer(200, "the picture", content=_IMAGES),
        *_REFUSALS,
        query=StageQuery,
        body=Body((RenderForm,), MULTIPART),
        tag="Rendering",
    )
    async def one(self, request: web.Request) -> web.Response:
        """Draw one picture of a face with an emotion."""
        pictures, image_format = await self._drawn(request, _one_expression)
        return web.Response(
            body=pictures[0].data, content_type=image_format.content_type, headers=LIVE_HEADERS
        )

    @described(
        Answer(200, "a picture for each label, named after it", content=(ZIP,)),
        *_REFUSALS,
        query=StageQuery,
        body=Body((BatchForm,), MULTIPART),
        tag="Rendering",
    )
    async def batch(self, request: web.Request) -> web.Response:
        """Draw several pictures of the same face, each with another emotion.

        What means the same emotion is drawn once, under its canonical label.
        """
        pictures, image_format = await self._drawn(request, _several_expressions)
        if sum(len(each.data) for each in pictures) > _MAX_ZIP_BYTES:
            problem = f"the pictures have more than {_MAX_ZIP_BYTES // 2**20} MiB; ask for fewer"
            raise InvalidEventError(ErrorCode.TOO_LARGE, problem, field="expressions")
        body = await asyncio.to_thread(_zipped, pictures, _SUFFIXES[image_format])
        headers = {**LIVE_HEADERS, hdrs.CONTENT_DISPOSITION: 'attachment; filename="faces.zip"'}
        return web.Response(body=body, content_type=ZIP, headers=headers)

    async def _drawn(
        self, request: web.Request, expressions: Callable[[Form], tuple[str, Sequence[str]]]
    ) -> tuple[list[SinglePicture], ImageFormat]:
        maker = self._maker()
        async with self._gate.passed():
            form = await read_form(request, self._limits)
            field, wanted = expressions(form)
            order = PictureOrder(
                source=_source(form),
                expressions=tuple(wanted),
                intensity=_intensity(form.text("intensity")),
                format=_format(form.text("format")),
                stage=request.query.get("stage") or form.text("stage"),
                field=field,
            )
            try:
                return await maker.draw(order), order.format
            except PortraitError as error:
                raise image_refused(error, _SOURCE) from error
            except InvalidEventError as error:
                if error.code is not ErrorCode.UNKNOWN_EMOTION:
                    raise
                raise _unknown_expression(error) from error


def _unknown_expression(error: InvalidEventError) -> InvalidEventError:
    """Older clients expect 400 here, which is another status than a message's."""
    return InvalidEventError(
        ErrorCode.UNKNOWN_EXPRESSION,
        error.message,
        field=error.field,
        suggestions=error.suggestions,
    )


def _source(form: Form) -> bytes | None:
    source = form.file(_SOURCE, "image", "file")
    if source is None and form.text(_SOURCE):
        raise bad_field(_SOURCE, "source_image: expected a file, not text")
    return source


def _one_expression(form: Form) -> tuple[str, Sequence[str]]:
    expression = form.text("expression") or form.text("emotion")
    if expression is None:
        raise bad_field("expression", "expression: expected a label such as happy")
    return "expression", (expression,)


def _several_expressions(form: Form) -> tuple[str, Sequence[str]]:
    """A field for each; a JSON list, and names between commas, do as well."""
    values = [
        value
        for name in ("expressions", "expressions[]", "expression")
        for value in form.texts.get(name, [])
    ]
    wanted = [name for value in values for name in _listed(value)]
    if not 1 <= len(wanted) <= MAX_BATCH:
        problem = f"expressions: expected 1 to {MAX_BATCH} labels, a field for each"
        raise bad_field("expressions", problem)
    return "expressions", wanted


def _listed(value: str) -> list[str]:
    if value.lstrip().startswith("["):
        try:
            return msgspec.json.decode(value, type=list[str])
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            raise bad_field("expressions", f"expressions: {error}"[:200]) from error
    return [name.strip() for name in value.split(",") if name.strip()]


def _intensity(text: str | None) -> float:
    if text is None:
        return 1.0
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0.0 <= value <= 1.0:
        raise bad_field("intensity", f"intensity: expected a number from 0 to 1, not {text[:32]!a}")
    return value


def _format(text: str | None) -> ImageFormat:
    image_format = _FORMATS.get((text or "jpeg").lower())
    if image_format is None:
        raise bad_field("format", f"format: expected jpeg, png or webp, not {(text or '')[:32]!a}")
    return image_format


def _zipped(pictures: Sequence[SinglePicture], suffix: str) -> bytes:
    """Labels are names of the emotion table, so the names in the zip file are tame."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for each in pictures:
            archive.writestr(zipfile.ZipInfo(f"{each.label}.{suffix}", _NO_TIME), each.data)
    return file.getvalue()

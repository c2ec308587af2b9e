"""Picture files to pixels: JPEG, PNG and WebP from people nobody vouches for.

Sizes are read from the header and checked before anything is decoded, formats are told by their
first bytes, and a file that ends early is refused instead of shown half grey.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Self

import cv2
import numpy as np
import numpy.typing as npt
import simplejpeg

from pipeline.errors import PortraitError
from pipeline.types import Image, ImageFormat

MAX_BYTES: Final = 16 * 1024 * 1024
MAX_PIXELS: Final = 40_000_000

BACKDROP: Final = 128  # level of the neutral grey behind transparent pixels

_PNG_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_ORIENTATION_TAG: Final = 0x0112
_BLOCK_ROWS: Final = 256
_MAX_CHUNKS: Final = 50_000  # a file of empty chunks must not keep us counting
_MAX_SCANS: Final = 64  # ten are usual; each is a pass over the whole picture, and has 20 bytes
# What begins a segment: neither a stuffed 0, nor a fill byte, nor a restart (ITU-T T.81, B.1.1).
_JPEG_MARKER: Final = re.compile(rb"\xff[^\x00\x01\xff\xd0-\xd8]")


class _DamagedError(ValueError):
    """The file's structure is broken; the text says how."""


@dataclass(frozen=True, slots=True)
class _Header:
    """What is known of a picture before decoding.

    Attributes:
        width, height: pixels as stored, before orientation.
        orientation: EXIF orientation 1..8 (Exif 2.32, section 4.6.4, tag 274).
    """

    format: ImageFormat
    width: int
    height: int
    orientation: int

    @classmethod
    def read(cls, data: bytes) -> Self:
        """Parse the header of a supported file.

        Raises:
            _DamagedError: not a supported format, or structurally broken.
        """
        if data.startswith(b"\xff\xd8\xff"):
            return cls(ImageFormat.JPEG, *_jpeg_header(data))
        if data.startswith(_PNG_SIGNATURE):
            return cls(ImageFormat.PNG, *_png_header(data))
        if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            return cls(ImageFormat.WEBP, *_webp_header(data))
        raise _DamagedError("not a JPEG, PNG or WebP picture; save it as one of these")


def decode_image(
    data: bytes, *, name: str, max_bytes: int = MAX_BYTES, max_pixels: int = MAX_PIXELS
) -> Image:
    """Decode a JPEG, PNG or WebP file.

    EXIF orientation is applied, transparency laid over neutral grey, grey made RGB, 16 bit
    rounded to 8, CMYK JPEG converted; of an animation the first picture is taken. Colour
    profiles are ignored.

    Args:
        data: the file's bytes.
        name: for messages.
        max_bytes: refuse longer files.
        max_pixels: refuse larger pictures, before decoding.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        PortraitError: too large (`too_large`), another format, damaged or cut short.
    """
    if len(data) > max_bytes:
        raise PortraitError(
            name, f"a file of more than {max_bytes / (1024 * 1024):.3g} MiB", too_large=True
        )
    try:
        header = _Header.read(data)
        if header.width * header.height > max_pixels:
            raise PortraitError(
                name,
                f"{header.width} x {header.height} pixels; at most {max_pixels / 1e6:g} "
                "megapixels are allowed",
                too_large=True,
            )
        pixels = _decode_jpeg(data) if header.format is ImageFormat.JPEG else _decode_other(data)
        if pixels.shape[:2] != (header.height, header.width):
            raise _DamagedError("its header and its pixels disagree about its size")
    except _DamagedError as error:
        raise PortraitError(name, str(error)) from error
    return np.ascontiguousarray(_oriented(pixels, header.orientation))


def _decode_jpeg(data: bytes) -> Image:
    try:
        pixels: Image = simplejpeg.decode_jpeg(data, colorspace="RGB")
    except ValueError as error:
        raise _DamagedError(f"a damaged JPEG picture ({error}); save it again") from error
    return pixels


def _decode_other(data: bytes) -> Image:
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise _DamagedError(f"a damaged picture ({error.err}); save it again") from error
    if pixels is None:
        raise _DamagedError("a damaged picture; save it again")
    if pixels.dtype == np.uint16:
        pixels = cv2.convertScaleAbs(pixels, alpha=255 / 65535)
    if pixels.dtype != np.uint8:
        raise _DamagedError(f"pixels of type {pixels.dtype} are not supported; save it with 8 bits")
    if pixels.ndim == 2:
        return _as_image(cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB))
    if pixels.shape[2] == 4:
        return _composited(_as_image(cv2.cvtColor(pixels, cv2.COLOR_BGRA2RGBA)))
    return _as_image(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB))


def _as_image(pixels: object) -> Image:
    return np.asarray(pixels, np.uint8)


def _composited(rgba: npt.NDArray[np.uint8]) -> Image:
    """Lay (H, W, 4) uint8 RGBA over the backdrop, in blocks so that memory stays bounded."""
    rgb = np.ascontiguousarray(rgba[..., :3])
    if rgba[..., 3].min() == 255:
        return rgb
    for top in range(0, rgba.shape[0], _BLOCK_ROWS):
        rows = slice(top, top + _BLOCK_ROWS)
        alpha = rgba[rows, :, 3:].astype(np.uint32)
        mixed = rgb[rows] * alpha + BACKDROP * (255 - alpha)
        rgb[rows] = ((mixed + 127) // 255).astype(np.uint8)
    return rgb


def _oriented(pixels: Image, orientation: int) -> Image:
    """Undo an EXIF orientation: where row 0 and column 0 of the stored picture belong."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return pixels


def _jpeg_header(data: bytes) -> tuple[int, int, int]:
    try:
        height, width, _, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError as error:
        raise _DamagedError(f"a damaged JPEG picture ({error}); save it again") from error
    orientation, scans = None, 0
    for marker, payload in _jpeg_segments(data):
        if marker == 0xDA:
            scans += 1
            if scans > _MAX_SCANS:
                raise _DamagedError(
                    f"a JPEG picture in more than {_MAX_SCANS} scans; save it again"
                )
        elif marker == 0xE1 and not scans and orientation is None and payload[:6] == b"Exif\0\0":
            orientation = _exif_orientation(payload[6:])
    return width, height, orientation or 1


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Marker segments (ITU-T T.81, B.1.1): marker and payload.

    What lies between them, scans above all, is skipped as the decoder does it, so that nothing
    is hidden from us that it sees.
    """
    at = 2
    for _ in range(_MAX_CHUNKS):
        found = _JPEG_MARKER.search(data, at)
        if found is None or data[found.end() - 1] == 0xD9:
            return
        at = found.end()
        length = int.from_bytes(data[at : at + 2], "big")
        yield data[at - 1], data[at + 2 : at + length]
        at += max(length, 2)
    raise _DamagedError("a JPEG picture of too many segments; save it again")


def _png_header(data: bytes) -> tuple[int, int, int]:
    """Size and orientation from the chunks (PNG third edition, section 5)."""
    width = height = 0
    orientation = 1
    at = len(_PNG_SIGNATURE)
    for number in range(_MAX_CHUNKS):
        if at + 12 > len(data):
            break
        length, kind = struct.unpack_from(">I4s", data, at)
        if (kind == b"IHDR") != (number == 0):
            # Of several, the decoder takes another than a reader that looks at the last one.
            raise _DamagedError("a PNG picture that does not have one header; save it again")
        payload = data[at + 8 : at + 8 + length] if kind in (b"IHDR", b"eXIf") else b""
        if kind == b"IHDR" and len(payload) == 13:
            width, height = struct.unpack_from(">II", payload)
        elif kind == b"eXIf":
            orientation = _exif_orientation(payload)
        at += 12 + length
        if kind == b"IEND" and at <= len(data):
            if width and height:
                return width, height, orientation
            break
    raise _DamagedError("a PNG picture that is cut short; save it again")


def _webp_header(data: bytes) -> tuple[int, int, int]:
    """Size and orientation from the RIFF chunks (RFC 9649, section 2)."""
    if len(data) < 8 + int.from_bytes(data[4:8], "little"):
        raise _DamagedError("a WebP picture that is cut short; save it again")
    size: tuple[int, int] | None = None
    orientation = 1
    at = 12
    for _ in range(_MAX_CHUNKS):
        if at + 8 > len(data):
            break
        kind, length = struct.unpack_from("<4sI", data, at)
        head = data[at + 8 : at + 8 + min(length, 64 * 1024 if kind == b"EXIF" else 10)]
        if kind == b"EXIF":
            orientation = _exif_orientation(head.removeprefix(b"Exif\0\0"))
        elif size is None:
            size = _webp_size(kind, head)
        at += 8 + length + length % 2
    if size is None:
        raise _DamagedError("a damaged WebP picture; save it again")
    return *size, orientation


def _webp_size(kind: bytes, head: bytes) -> tuple[int, int] | None:
    if len(head) < 10 and kind != b"VP8L":
        return None
    if kind == b"VP8X":
        width, height = (int.from_bytes(head[i : i + 3], "little") + 1 for i in (4, 7))
        return width, height
    if kind == b"VP8 " and head[3:6] == b"\x9d\x01\x2a":
        width, height = (int.from_bytes(head[i : i + 2], "little") & 0x3FFF for i in (6, 8))
        return (width, height) if width and height else None
    if kind == b"VP8L" and len(head) >= 5 and head[0] == 0x2F:
        bits = int.from_bytes(head[1:5], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    return None


def _exif_orientation(tiff: bytes) -> int:
    """Orientation from the first directory of a TIFF block (TIFF 6.0, section 2); 1 if absent."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    if order is None or len(tiff) < 8:
        return 1
    (at,) = struct.unpack_from(order + "I", tiff, 4)
    if at + 2 > len(tiff):
        return 1
    (count,) = struct.unpack_from(order + "H", tiff, at)
    for entry in range(at + 2, min(at + 2 + 12 * count, len(tiff) - 11), 12):
        tag, _, _, value = struct.unpack_from(order + "HHIH", tiff, entry)
        if tag == _ORIENTATION_TAG:
            return value if 1 <= value <= 8 else 1
    return 1

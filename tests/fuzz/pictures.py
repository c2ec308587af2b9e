"""Picture files that are meant badly, or odd: name to bytes and the statuses that are right."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Iterator
from typing import Any, Final

import numpy as np
from PIL import Image as Pillow

from tests.fakes.photos import astronaut

SERVED: Final = frozenset({200})
REFUSED: Final = frozenset({400})
TOO_LARGE: Final = frozenset({413})
NO_FACE: Final = frozenset({422})
HUGE: Final = 1_000_000


def hostile() -> Iterator[tuple[str, bytes, frozenset[int]]]:
    """All of them."""
    face = Pillow.fromarray(astronaut())
    jpeg, png, webp = (saved(face, kind) for kind in ("JPEG", "PNG", "WEBP"))
    yield "empty", b"", frozenset({200, 400})  # as good as none: the stage's own character
    yield "nothing but zeros", bytes(1000), REFUSED
    yield "text", b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>", REFUSED
    yield "html", b"<html><script>1</script></html>", REFUSED
    yield "gif", saved(face, "GIF"), REFUSED
    yield "bmp", saved(face, "BMP"), REFUSED
    yield "tiff", saved(face, "TIFF"), REFUSED
    yield "pdf", b"%PDF-1.7\n" + bytes(100), REFUSED
    yield "zip", zipped(), REFUSED
    yield "a JPEG's first bytes", jpeg[:4], REFUSED
    for share in (0.02, 0.5, 0.97):
        for kind, data in (("jpeg", jpeg), ("png", png), ("webp", webp)):
            yield f"{kind}, {share:.0%} of it", data[: int(len(data) * share)], REFUSED
    yield "a pixel", saved(Pillow.new("RGB", (1, 1)), "PNG"), NO_FACE
    yield "a line", saved(Pillow.new("L", (5000, 1)), "PNG"), NO_FACE
    yield "no face", saved(Pillow.effect_noise((300, 300), 60.0), "PNG"), NO_FACE
    yield "100 megapixels, nothing in them", png_of(10_000, 10_000, b""), TOO_LARGE
    yield "100 megapixels, packed to 100 KB", packed(10_000, 10_000), TOO_LARGE
    yield "a header of a million squared", png_of(HUGE, HUGE, b""), TOO_LARGE
    yield "a header of 2^31 - 1 squared", png_of(2**31 - 1, 2**31 - 1, b""), TOO_LARGE
    yield "a header of nought", png_of(0, 0, b""), REFUSED
    yield "a header with less than there is", png_of(8, 8, bytes(10**6)), REFUSED | NO_FACE
    yield "a JPEG that says 60000 squared", with_size(jpeg, 60_000, 60_000), TOO_LARGE
    yield "a JPEG that says one pixel", with_size(jpeg, 1, 1), REFUSED | NO_FACE
    yield "a bomb of text in a PNG", with_chunk(png, b"zTXt", b"a\0\0" + bomb(30)), SERVED
    yield "a bomb for a profile", with_chunk(png, b"iCCP", b"a\0\0" + bomb(30)), SERVED | REFUSED
    yield "a profile of noise", saved(face, "JPEG", icc_profile=noise(60_000)), SERVED
    yield "EXIF of noise", saved(face, "JPEG", exif=b"Exif\0\0" + noise(5000)), SERVED
    yield "EXIF that refers to itself", saved(face, "JPEG", exif=LOOPING_EXIF), SERVED
    yield "EXIF turned by 180", saved(face.rotate(180), "JPEG", exif=exif(3)), SERVED
    yield "EXIF that turns by 77", saved(face, "JPEG", exif=exif(77)), SERVED
    yield "a ZIP file behind a JPEG", jpeg + zipped(), SERVED
    yield "HTML behind a PNG", png + b"<script>alert(1)</script>", SERVED
    yield "HTML in a JPEG's comment", saved(face, "JPEG", comment=b"<script>"), SERVED
    yield "a PNG behind a JPEG", jpeg + png, SERVED
    yield "an animated WebP", animated(face, "WEBP"), SERVED
    yield "an animated PNG", animated(face, "PNG"), SERVED
    yield "CMYK", saved(face.convert("CMYK"), "JPEG"), SERVED
    yield "grey", saved(face.convert("L"), "JPEG"), SERVED
    yield "a palette", saved(face.convert("P"), "PNG"), SERVED
    yield "16 bit", saved(sixteen_bit(face), "PNG"), SERVED
    yield "transparent", saved(with_alpha(face), "PNG"), SERVED
    yield "black and white", saved(face.convert("1"), "PNG"), SERVED | NO_FACE
    yield "a progressive JPEG", saved(face, "JPEG", progressive=True), SERVED


def saved(image: Any, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def animated(image: Any, kind: str) -> bytes:
    return saved(image, kind, save_all=True, append_images=[image.rotate(90)] * 3, duration=50)


def sixteen_bit(image: Any) -> Any:
    return Pillow.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)


def with_alpha(image: Any) -> Any:
    image = image.copy()
    image.putalpha(200)
    return image


def noise(length: int) -> bytes:
    return np.random.default_rng(1).bytes(length)


def bomb(mib: int) -> bytes:
    return zlib.compress(bytes(mib * 2**20), 9)


def zipped() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("../../evil", "x")
    return file.getvalue()


def exif(orientation: int) -> bytes:
    entry = struct.pack("<HHIHH", 0x0112, 3, 1, orientation, 0)
    return b"Exif\0\0II*\0\x08\0\0\0\x01\0" + entry + bytes(4)


# One directory whose next one is itself.
LOOPING_EXIF: Final = (
    b"Exif\0\0II*\0\x08\0\0\0\x01\0"
    + struct.pack("<HHIHH", 0x0131, 3, 1, 1, 0)
    + struct.pack("<I", 8)
)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_of(width: int, height: int, pixels: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IDAT", zlib.compress(pixels, 9))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + body + chunk(b"IEND", b"")


def packed(width: int, height: int) -> bytes:
    """Grey, so that all its pixels are in some 100 KB."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    body = chunk(b"IDAT", zlib.compress(bytes((width + 1) * height), 9))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + body + chunk(b"IEND", b"")


def with_chunk(png: bytes, kind: bytes, data: bytes) -> bytes:
    """A further chunk behind the header's."""
    return png[:33] + chunk(kind, data) + png[33:]


def with_size(jpeg: bytes, width: int, height: int) -> bytes:
    """The size in a JPEG's frame header made another."""
    place = jpeg.index(b"\xff\xc0") + 5
    return jpeg[:place] + struct.pack(">HH", height, width) + jpeg[place + 4 :]

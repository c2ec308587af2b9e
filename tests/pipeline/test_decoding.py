import io
import struct
import zlib

import numpy as np
import PIL.Image
import PIL.ImageOps
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.decoding import BACKDROP, decode_image
from pipeline.errors import PortraitError
from tests.fakes.photos import astronaut, jpeg, png, webp

PHOTO = astronaut()[60:140, 170:290]  # 80 rows, 120 columns


def saved(mode: str, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    PIL.Image.fromarray(PHOTO).convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(("encode", "off"), [(png, 0), (webp, 0), (jpeg, 12)])
def test_each_format_gives_rgb(encode, off):
    """PNG and WebP come back exactly, JPEG nearly, all as RGB bytes."""
    image = decode_image(encode(PHOTO), name="photo")

    assert image.dtype == np.uint8
    assert image.shape == PHOTO.shape
    assert np.abs(image.astype(int) - PHOTO).mean() <= off


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(kind, orientation):
    """A picture stored turned or mirrored comes out upright, as Pillow shows it."""
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if kind == "WEBP" else {}
    data = saved("RGB", kind, exif=exif, **options)

    image = decode_image(data, name="photo")

    upright = PIL.Image.open(io.BytesIO(data))
    PIL.ImageOps.exif_transpose(upright, in_place=True)
    assert image.shape == (*upright.size[::-1], 3)
    assert np.abs(image.astype(int) - np.asarray(upright.convert("RGB"))).mean() < 1


def test_lossy_webp_is_read():
    """The usual WebP, without a header of its own for size, comes out as it should."""
    image = decode_image(saved("RGB", "WEBP", quality=95), name="photo")
    assert image.shape == PHOTO.shape
    assert np.abs(image.astype(int) - PHOTO).mean() < 12


def test_a_header_that_lies_about_the_size_is_refused():
    """Pixels of another size than was checked are not let in."""
    exif = PIL.Image.Exif()
    exif[0x0112] = 1
    data = bytearray(saved("RGB", "WEBP", exif=exif))
    at = data.index(b"VP8X") + 12  # width - 1, three bytes
    data[at : at + 3] = (50).to_bytes(3, "little")
    with pytest.raises(PortraitError, match="lies"):
        decode_image(bytes(data), name="lies")


def test_a_nonsense_orientation_is_ignored():
    """EXIF that says orientation 9, or points outside itself, changes nothing."""
    exif = PIL.Image.Exif()
    exif[0x0112] = 9
    assert decode_image(saved("RGB", "PNG", exif=exif), name="photo").shape == PHOTO.shape

    broken = b"Exif\0\0II*\0\xff\xff\xff\xff"
    segment = b"\xff\xe1" + struct.pack(">H", len(broken) + 2) + broken
    data = jpeg(PHOTO)
    assert decode_image(data[:2] + segment + data[2:], name="photo").shape == PHOTO.shape


def test_transparency_is_laid_over_neutral_grey():
    """Clear pixels become grey, half-clear ones half grey."""
    alpha = np.full((*PHOTO.shape[:2], 1), 255, np.uint8)
    alpha[:, 40:80] = 0
    alpha[:, 80:] = 128

    image = decode_image(png(np.concatenate([PHOTO, alpha], axis=2)), name="photo")

    np.testing.assert_array_equal(image[:, :40], PHOTO[:, :40])
    assert (image[:, 40:80] == BACKDROP).all()
    half = (PHOTO[:, 80:].astype(float) * 128 + BACKDROP * 127) / 255
    assert np.abs(image[:, 80:] - half).max() <= 0.51


def test_palette_grey_and_bilevel_pictures_become_rgb():
    """Whatever a PNG stores, three channels come out."""
    for mode in ("L", "LA", "P", "1"):
        image = decode_image(saved(mode, "PNG"), name=mode)
        wanted = np.asarray(PIL.Image.fromarray(PHOTO).convert(mode).convert("RGB"))
        np.testing.assert_array_equal(image, wanted)
    grey = decode_image(saved("L", "JPEG"), name="grey")
    assert (grey[..., 0] == grey[..., 2]).all()


def test_sixteen_bits_are_rounded_to_eight():
    """The brightest and darkest of 65536 levels are 255 and 0."""
    deep = PHOTO.astype(np.uint16) * 257
    np.testing.assert_array_equal(decode_image(png(deep), name="deep"), PHOTO)
    clear = np.concatenate([deep, np.full((*deep.shape[:2], 1), 65535, np.uint16)], axis=2)
    np.testing.assert_array_equal(decode_image(png(clear), name="deep"), PHOTO)


def test_cmyk_jpeg_is_converted():
    """A printer's JPEG shows the colours that it showed in print."""
    image = decode_image(saved("CMYK", "JPEG", quality=98), name="print")
    assert np.abs(image.astype(int) - PHOTO).mean() < 4


@pytest.mark.parametrize("encode", [png, jpeg, webp])
@pytest.mark.parametrize("kept", [0.03, 0.5, 0.98])
def test_a_file_that_is_cut_short_is_refused(encode, kept):
    """A download that broke off is an error, not a picture that ends in grey."""
    data = encode(PHOTO)
    with pytest.raises(PortraitError) as caught:
        decode_image(data[: int(len(data) * kept)], name="half.file")
    assert "half.file" in str(caught.value)
    assert not caught.value.no_face


@pytest.mark.parametrize(
    "data", [b"", b"GIF89a" + bytes(50), b"hello", b"<svg/>", b"BM" + bytes(60), b"\xff\xd8\xff"]
)
def test_other_formats_are_refused_by_their_bytes(data):
    """Anything but JPEG, PNG and WebP is named as such, whatever the file is called."""
    with pytest.raises(PortraitError, match=r"JPEG"):
        decode_image(data, name="photo.jpg")


def test_a_large_file_is_refused_unread():
    """More bytes than allowed are too large before anything is looked at."""
    with pytest.raises(PortraitError, match=r"more than 0\.001 MiB") as caught:
        decode_image(bytes(2000), name="photo", max_bytes=1049)
    assert caught.value.too_large


def test_a_large_picture_is_refused_before_it_is_decoded():
    """A small file whose header claims 20000 x 20000 pixels costs no memory."""

    def chunk(kind: bytes, payload: bytes) -> bytes:
        check = zlib.crc32(kind + payload)
        return struct.pack(">I", len(payload)) + kind + payload + struct.pack(">I", check)

    header = struct.pack(">IIBBBBB", 20000, 20000, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
    with pytest.raises(
        PortraitError, match="20000 x 20000 pixels; at most 40 megapixels"
    ) as caught:
        decode_image(bomb, name="bomb")
    assert caught.value.too_large

    for encode in (png, jpeg, webp):
        with pytest.raises(PortraitError, match=r"120 x 80 pixels; at most 0\.009 megapixels"):
            decode_image(encode(PHOTO), name="photo", max_pixels=9000)
        decode_image(encode(PHOTO), name="photo", max_pixels=9600)


def _png_chunk(kind: bytes, data: bytes) -> bytes:
    crc = zlib.crc32(kind + data)
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc)


@pytest.mark.parametrize("place", ["before the pixels", "behind the pixels"])
def test_a_second_header_cannot_hide_how_large_a_picture_is(place):
    """OpenCV goes by the first one: a small one behind it is no way past the limit."""
    large, small = (
        _png_chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
        for side in (20_000, 10)
    )
    pixels = _png_chunk(b"IDAT", zlib.compress(bytes(100)))
    parts = [small, pixels] if place == "before the pixels" else [pixels, small]
    data = b"".join([b"\x89PNG\r\n\x1a\n", large, *parts, _png_chunk(b"IEND", b"")])

    with pytest.raises(PortraitError, match="does not have one header"):
        decode_image(data, name="photo")


@pytest.mark.parametrize("between", [b"", b"\xff\xff", b"junk", b"\xff\xfe\x00\x04ab"])
def test_a_jpeg_of_endless_scans_is_refused_before_it_is_decoded(between):
    """Each takes twenty bytes and a pass over the whole picture: 3000 of them took a minute."""
    data = saved("RGB", "JPEG", progressive=True)
    scan = data[data.rindex(b"\xff\xda") : -2]
    assert decode_image(data, name="photo").shape == PHOTO.shape

    with pytest.raises(PortraitError, match="more than 64 scans"):
        decode_image(data[:-2] + (between + scan) * 64 + data[-2:], name="photo")


def test_what_follows_a_jpeg_is_not_counted_as_scans():
    """Telephones put videos behind pictures, and thumbnails into them."""
    data = saved("RGB", "JPEG", progressive=True)
    thumbnail = b"\xff\xfe" + struct.pack(">H", 402) + b"\xff\xda" * 200

    assert decode_image(data[:2] + thumbnail + data[2:] + b"\xff\xda" * 500, name="photo").any()


def test_endless_chunks_do_not_keep_us_counting():
    """A file of a million empty chunks is refused quickly."""
    with pytest.raises(PortraitError, match="cut short"):
        decode_image(png(PHOTO)[:33] + b"\0\0\0\0tEXt\0\0\0\0" * 200_000, name="chunks")
    with pytest.raises(PortraitError, match="too many segments"):
        decode_image(jpeg(PHOTO)[:20] + b"\xff\xfe\0\2" * 200_000 + jpeg(PHOTO)[20:], name="chunks")
    riff = b"RIFF" + struct.pack("<I", 4 + 8 * 200_000) + b"WEBP" + b"JUNK\0\0\0\0" * 200_000
    with pytest.raises(PortraitError, match="damaged WebP"):
        decode_image(riff, name="chunks")


@given(st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_damage_never_escapes_as_another_error(draws):
    """Whatever bytes are flipped, inserted or lost, there is an RGB picture or a PortraitError."""
    encode = draws.draw(st.sampled_from([png, jpeg, webp]))
    data = bytearray(encode(PHOTO))
    for _ in range(draws.draw(st.integers(1, 6))):
        at = draws.draw(st.integers(0, min(len(data), 400) - 1))
        data[at : at + draws.draw(st.integers(0, 3))] = draws.draw(st.binary(max_size=4))
    try:
        image = decode_image(bytes(data), name="damaged", max_pixels=1_000_000)
    except PortraitError:
        pass
    else:
        assert image.dtype == np.uint8
        assert image.ndim == 3
        assert image.shape[2] == 3
        assert image.shape[0] * image.shape[1] <= 1_000_000

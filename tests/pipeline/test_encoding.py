"""Image files out of arrays."""

import cv2
import numpy as np
import pytest
import simplejpeg

from pipeline.encoding import decode_jpeg, encode
from pipeline.types import Image, ImageFormat


@pytest.fixture
def photo() -> Image:
    """A smooth picture whose channels differ."""
    rows, columns = np.mgrid[0:48, 0:64]
    return np.stack((rows * 5, columns * 3, 255 - rows * 2 - columns), axis=2).astype(np.uint8)


def opened(data: bytes) -> Image:
    """The picture in an image file, as RGB."""
    bgr = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert bgr is not None
    return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)


@pytest.mark.parametrize(
    ("image_format", "magic", "tolerance"),
    [
        (ImageFormat.JPEG, b"\xff\xd8\xff", 4.0),
        (ImageFormat.WEBP, b"RIFF", 4.0),
        (ImageFormat.PNG, b"\x89PNG", 0.0),
    ],
)
def test_every_format_shows_the_same_picture(
    photo: Image, image_format: ImageFormat, magic: bytes, tolerance: float
) -> None:
    """What is decoded has the size, the channel order and nearly the pixels of the original."""
    data = encode(photo, image_format, 90)
    assert data.startswith(magic)
    assert opened(data).shape == photo.shape
    assert np.abs(opened(data).astype(float) - photo).mean() <= tolerance


@pytest.mark.parametrize("image_format", [ImageFormat.JPEG, ImageFormat.WEBP])
def test_quality_buys_bytes(photo: Image, image_format: ImageFormat) -> None:
    """A higher quality makes a larger file."""
    noisy = photo + np.random.default_rng(1).integers(0, 20, photo.shape, dtype=np.uint8)
    sizes = [len(encode(noisy, image_format, quality)) for quality in (20, 60, 95)]
    assert sizes == sorted(set(sizes))


def test_jpeg_halves_the_colours(photo: Image) -> None:
    """JPEG files are 4:2:0, which every hardware decoder takes."""
    _, _, _, subsampling = simplejpeg.decode_jpeg_header(encode(photo, ImageFormat.JPEG, 85))
    assert subsampling == "420"


@pytest.mark.parametrize("image_format", list(ImageFormat))
def test_same_picture_same_bytes(photo: Image, image_format: ImageFormat) -> None:
    """Encoding is deterministic and does not care how the array lies in memory."""
    mirrored_twice = photo[:, ::-1].copy()[:, ::-1]
    assert encode(photo, image_format, 80) == encode(mirrored_twice, image_format, 80)


def test_jpeg_comes_back_as_an_image(photo: Image) -> None:
    """A JPEG file of ours can be opened again, to be written in another format."""
    image = decode_jpeg(encode(photo, ImageFormat.JPEG, 95))
    assert image.shape == photo.shape
    assert image.dtype == np.uint8
    assert np.abs(image.astype(float) - photo).mean() < 3.0


def test_a_torn_jpeg_is_refused(photo: Image) -> None:
    """Half a file is an error, not half a picture."""
    data = encode(photo, ImageFormat.JPEG, 85)
    with pytest.raises(ValueError):
        decode_jpeg(data[: len(data) // 2])


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((0, 4, 3), np.uint8),
    ],
)
def test_what_is_no_image_is_refused(image: Image) -> None:
    """Grey, RGBA, float and empty arrays are errors that say what came."""
    with pytest.raises(ValueError, match="expected"):
        encode(image, ImageFormat.JPEG, 85)


@pytest.mark.parametrize("quality", [0, 101])
def test_quality_has_a_range(photo: Image, quality: int) -> None:
    """Quality 0 and 101 do not exist; OpenCV would take 101 for lossless."""
    with pytest.raises(ValueError, match=r"1\.\.100"):
        encode(photo, ImageFormat.WEBP, quality)


def test_webp_has_a_largest_size() -> None:
    """A picture wider than WebP allows (16383) is a ValueError like any other."""
    with pytest.raises(ValueError, match="webp"):
        encode(np.zeros((1, 16400, 3), np.uint8), ImageFormat.WEBP, 80)

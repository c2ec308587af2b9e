"""Pictures in whatever encoding is wanted, each made once."""

import asyncio
import threading
from collections.abc import AsyncIterator

import numpy as np
import pytest

import pipeline.picture as picture_module
from pipeline.encoding import decode_jpeg, encode
from pipeline.errors import JobDroppedError, RenderError
from pipeline.frame_cache import FrameCache, FrameFamily, FrameKey, face_code
from pipeline.picture import FormatEncoder, Picture
from pipeline.ports import Metric
from pipeline.types import FaceControls, Image, ImageFormat
from tests.fakes.metrics import RecordingMetrics
from tests.fakes.renderer import Gate, fake_frame, fake_portrait
from tests.fakes.waiting import until

SIZE = (64, 48)


class Bench:
    """An encoder with its cache, and every encoding that it really makes."""

    def __init__(self) -> None:
        self.metrics = RecordingMetrics()
        self.cache = FrameCache(2**20, self.metrics)
        self.encoder = FormatEncoder(self.cache, self.metrics)

    def picture(self, smile: float = 0.0, *, fresh: bool = True) -> Picture:
        controls = FaceControls.of(mouthSmileLeft=smile)
        image = fake_frame(controls, SIZE)
        family = FrameFamily("portrait", "fake", SIZE, ImageFormat.JPEG, 90)
        return Picture(
            key=FrameKey(family, face_code(controls)),
            jpeg=encode(image, ImageFormat.JPEG, 90),
            width=SIZE[0],
            height=SIZE[1],
            controls=controls,
            weights={"neutral": 1.0},
            exact=True,
            cached=not fresh,
            degraded=None,
            _encoder=self.encoder,
        )

    def made(self, image_format: ImageFormat) -> int:
        return len(self.metrics.values(Metric.ENCODE_SECONDS, format=image_format.value))


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    bench = Bench()
    yield bench
    await bench.encoder.close(5.0)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Gate:
    """Holds up every encoding until it is opened."""
    gate = Gate()

    def slow(image: Image, image_format: ImageFormat, quality: int) -> bytes:
        gate()
        return encode(image, image_format, quality)

    monkeypatch.setattr(picture_module, "encode", slow)
    return gate


async def test_jpeg_is_there_already(bench: Bench) -> None:
    """It needs no thread and no time."""
    picture = bench.picture()
    assert await picture.encoded(ImageFormat.JPEG) is picture.jpeg
    assert bench.made(ImageFormat.JPEG) == 0


@pytest.mark.parametrize("image_format", [ImageFormat.WEBP, ImageFormat.PNG])
async def test_a_format_is_made_once_for_all_who_ask(
    bench: Bench, image_format: ImageFormat
) -> None:
    """Viewers that ask together, later, or for the same face in a later frame share it."""
    picture = bench.picture()
    together = await asyncio.gather(*(picture.encoded(image_format) for _ in range(20)))
    later = await picture.encoded(image_format)
    next_frame = await bench.picture(fresh=False).encoded(image_format)
    assert set(together) == {later} == {next_frame}
    assert bench.made(image_format) == 1
    assert await bench.picture(0.5).encoded(image_format) != later
    assert bench.made(image_format) == 2


async def test_one_face_is_one_picture_in_every_format(bench: Bench) -> None:
    """PNG shows exactly what the JPEG shows, whether the picture is fresh or from the cache."""
    picture = bench.picture(0.3)
    expected = encode(decode_jpeg(picture.jpeg), ImageFormat.PNG, 90)
    assert await picture.encoded(ImageFormat.PNG) == expected
    assert await bench.picture(0.3, fresh=False).encoded(ImageFormat.PNG) == expected


async def test_a_cached_picture_can_be_had_in_every_format(bench: Bench) -> None:
    """WebP is made of it as of a fresh one."""
    assert (await bench.picture(fresh=False).encoded(ImageFormat.WEBP)).startswith(b"RIFF")


async def test_slow_formats_have_a_thread_of_their_own(bench: Bench, gate: Gate) -> None:
    """The loop goes on while a WebP is in the making."""
    waiting = asyncio.create_task(bench.picture().encoded(ImageFormat.WEBP))
    await until(gate.entered.is_set)
    assert any(thread.name.startswith("encode-") for thread in threading.enumerate())
    assert await bench.picture(0.5).encoded(ImageFormat.JPEG)
    assert not waiting.done()
    gate.open()
    assert await waiting


async def test_one_viewer_leaving_does_not_rob_the_others(bench: Bench, gate: Gate) -> None:
    """Cancelling one of several who wait for an image leaves it to the others."""
    picture = bench.picture()
    tasks = [asyncio.create_task(picture.encoded(ImageFormat.PNG)) for _ in range(3)]
    await until(gate.entered.is_set)
    tasks[0].cancel()
    gate.open()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(results[0], asyncio.CancelledError)
    assert results[1] == results[2]
    assert bench.made(ImageFormat.PNG) == 1


async def test_what_a_format_cannot_hold_is_a_render_error(bench: Bench) -> None:
    """A caller meets one family of errors."""
    with pytest.raises(RenderError, match="webp"):
        await bench.encoder.encode(np.zeros((1, 16400, 3), np.uint8), ImageFormat.WEBP, 80)


async def test_a_closed_encoder_refuses(bench: Bench) -> None:
    """Asking after the end is an error, not a wait without end."""
    picture = bench.picture()
    assert await bench.encoder.close(5.0)
    with pytest.raises(JobDroppedError):
        await picture.encoded(ImageFormat.PNG)


async def test_other_images_are_encoded_too(bench: Bench) -> None:
    """Requests that come together do not take each other's place."""
    image = fake_frame(FaceControls(), SIZE)
    images = await asyncio.gather(
        *(bench.encoder.encode(image, ImageFormat.JPEG, quality) for quality in range(50, 60))
    )
    assert images == [encode(image, ImageFormat.JPEG, quality) for quality in range(50, 60)]


async def test_the_still_is_a_jpeg_of_the_wanted_size(bench: Bench) -> None:
    """The portrait itself can be shown at any size."""
    still = await bench.encoder.still(fake_portrait(size=80), SIZE, 90)
    assert decode_jpeg(still).shape == (48, 64, 3)

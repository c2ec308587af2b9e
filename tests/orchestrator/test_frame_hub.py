"""Frame fan-out: newest at once, encoded once, nobody waits for a slow format."""

import asyncio

from orchestrator.frame_hub import FrameHub
from pipeline.errors import RenderError
from pipeline.types import FrameInfo, ImageFormat


class RecordingSink:
    """Takes every frame it is offered."""

    def __init__(self, image_format: ImageFormat = ImageFormat.JPEG, kind: str = "websocket"):
        self.format = image_format
        self.kind = kind
        self.taken: list[tuple[int, bytes]] = []

    def offer(self, info: FrameInfo, image: bytes) -> bool:
        self.taken.append((info.seq, image))
        return True


class SlowPicture:
    """A picture whose other formats take as long as the test wants."""

    def __init__(self, seq: int, gate: asyncio.Event | None = None, fails: bool = False) -> None:
        self.jpeg = b"jpeg%d" % seq
        self._seq = seq
        self._gate = gate
        self._fails = fails
        self.encodes = 0

    async def encoded(self, image_format: ImageFormat) -> bytes:
        self.encodes += 1
        if self._gate is not None:
            await self._gate.wait()
        if self._fails:
            raise RenderError("no")
        return b"%s%d" % (image_format.value.encode(), self._seq)


def info(seq: int) -> FrameInfo:
    return FrameInfo(seq, seq / 30, 0.0, 8, 8, {"neutral": 1.0}, None, False, None)


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_newest_frame_at_once() -> None:
    """A sink gets the newest frame when it attaches, then every further one."""
    hub = FrameHub()
    await hub.publish(info(0), SlowPicture(0))
    sink = RecordingSink()
    hub.attach(sink)
    assert sink.taken == [(0, b"jpeg0")]
    await hub.publish(info(1), SlowPicture(1))
    assert sink.taken[-1] == (1, b"jpeg1")
    hub.detach(sink)
    hub.detach(sink)
    await hub.publish(info(2), SlowPicture(2))
    assert len(sink.taken) == 2
    assert len(hub) == 0


async def test_a_slow_format_delays_nobody_and_takes_the_newest() -> None:
    """While PNG is being encoded JPEG goes on, and PNG continues with the newest picture."""
    hub = FrameHub()
    jpeg, png = RecordingSink(), RecordingSink(ImageFormat.PNG)
    hub.attach(jpeg)
    hub.attach(png)
    gate = asyncio.Event()
    for seq in range(5):
        await hub.publish(info(seq), SlowPicture(seq, gate))
        await settle()
    assert [seq for seq, _ in jpeg.taken] == [0, 1, 2, 3, 4]
    assert png.taken == []
    gate.set()
    await settle()
    assert png.taken == [(0, b"png0"), (4, b"png4")]
    await hub.close()


async def test_one_encode_serves_all_viewers_of_a_format() -> None:
    """Three WebP viewers cost one encode, and a fourth that comes later none."""
    hub = FrameHub()
    sinks = [RecordingSink(ImageFormat.WEBP) for _ in range(3)]
    for sink in sinks:
        hub.attach(sink)
    picture = SlowPicture(0)
    await hub.publish(info(0), picture)
    await settle()
    late = RecordingSink(ImageFormat.WEBP)
    hub.attach(late)
    await settle()
    assert picture.encodes == 1
    assert [sink.taken for sink in [*sinks, late]] == [[(0, b"webp0")]] * 4
    await hub.close()


async def test_a_failed_encode_costs_one_frame() -> None:
    """A picture that cannot be encoded is passed over; the lane goes on."""
    hub = FrameHub()
    png = RecordingSink(ImageFormat.PNG)
    hub.attach(png)
    await hub.publish(info(0), SlowPicture(0, fails=True))
    await settle()
    await hub.publish(info(1), SlowPicture(1))
    await settle()
    assert png.taken == [(1, b"png1")]
    await hub.close()


async def test_many_sinks_let_the_loop_breathe() -> None:
    """Publishing to 250 sinks yields in between, and copes with sinks that leave meanwhile."""
    hub = FrameHub()
    sinks = [RecordingSink() for _ in range(250)]
    for sink in sinks:
        hub.attach(sink)
    publishing = asyncio.create_task(hub.publish(info(0), SlowPicture(0)))
    await asyncio.sleep(0)
    assert sinks[0].taken
    assert not sinks[-1].taken
    hub.detach(sinks[-1])
    await publishing
    assert sinks[-2].taken
    assert not sinks[-1].taken


async def test_counts_by_kind_and_change_notice() -> None:
    """The hub says how many of each kind there are and calls back on every change."""
    calls = []
    hub = FrameHub(lambda: calls.append(1))
    hub.attach(RecordingSink())
    hub.attach(bridge := RecordingSink(kind="media_bridge"))
    assert hub.count_by_kind() == {"websocket": 1, "media_bridge": 1}
    hub.detach(bridge)
    assert len(calls) == 3

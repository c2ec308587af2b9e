"""The renderers and the thread that owns them."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from functools import partial

import numpy as np
import pytest

from pipeline.errors import (
    BadFrameError,
    DeviceLostError,
    DropReason,
    JobDroppedError,
    OutOfMemoryError,
    RenderError,
)
from pipeline.frame_cache import face_code
from pipeline.ports import Metric
from pipeline.render_host import ONCE_WAITING, Drawing, RendererSource, RenderHost
from pipeline.thread_renderers import SPARE_PORTRAITS
from pipeline.types import FaceControls, Image, Portrait
from tests.fakes.clock import VirtualClock
from tests.fakes.metrics import RecordingMetrics
from tests.fakes.renderer import FakeRenderer, Gate, fails, fake_portrait, gives
from tests.fakes.waiting import until

SIZE = (64, 48)
NEUTRAL = FaceControls()


class House:
    """A host with renderers that the test can give orders to."""

    def __init__(self, *names: str, aside: bool = False, by_size: bool = False) -> None:
        self.metrics = RecordingMetrics()
        self.clock = VirtualClock()
        self.made: list[FakeRenderer] = []
        self.before_making: Callable[[FakeRenderer], None] = lambda renderer: None
        self.lost: list[str] = []
        self.host = RenderHost(
            [
                RendererSource(name, partial(self.make, name), aside, by_size=by_size)
                for name in names
            ],
            metrics=self.metrics,
            on_device_lost=self.lost.append,
            clock=self.clock.now,
        )

    def make(self, name: str) -> FakeRenderer:
        renderer = FakeRenderer(name)
        self.before_making(renderer)
        self.made.append(renderer)
        return renderer

    async def draw(self, portrait: Portrait, name: str = "mesh") -> Drawing:
        job = partial(self.host.draw, name, portrait, NEUTRAL, SIZE)
        return await self.host.finish(name, job, "test")


@pytest.fixture
async def house() -> AsyncIterator[House]:
    house = House("mesh")
    yield house
    await house.host.close(5.0)


async def test_a_renderer_lives_in_one_thread() -> None:
    """It is made, used and closed by the render thread, and by no other."""
    house = House("mesh")
    assert house.host.device("mesh") is None
    await house.draw(fake_portrait())
    (renderer,) = house.made
    assert house.host.device("mesh") == "cpu"
    assert await house.host.close(5.0)
    assert renderer.closed == 1
    assert len(renderer.threads) == 1
    assert threading.get_ident() not in renderer.threads


async def test_a_portrait_is_prepared_once(house: House) -> None:
    """However many frames are drawn of it."""
    for _ in range(3):
        drawing = await house.draw(fake_portrait())
    assert drawing.image.shape == (48, 64, 3)
    assert drawing.render_s >= 0.0
    assert house.made[0].prepared == ["key-of-ada"]
    assert len(house.metrics.values(Metric.RENDER_SECONDS, renderer="mesh")) == 3


async def test_few_portraits_are_kept_prepared(house: House) -> None:
    """Those on stage stay; of the others, those that were used last."""
    star = fake_portrait("star")
    house.host.keep("main", star)
    await house.draw(star)
    extras = [fake_portrait(f"extra-{number}") for number in range(SPARE_PORTRAITS + 2)]
    for extra in extras:
        await house.draw(extra)
    prepared = house.made[0].prepared
    assert len(prepared) == 1 + len(extras)
    for portrait in (star, *extras[2:]):
        await house.draw(portrait)
    assert len(prepared) == 1 + len(extras)
    await house.draw(extras[0])
    assert prepared[-1] == extras[0].key

    house.host.keep("main", None)
    for extra in extras:
        await house.draw(extra)
    await house.draw(star)
    assert prepared.count(star.key) == 2


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError("12 GiB"), OutOfMemoryError),
        (OutOfMemoryError("12 GiB"), OutOfMemoryError),
        (ValueError("bad weights"), RenderError),
        (DeviceLostError("gone"), DeviceLostError),
    ],
)
async def test_whatever_a_renderer_raises_is_a_render_error(
    house: House, error: Exception, expected: type[RenderError]
) -> None:
    """Callers need to know one family of errors; the cause is kept."""
    house.before_making = lambda renderer: renderer.then(fails(error))
    with pytest.raises(expected) as caught:
        await house.draw(fake_portrait())
    assert caught.value is error or caught.value.__cause__ is error


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((64, 48, 3), np.uint8),
        np.zeros((48, 64), np.uint8),
        np.zeros((48, 64, 3), np.float32),
        "picture",
        None,
    ],
)
async def test_what_is_no_frame_is_refused(house: House, image: Image) -> None:
    """A wrong shape, type or object is an error that says what came and what was wanted."""
    house.before_making = lambda renderer: setattr(
        renderer, "render", lambda prepared, controls, size_px: image
    )
    with pytest.raises(BadFrameError, match="instead of"):
        await house.draw(fake_portrait())


async def test_a_renderer_that_cannot_be_made_is_tried_again(house: House) -> None:
    """A failure to load is a render error; the next job loads it afresh."""

    def trouble(renderer: FakeRenderer) -> None:
        raise OSError("no weights")

    house.before_making = trouble
    with pytest.raises(RenderError, match="no weights"):
        await house.draw(fake_portrait())
    house.before_making = lambda renderer: None
    assert (await house.draw(fake_portrait())).image.any()


async def test_one_renderer_failing_to_close_does_not_spare_the_others() -> None:
    """Every renderer is closed, and the thread ends."""
    house = House("liveportrait", "mesh")

    def trouble() -> None:
        raise RuntimeError("no")

    await house.draw(fake_portrait(), "liveportrait")
    await house.draw(fake_portrait(), "mesh")
    house.made[0].close = trouble  # type: ignore[method-assign]
    assert await house.host.close(5.0)
    assert house.made[1].closed == 1


# --- hangs --------------------------------------------------------------------------------


async def test_a_hanging_render_gets_a_new_thread_and_new_renderers(house: House) -> None:
    """The stuck thread is left behind; it closes what it owns when it comes back."""
    gate = Gate()
    house.before_making = lambda renderer: renderer.then(gate) if not house.made else None
    hanging = asyncio.create_task(house.draw(fake_portrait()))
    await until(gate.entered.is_set)
    house.clock.now_s += 4.9
    house.host.rescue()
    assert not hanging.done()
    house.clock.now_s += 0.2
    with pytest.raises(JobDroppedError):
        await hanging
    assert (await house.draw(fake_portrait())).image.any()
    old, new = house.made
    assert old.threads.isdisjoint(new.threads)
    assert old.closed == 0
    gate.open()
    await until(lambda: old.closed == 1)
    assert new.closed == 0
    assert len(old.threads) == 1


async def test_preparing_may_take_longer_than_a_frame(house: House) -> None:
    """The limit of a frame does not apply to loading a model and preparing a portrait."""
    gate = Gate()
    house.before_making = lambda renderer: setattr(renderer, "on_prepare", gate)
    drawing = asyncio.create_task(house.draw(fake_portrait()))
    await until(gate.entered.is_set)
    house.clock.now_s += 30.0
    house.host.rescue()
    gate.open()
    await drawing
    assert len(house.made) == 1


async def test_too_many_hangs_need_a_new_process(house: House) -> None:
    """When no further thread can be left behind, the application is told, once."""
    gates: list[Gate] = []

    def hang(renderer: FakeRenderer) -> None:
        gates.append(Gate())
        renderer.always = gates[-1]

    house.before_making = hang
    tasks = []
    for number in range(3):
        tasks.append(asyncio.create_task(house.draw(fake_portrait())))
        await until(lambda number=number: len(gates) > number)  # type: ignore[misc]
        await until(gates[number].entered.is_set)
        house.clock.now_s += 6.0
        house.host.rescue()
        house.host.rescue()
    assert house.lost == ["too many renders hang"]
    for gate in gates:
        gate.open()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_closing_waits_for_the_frame_in_the_making() -> None:
    """The renderer is not closed under a render."""
    house, gate = House("mesh"), Gate()
    house.before_making = lambda renderer: renderer.then(gate)
    drawing = asyncio.create_task(house.draw(fake_portrait()))
    await until(gate.entered.is_set)
    closing = asyncio.create_task(house.host.close(5.0))
    await asyncio.sleep(0.01)
    assert house.made[0].closed == 0
    gate.open()
    assert await closing
    assert (await drawing).image.any()
    assert house.made[0].closed == 1


# --- preparing aside ----------------------------------------------------------------------


@pytest.fixture
async def aside() -> AsyncIterator[House]:
    """A house whose renderer prepares portraits in a second thread."""
    house = House("mesh", aside=True)
    yield house
    await house.host.close(5.0)


async def test_frames_are_drawn_while_another_portrait_is_prepared(aside: House) -> None:
    """Where a renderer allows it, preparing does not hold up the frames on stage."""
    await aside.host.prepare("mesh", fake_portrait("star"), "test")
    gate = Gate()
    for renderer in aside.made:
        renderer.on_prepare = gate
    preparing = asyncio.create_task(aside.host.prepare("mesh", fake_portrait("next"), "switch"))
    await until(gate.entered.is_set)
    assert (await aside.draw(fake_portrait("star"))).image.any()
    assert not preparing.done()
    gate.open()
    await preparing
    assert (await aside.draw(fake_portrait("next"))).image.any()
    assert [renderer.prepared for renderer in aside.made] == [[], ["key-of-star", "key-of-next"]]


async def test_each_thread_has_its_own_instance(aside: House) -> None:
    """The one that prepares aside is another, closed by its own thread."""
    await aside.host.prepare("mesh", fake_portrait(), "test")
    await aside.draw(fake_portrait())
    drawing, preparing = aside.made
    assert drawing.threads.isdisjoint(preparing.threads)
    assert await aside.host.close(5.0)
    assert (drawing.closed, preparing.closed) == (1, 1)
    assert len(drawing.threads) == len(preparing.threads) == 1


async def test_what_is_prepared_is_not_prepared_again_aside(aside: House) -> None:
    """Coming back to a portrait costs nothing."""
    for _ in range(3):
        await aside.host.prepare("mesh", fake_portrait(), "test")
    assert aside.made[1].prepared == ["key-of-ada"]


async def test_another_size_is_made_ready_aside_too() -> None:
    """A stage of another size holds nobody up: its first frame is drawn in the second thread."""
    house = House("mesh", aside=True, by_size=True)
    try:
        star, small = fake_portrait("star"), (32, 24)
        house.host.keep("main", star, SIZE)
        house.host.keep("lobby", star, small)
        await house.host.prepare("mesh", star, "main", SIZE)
        gate = Gate()
        house.made[1].always = gate
        preparing = asyncio.create_task(house.host.prepare("mesh", star, "lobby", small))
        await until(gate.entered.is_set)
        assert (await house.draw(star)).image.any()
        gate.open()
        await preparing
        for _ in range(2):
            await house.host.draw_once(star, NEUTRAL, small)
            await house.draw(star)
        drawing, aside = house.made
        assert aside.prepared == [star.key] * 2
        assert drawing.prepared == []
    finally:
        await house.host.close(5.0)


async def test_failing_aside_is_a_render_error(aside: House) -> None:
    """It reaches the caller like any other."""
    await aside.host.prepare("mesh", fake_portrait(), "test")
    aside.made[1].prepare_error = ValueError("no mouth")
    with pytest.raises(RenderError, match="no mouth"):
        await aside.host.prepare("mesh", fake_portrait("bob"), "test")


async def test_a_hang_aside_leaves_the_frames_alone(aside: House) -> None:
    """The stuck thread is replaced; the render thread and its renderer stay."""
    await aside.host.prepare("mesh", fake_portrait("star"), "test")
    gate = Gate()
    aside.made[1].on_prepare = gate
    preparing = asyncio.create_task(aside.host.prepare("mesh", fake_portrait("next"), "switch"))
    await until(gate.entered.is_set)
    aside.clock.now_s += 61.0
    aside.host.rescue()
    with pytest.raises(JobDroppedError):
        await preparing
    await aside.host.prepare("mesh", fake_portrait("next"), "switch")
    await aside.draw(fake_portrait("star"))
    assert len(aside.made) == 3
    gate.open()
    await until(lambda: aside.made[1].closed == 1)


# --- pictures that belong to no stage -----------------------------------------------------


async def test_a_single_picture_is_drawn_with_quantised_controls(house: House) -> None:
    """It shows the very face that a stage would show."""
    controls = FaceControls.of(mouthSmileLeft=0.333)
    drawing = await house.host.draw_once(fake_portrait(), controls, SIZE)
    assert drawing.image.shape == (48, 64, 3)
    assert house.made[0].rendered == [("key-of-ada", face_code(controls))]


async def test_a_single_picture_falls_back_to_the_next_renderer() -> None:
    """If the wanted renderer fails, the next draws it; a lost device is reported once."""
    house = House("liveportrait", "mesh")

    def trouble(renderer: FakeRenderer) -> None:
        if renderer.name == "liveportrait":
            renderer.always = fails(DeviceLostError("illegal address"))

    house.before_making = trouble
    for _ in range(2):
        assert (await house.host.draw_once(fake_portrait(), NEUTRAL, SIZE)).image.any()
    assert house.lost == ["illegal address"]
    assert await house.host.close(5.0)


async def test_a_single_picture_that_nobody_can_draw_is_an_error() -> None:
    """The wanted renderer's error is the one that is told."""
    house = House("liveportrait", "mesh")

    def trouble(renderer: FakeRenderer) -> None:
        renderer.always = fails(RenderError(f"{renderer.name} cannot"))

    house.before_making = trouble
    with pytest.raises(RenderError, match="liveportrait cannot"):
        await house.host.draw_once(fake_portrait(), NEUTRAL, SIZE)
    assert await house.host.close(5.0)


async def test_many_single_pictures_wait_in_line(house: House) -> None:
    """One at a time; beyond so many that wait, a request is turned away."""
    gate = Gate()
    house.before_making = lambda renderer: renderer.then(gate)
    tasks = [
        asyncio.create_task(house.host.draw_once(fake_portrait(), NEUTRAL, SIZE))
        for _ in range(ONCE_WAITING)
    ]
    await until(gate.entered.is_set)
    with pytest.raises(JobDroppedError) as caught:
        await house.host.draw_once(fake_portrait(), NEUTRAL, SIZE)
    assert caught.value.reason is DropReason.FULL
    for task in tasks[1:-1]:
        task.cancel()
    gate.open()
    assert (await tasks[0]).image.any()
    assert (await tasks[-1]).image.any()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_wrong_picture_is_measured_but_not_given(house: House) -> None:
    """An image of another size never leaves the host."""
    house.before_making = lambda renderer: renderer.then(gives(np.zeros((8, 8, 3), np.uint8)))
    with pytest.raises(BadFrameError, match=r"\(8, 8, 3\)"):
        await house.draw(fake_portrait())
    assert (await house.draw(fake_portrait())).image.shape == (48, 64, 3)


def test_a_host_needs_a_renderer() -> None:
    """No renderer at all is a mistake of the caller."""
    with pytest.raises(ValueError, match="at least one"):
        RenderHost([], metrics=RecordingMetrics())

"""A renderer that loads and draws in the background while the next one serves."""

import asyncio
import itertools
import threading
from collections.abc import AsyncIterator

import numpy as np
import pytest

from pipeline.crossfade import FADE_S
from pipeline.errors import DeviceLostError, OutOfMemoryError, RenderError
from pipeline.picture import Picture
from pipeline.types import ARKIT_INDEX, FaceControls, Image
from tests.fakes.renderer import FakeRenderer, Gate, fails, fake_portrait, takes
from tests.fakes.theatre import AHEAD, HASTE_S, Faces, Theatre, brightness, smile
from tests.fakes.waiting import until

NAME = "liveportrait"
_SMILE = ARKIT_INDEX["mouthSmileLeft"]
BRIGHT = 60  # of the background renderer's pictures beside the other's
LATER: Faces = [
    (smile(share), {"neutral": 1.0 - share, "happy": share}) for share in (0.2, 0.4, 0.6)
]


def house(device: str = "cuda:0", release_after_s: float | None = None) -> Theatre:
    """LivePortrait in the background, the mesh renderer below it."""
    return Theatre(NAME, "mesh", background=(NAME,), device=device, release_after_s=release_after_s)


@pytest.fixture
async def theatre() -> AsyncIterator[Theatre]:
    theatre = house()
    yield theatre
    await theatre.close()


@pytest.fixture
async def slow() -> AsyncIterator[Theatre]:
    """On a processor, where every frame of the background renderer comes too late."""
    theatre = house("cpu")

    def trouble(renderer: FakeRenderer) -> None:
        if renderer.name == NAME:
            renderer.always = takes(2.0 * HASTE_S)

    theatre.on_make = trouble
    yield theatre
    await theatre.close()


async def show(theatre: Theatre, name: str = "ada") -> None:
    await theatre.ladder.show(fake_portrait(name), AHEAD, LATER)


async def taken_over(theatre: Theatre) -> Picture:
    """Look at pictures until one is the background renderer's, and the fade is over."""
    while True:
        picture = await theatre.picture(0.1)
        if picture.key.family.renderer == NAME and theatre.ladder.degraded is None:
            return picture
        theatre.clock.now_s += FADE_S
        await asyncio.sleep(0.002)


async def all_drawn(theatre: Theatre) -> None:
    """Let it take over and draw every face ahead, so that orders are for what the test asks."""
    await taken_over(theatre)
    while not {0, 20, 40, 60, 80} <= set(drawn(theatre)):
        await theatre.picture(0.1)
        await asyncio.sleep(0.001)
    await theatre.idle()


def fake_frame_of(grey: int) -> Image:
    return np.full((48, 64, 3), grey, np.uint8)


def drawn(theatre: Theatre, name: str = NAME) -> list[int]:
    """The smiles in percent that this renderer has drawn, in order."""
    return [
        round(100 * code[_SMILE] / 128) for made in theatre.made if made.name == name
        for _, code in made.rendered
    ]  # fmt: skip


# --- loading ------------------------------------------------------------------------------


async def test_nobody_waits_for_it_to_load(theatre: Theatre) -> None:
    """The portrait is on stage and drawn by the next renderer while the wanted one loads."""
    gate = Gate()

    def load(renderer: FakeRenderer) -> None:
        if renderer.name == NAME:
            gate()

    theatre.on_make = load
    async with asyncio.timeout(5.0):
        await show(theatre)
        picture = await theatre.picture(0.5)
    assert (picture.key.family.renderer, picture.exact) == ("mesh", True)
    assert picture.degraded == f"{NAME}: loading"
    assert theatre.ladder.degraded == f"{NAME}: loading"
    assert theatre.ladder.renderer == "mesh"
    await until(gate.entered.is_set)
    gate.open()
    picture = await taken_over(theatre)
    assert theatre.ladder.renderer == NAME
    assert theatre.ladder.device == "cuda:0"
    assert theatre.ladder.degraded is None
    assert theatre.rung_metrics() == {NAME}


async def test_it_takes_over_with_a_cross_fade(theatre: Theatre) -> None:
    """From one renderer's picture to the other's in a quarter of a second, at no frame a jump."""

    def lighter(renderer: FakeRenderer) -> None:
        if renderer.name == NAME:
            renderer.always = lambda: fake_frame_of(brightness_of_mesh + BRIGHT)

    brightness_of_mesh = 56
    theatre.on_make = lighter
    await show(theatre)
    first = await theatre.picture(0.1)
    assert brightness(first) == pytest.approx(brightness_of_mesh, abs=2)
    await until(lambda: theatre.ladder.degraded is None)
    seen = []
    for _ in range(10):
        theatre.clock.now_s += FADE_S / 8
        picture = await theatre.picture(0.1)
        assert picture.exact
        seen.append(brightness(picture))
    assert seen[0] == pytest.approx(brightness_of_mesh + BRIGHT / 8, abs=2)
    assert seen == sorted(seen)
    assert seen[-1] == pytest.approx(brightness_of_mesh + BRIGHT, abs=2)
    assert max(b - a for a, b in itertools.pairwise(seen)) < BRIGHT / 4


async def test_its_coming_is_told(theatre: Theatre) -> None:
    """A stage at rest hears of it, so that it can show the new renderer's face."""
    told = []
    theatre.ladder.recovered = lambda: told.append(theatre.ladder.degraded)
    await show(theatre)
    await theatre.picture(0.1)
    await until(lambda: bool(told))
    assert told == [None]


async def test_a_failure_to_load_is_said_and_tried_again(theatre: Theatre) -> None:
    """The reason is visible, the next renderer serves, and the weights may come back."""

    def trouble(renderer: FakeRenderer) -> None:
        if renderer.name == NAME:
            raise RenderError("base_models/warping_module.pth: no such file")

    theatre.on_make = trouble
    await show(theatre)
    await theatre.picture(0.1)
    await until(lambda: "no such file" in (theatre.ladder.degraded or ""))
    assert (await theatre.picture(0.2)).key.family.renderer == "mesh"
    theatre.on_make = lambda renderer: None
    theatre.clock.now_s += 1.0
    await taken_over(theatre)


# --- trouble while it serves --------------------------------------------------------------


@pytest.mark.parametrize("error", [OutOfMemoryError("2 GiB"), ValueError("NaN"), MemoryError()])
async def test_an_error_goes_down_the_ladder_and_recovers(
    theatre: Theatre, error: Exception
) -> None:
    """One bad frame costs itself: the next renderer draws it; then it is probed and back."""
    await show(theatre)
    await all_drawn(theatre)
    theatre.renderer(NAME).then(fails(error))
    picture = await theatre.picture(0.33)
    assert (picture.key.family.renderer.startswith("mesh"), picture.exact) == (True, True)
    assert picture.degraded is not None
    assert NAME in picture.degraded
    theatre.clock.now_s += 1.0
    await taken_over(theatre)


async def test_a_lost_device_is_told_and_not_tried_again(theatre: Theatre) -> None:
    """Only a new process helps; until it comes, the next renderer serves."""
    await show(theatre)
    await all_drawn(theatre)
    before = len(drawn(theatre))
    theatre.renderer(NAME).then(fails(DeviceLostError("illegal address")))
    assert (await theatre.picture(0.33)).key.family.renderer.startswith("mesh")
    assert theatre.lost == ["illegal address"]
    for _ in range(5):
        theatre.clock.now_s += 60.0
        await theatre.picture(0.34)
    assert len(drawn(theatre)) == before + 1


async def test_a_hang_keeps_nobody_waiting(theatre: Theatre) -> None:
    """The next renderer draws in a thread of its own while the stuck one is replaced."""
    await show(theatre)
    await all_drawn(theatre)
    gate = Gate()
    theatre.renderer(NAME).then(gate)
    with theatre.haste():
        picture = await theatre.picture(0.33)
        assert picture.key.family.renderer.startswith("mesh")
        theatre.clock.now_s += 61.0
        for _ in range(3):
            picture = await theatre.picture(0.34)
        assert picture.exact
    theatre.clock.now_s += 1.0
    await taken_over(theatre)
    assert sum(made.name == NAME for made in theatre.made) == 2
    gate.open()


async def test_a_hiccup_is_bridged_by_its_own_nearest_face(theatre: Theatre) -> None:
    """One late frame does not show another renderer's style if a near face is cached."""
    await show(theatre)
    await all_drawn(theatre)
    gate = Gate()
    theatre.renderer(NAME).then(gate)
    with theatre.haste():
        steps = [(smile(0.25), {"happy": 0.25, "neutral": 0.75})]
        picture = await theatre.ladder.picture(smile(0.27), {"happy": 0.27}, lambda: steps)
    assert picture.key.family.renderer == NAME
    assert picture.degraded == f"{NAME}: no frame within {HASTE_S * 1000:.0f} ms"
    gate.open()


# --- too slow for the stream --------------------------------------------------------------


async def test_a_slow_one_draws_ahead_and_serves_from_the_cache(slow: Theatre) -> None:
    """No picture waits for it; its faces are drawn one by one, and shown as soon as they are."""
    with slow.haste():
        await show(slow)
        await slow.picture(0.0)
        await until(lambda: slow.ladder.degraded is None)
        assert slow.ladder.rung in ("mesh", NAME)
        steps = [(smile(0.4), {"happy": 0.4, "neutral": 0.6})]
        wanted = {"happy": 0.41, "neutral": 0.59}
        async with asyncio.timeout(10.0):
            while True:
                picture = await slow.ladder.picture(smile(0.41), wanted, lambda: steps)
                if picture.key.family.renderer == NAME and picture.exact:
                    break
                slow.clock.now_s += FADE_S
                await asyncio.sleep(0.005)
    assert picture.cached
    assert picture.weights == {"happy": 0.4, "neutral": 0.6}
    assert picture.degraded is None


async def test_what_comes_next_is_drawn_first(slow: Theatre) -> None:
    """The faces that the running cues pass through come before those that may be needed once."""
    slow.ladder.upcoming = lambda: [(smile(0.9), {"happy": 0.9}), (smile(1.0), {"happy": 1.0})]
    with slow.haste():
        await show(slow)
        await slow.picture(0.0)
        await until(lambda: len(drawn(slow)) >= 6)
    assert drawn(slow)[:6] == [0, 91, 100, 80, 20, 41] or drawn(slow)[:6] == [
        0,
        90,
        100,
        80,
        20,
        40,
    ]


async def test_everything_is_drawn_once_and_stays(slow: Theatre) -> None:
    """When all faces are there it rests, and other frames do not push them out."""
    with slow.haste():
        await show(slow)
        await slow.picture(0.0)
        await until(lambda: len(drawn(slow)) == 5)
        for number in range(200):
            await slow.picture(number / 200, happy=0.0)
        await asyncio.sleep(0.1)
    assert len(drawn(slow)) == 5
    assert slow.cache.stats.pinned >= 5


async def test_a_face_that_is_not_there_yet_is_drawn_by_the_next(slow: Theatre) -> None:
    """It says so, and it reacts at once all the same."""
    with slow.haste():
        await show(slow)
        await slow.picture(0.0)
        await until(lambda: slow.ladder.degraded is None)
        steps = [(smile(1.0), {"happy": 1.0})]
        picture = await slow.ladder.picture(smile(1.0), {"happy": 1.0}, lambda: steps)
    assert (picture.key.family.renderer.split()[0], picture.exact) == ("mesh", True)
    assert picture.degraded == f"{NAME}: this face is not drawn ahead yet"


async def test_another_portrait_does_not_wait_for_it(slow: Theatre) -> None:
    """The new portrait is shown at once, its faces are drawn ahead, the old one's no longer."""
    with slow.haste():
        await show(slow)
        await slow.picture(0.0)
        await until(lambda: len(drawn(slow)) >= 2)
        await show(slow, "bob")
        picture = await slow.picture(0.0)
        assert picture.portrait == "key-of-bob"
        await until(lambda: sum("bob" in k for k, _ in slow.renderer(NAME).rendered) == 5)
    portraits = [key for key, _ in slow.renderer(NAME).rendered]
    assert "key-of-ada" not in portraits[portraits.index("key-of-bob") :]


async def test_one_that_becomes_quick_serves_the_stream(slow: Theatre) -> None:
    """A device that was busy for a while is not taken for slow for ever."""
    with slow.haste():
        await show(slow)
        await slow.picture(0.0)
        await until(lambda: len(drawn(slow)) >= 2)
        slow.renderer(NAME).always = None
        await until(lambda: not slow.ladder._rungs[0].ahead)
        picture = await taken_over(slow)
    assert picture.exact


# --- letting it go ------------------------------------------------------------------------


async def test_it_is_let_go_and_comes_back() -> None:
    """After so long without anybody it frees its memory; the next picture brings it back."""
    theatre = house(release_after_s=60.0)
    await show(theatre)
    await taken_over(theatre)
    theatre.clock.now_s += 59.0
    theatre.host.release_idle()
    assert theatre.host.is_ready(NAME)
    theatre.clock.now_s += 2.0
    theatre.host.release_idle()
    assert not theatre.host.is_ready(NAME)
    first = theatre.renderer(NAME)
    await until(lambda: first.closed == 1)
    theatre.ladder.probe()
    await theatre.idle()
    assert (theatre.renderer(NAME), theatre.ladder.degraded) == (first, None)
    picture = await theatre.picture(0.77)
    assert picture.key.family.renderer.startswith("mesh")
    assert picture.degraded == f"{NAME}: loading"
    await taken_over(theatre)
    assert theatre.renderer(NAME) is not first
    await theatre.close()


async def test_a_single_picture_does_not_wait_for_it_to_load(theatre: Theatre) -> None:
    """Whoever asks for one picture gets it from what is there."""
    gate = Gate()
    theatre.on_make = lambda renderer: gate() if renderer.name == NAME else None  # type: ignore[func-returns-value]
    await show(theatre)
    await theatre.picture(0.1)
    await until(gate.entered.is_set)
    async with asyncio.timeout(5.0):
        drawing = await theatre.host.draw_once(fake_portrait(), FaceControls(), (64, 48))
    assert drawing.image.shape == (48, 64, 3)
    gate.open()
    await taken_over(theatre)
    before = len(drawn(theatre))
    await theatre.host.draw_once(fake_portrait(), smile(0.93), (64, 48))
    assert len(drawn(theatre)) > before


async def test_each_renderer_has_a_thread_of_its_own(theatre: Theatre) -> None:
    """And the event loop's is none of them."""
    await show(theatre)
    await taken_over(theatre)
    ours, mesh = theatre.renderer(NAME).threads, theatre.renderer("mesh").threads
    assert len(ours) == len(mesh) == 1
    assert ours.isdisjoint(mesh)
    assert threading.get_ident() not in ours | mesh

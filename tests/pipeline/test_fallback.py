"""Always something to show, and honest about what it is."""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from pipeline.encoding import decode_jpeg
from pipeline.errors import DeviceLostError, OutOfMemoryError, RenderError
from pipeline.frame_cache import face_code, quantise
from pipeline.picture import Picture
from pipeline.ports import Metric
from pipeline.types import FaceControls, ImageFormat, Portrait
from tests.fakes.renderer import FakeRenderer, Gate, Step, fails, fake_portrait, gives, takes
from tests.fakes.theatre import AHEAD, HASTE_S, SIZE, Theatre, brightness, smile
from tests.fakes.waiting import until


@pytest.fixture
async def theatre() -> AsyncIterator[Theatre]:
    theatre = Theatre()
    await theatre.show()
    yield theatre
    await theatre.close()


# --- when all is well ---------------------------------------------------------------------


async def test_the_wanted_face_is_drawn(theatre: Theatre) -> None:
    """A new face comes from the renderer, exact, with the weights it was asked with."""
    picture = await theatre.picture(0.5, happy=0.5, neutral=0.5)
    assert (picture.exact, picture.cached, picture.degraded) == (True, False, None)
    assert brightness(picture) == pytest.approx(120, abs=2)
    assert (picture.width, picture.height) == SIZE
    assert picture.weights == {"happy": 0.5, "neutral": 0.5}
    assert picture.portrait == fake_portrait().key
    assert theatre.ladder.degraded is None
    assert theatre.ladder.rung == "mesh"
    assert theatre.rung_metrics() == {"mesh"}


async def test_the_same_face_again_is_not_drawn_again(theatre: Theatre) -> None:
    """A cached frame is exact, costs no render, and says that it is cached."""
    first = await theatre.picture(0.5)
    drawn = len(theatre.renderer().rendered)
    again = await theatre.picture(0.501)
    assert (again.exact, again.cached, again.degraded) == (True, True, None)
    assert again.jpeg is first.jpeg
    assert len(theatre.renderer().rendered) == drawn
    assert theatre.ladder.cache_stats().hits == 1


async def test_what_is_drawn_is_what_is_reported(theatre: Theatre) -> None:
    """The renderer gets the quantised controls, and the picture reports those."""
    wanted = smile(0.3333)
    picture = await theatre.ladder.picture(wanted, {})
    assert picture.controls.as_mapping() == quantise(wanted).as_mapping()
    assert theatre.renderer().rendered[-1][1] == face_code(wanted)


async def test_ahead_is_drawn_before_the_curtain(theatre: Theatre) -> None:
    """Neutral and the peaks are cached, pinned, and need no render when their time comes."""
    assert theatre.cache.stats.pinned == len(AHEAD)
    for controls, weights in AHEAD:
        picture = await theatre.ladder.picture(controls, weights)
        assert (picture.exact, picture.cached) == (True, True)
    assert len(theatre.renderer().rendered) == len(AHEAD)


async def test_pinned_frames_outlive_a_flood_of_faces() -> None:
    """However many faces pass through a small cache, neutral and peaks stay."""
    theatre = Theatre(cache_bytes=20_000)
    await theatre.show()
    for step in range(100):
        await theatre.picture(step / 100)
    drawn = len(theatre.renderer().rendered)
    for controls, weights in AHEAD:
        assert (await theatre.ladder.picture(controls, weights)).cached
    assert len(theatre.renderer().rendered) == drawn
    assert theatre.cache.stats.bytes <= 20_000
    await theatre.close()


async def test_pictures_need_a_portrait() -> None:
    """Asking before anything is shown is a mistake of the caller."""
    theatre = Theatre()
    with pytest.raises(RuntimeError, match="show"):
        await theatre.picture(0.5)
    await theatre.close()


async def test_figures_are_kept(theatre: Theatre) -> None:
    """Render seconds by renderer and encode seconds by format."""
    await theatre.picture(0.5)
    drawn = len(theatre.renderer().rendered)
    assert len(theatre.metrics.values(Metric.RENDER_SECONDS, renderer="mesh")) == drawn
    still = 1
    assert len(theatre.metrics.values(Metric.ENCODE_SECONDS, format="jpeg")) == drawn + still


# --- renders that raise -------------------------------------------------------------------

TROUBLE: list[tuple[Step, str, str]] = [
    (fails(RenderError("no lips")), "mesh: no lips", "error"),
    (fails(ValueError("odd")), "mesh: ValueError: odd", "error"),
    (
        fails(OutOfMemoryError("CUDA out of memory, tried to")),
        "mesh: out of memory",
        "out_of_memory",
    ),
    (fails(MemoryError()), "mesh: out of memory", "out_of_memory"),
    (
        gives(np.zeros((8, 8, 3), np.uint8)),
        "mesh: drew (8, 8, 3) uint8 instead of (48, 64, 3) uint8",
        "bad_frame",
    ),
    (
        gives(np.zeros((48, 64, 3), np.float32)),
        "mesh: drew (48, 64, 3) float32 instead of (48, 64, 3) uint8",
        "bad_frame",
    ),
]


@pytest.mark.parametrize(("step", "reason", "kind"), TROUBLE)
async def test_a_failed_render_shows_the_nearest_frame_at_once(
    theatre: Theatre, step: Step, reason: str, kind: str
) -> None:
    """The stream goes on with the nearest cached face, reported as what it is, and says why."""
    theatre.renderer().always = step
    picture = await theatre.picture(0.6)
    assert picture.degraded == reason
    assert (picture.exact, picture.cached) == (False, True)
    assert brightness(picture) == pytest.approx(40 + 160 * 0.8, abs=2)
    assert picture.weights == {"neutral": 0.2, "happy": 0.8}
    assert picture.controls["mouthSmileLeft"] == pytest.approx(0.8, abs=0.01)
    assert theatre.ladder.degraded == reason
    assert theatre.ladder.rung == "cached"
    assert theatre.rung_metrics() == {"cached"}
    assert theatre.failures(renderer="mesh", reason=kind) == 1


async def test_reasons_are_short_and_on_one_line(theatre: Theatre) -> None:
    """Whatever an error says, the frame header stays small."""
    theatre.renderer().always = fails(RenderError("line\n" * 1000))
    picture = await theatre.picture(0.6)
    assert picture.degraded is not None
    assert len(picture.degraded) < 400
    assert "\n" not in picture.degraded


async def test_a_failing_renderer_is_left_alone_between_tries(theatre: Theatre) -> None:
    """It is tried after 0.5 s, 1 s, 2 s and so on up to 30 s, in the background."""
    renderer = theatre.renderer()
    renderer.always = fails(RenderError("no"))
    await theatre.picture(0.6)
    tries, drawn = [], len(renderer.rendered)
    started_s = theatre.clock.now_s
    while theatre.clock.now_s < started_s + 100.0:
        theatre.clock.now_s += 0.25
        await theatre.picture(0.6)
        await theatre.idle()
        if len(renderer.rendered) > drawn:
            drawn = len(renderer.rendered)
            tries.append(theatre.clock.now_s)
    gaps = [later - earlier for earlier, later in itertools.pairwise([started_s, *tries])]
    assert gaps == pytest.approx([0.5, 1, 2, 4, 8, 16, 30, 30], abs=0.3)


async def test_it_comes_back_by_itself(theatre: Theatre) -> None:
    """A renderer that fails some times and then works serves again, without being told."""
    renderer = theatre.renderer()
    renderer.then(*[fails(RenderError("no"))] * 3)
    assert (await theatre.picture(0.6)).degraded == "mesh: no"
    for _ in range(2):
        theatre.clock.now_s += 31.0
        assert (await theatre.picture(0.6)).degraded == "mesh: no"
        await theatre.idle()
    theatre.clock.now_s += 31.0
    await theatre.picture(0.6)
    await theatre.recovered()
    assert theatre.ladder.rung == "mesh"
    assert theatre.rung_metrics() == {"mesh"}
    picture = await theatre.picture(0.61)
    assert (picture.exact, picture.cached, picture.degraded) == (True, False, None)


async def test_recovery_needs_nobody_to_watch(theatre: Theatre) -> None:
    """A probe can be asked for while no pictures are drawn."""
    theatre.renderer().then(fails(RenderError("no")))
    await theatre.picture(0.6)
    theatre.ladder.probe()
    await theatre.idle()
    assert theatre.ladder.degraded == "mesh: no"
    theatre.clock.now_s += 0.6
    theatre.ladder.probe()
    await theatre.recovered()


async def test_each_change_is_logged_once(theatre: Theatre) -> None:
    """One line when it steps down, one when it is back, none per frame or probe."""
    theatre.renderer().then(*[fails(RenderError("no"))] * 4)
    with capture_logs() as lines:
        for _ in range(60):
            await theatre.picture(0.6)
            await theatre.idle()
            theatre.clock.now_s += 0.25
        await theatre.recovered()
    assert [(line["event"], line["rung"]) for line in lines] == [
        ("renderer_degraded", "cached"),
        ("renderer_recovered", "mesh"),
    ]
    assert lines[0]["reason"] == "mesh: no"
    assert lines[0]["log_level"] == "warning"


async def test_a_cached_hit_is_exact_but_clears_nothing(theatre: Theatre) -> None:
    """A face that is in the cache is shown as wanted while the renderer stays degraded."""
    theatre.renderer().always = fails(RenderError("no"))
    await theatre.picture(0.6)
    picture = await theatre.picture(0.8)
    assert (picture.exact, picture.cached, picture.degraded) == (True, True, None)
    assert theatre.ladder.degraded == "mesh: no"
    assert theatre.ladder.rung == "cached"


async def test_a_resting_face_recovers_too(theatre: Theatre) -> None:
    """While every picture is a cache hit, the renderer is still probed with real renders."""
    theatre.renderer().then(fails(RenderError("no")))
    await theatre.picture(0.6)
    theatre.clock.now_s += 0.6
    assert (await theatre.picture(0.0)).cached
    await theatre.recovered()


async def test_probing_does_not_delay_the_stream(theatre: Theatre) -> None:
    """While a probe is in the render thread, pictures come at once from the rung below."""
    theatre.renderer().then(fails(RenderError("no")))
    await theatre.picture(0.6)
    gate = Gate()
    theatre.renderer().then(gate)
    theatre.clock.now_s += 0.6
    for _ in range(10):
        assert (await theatre.picture(0.6)).degraded == "mesh: no"
        await until(gate.entered.is_set)
    gate.open()
    await theatre.recovered()
    assert theatre.failures() == 1


# --- renders that are late ----------------------------------------------------------------


async def test_a_late_frame_is_not_waited_for(theatre: Theatre) -> None:
    """By the deadline the nearest frame is shown; the late one is kept for later."""
    gate = Gate()
    theatre.renderer().then(gate)
    with theatre.haste():
        picture = await theatre.picture(0.6)
    assert picture.degraded == "mesh: no frame within 30 ms"
    assert not picture.exact
    assert theatre.ladder.degraded == "mesh: no frame within 30 ms"
    assert theatre.failures(reason="timeout") == 1
    gate.open()
    await theatre.idle()
    again = await theatre.picture(0.6)
    assert (again.exact, again.cached, again.degraded) == (True, True, None)


async def test_one_late_frame_changes_no_rung(theatre: Theatre) -> None:
    """A hiccup shows the nearest frame once: no log, no back-off, the next face is drawn."""
    gate = Gate()
    theatre.renderer().then(gate)
    with capture_logs() as lines:
        with theatre.haste():
            await theatre.picture(0.6)
        gate.open()
        await theatre.idle()
        picture = await theatre.picture(0.61)
    assert (picture.exact, picture.cached, picture.degraded) == (True, False, None)
    assert theatre.ladder.degraded is None
    assert not lines
    assert theatre.rung_metrics() == {"mesh"}


async def test_two_late_frames_in_a_row_step_down(theatre: Theatre) -> None:
    """A renderer that is too slow is left alone and probed; a probe in time brings it back."""
    gates = [Gate(), Gate()]
    theatre.renderer().then(*gates)
    for gate, strength in zip(gates, (0.6, 0.61), strict=True):
        with theatre.haste():
            assert not (await theatre.picture(strength)).exact
        gate.open()
        await theatre.idle()
    assert theatre.ladder.rung == "cached"
    drawn = len(theatre.renderer().rendered)
    assert (await theatre.picture(0.5)).degraded == "mesh: no frame within 30 ms"
    assert len(theatre.renderer().rendered) == drawn
    theatre.clock.now_s += 0.6
    await theatre.picture(0.5)
    await theatre.recovered()


async def test_a_slow_probe_is_no_recovery(theatre: Theatre) -> None:
    """A renderer that draws, but slower than the deadline, stays stepped down."""
    theatre.renderer().then(fails(RenderError("no")))
    await theatre.picture(0.6)
    theatre.renderer().always = takes(0.04)
    with theatre.haste():
        for _ in range(3):
            theatre.clock.now_s += 31.0
            theatre.ladder.probe()
            await theatre.idle()
            assert theatre.ladder.degraded == "mesh: no frame within 30 ms"
    assert theatre.failures(reason="timeout") == 3


async def test_the_stream_does_not_wait_again_for_the_same_late_frame(theatre: Theatre) -> None:
    """While a late render goes on, further pictures come without any wait."""
    gate = Gate()
    theatre.renderer().then(gate)
    with theatre.haste():
        await theatre.picture(0.6)
    # With the long deadline back, a single wait would outlast this test.
    for strength in np.linspace(0.1, 0.7, 50):
        assert not (await theatre.picture(float(strength))).exact
    assert theatre.failures(reason="timeout") == 1
    gate.open()
    await theatre.idle()
    assert (await theatre.picture(0.31)).exact


async def test_a_late_frame_costs_the_stream_no_tick(theatre: Theatre) -> None:
    """The nearest frame is there at the tick; before its deadline the late one is no failure."""
    gate = Gate()
    theatre.renderer().then(gate)
    for _ in range(3):
        picture = await theatre.picture_by(HASTE_S, 0.6)
        assert picture.degraded == "mesh: no frame in time for its tick"
        assert not picture.exact
    assert theatre.failures(reason="timeout") == 0
    gate.open()
    await theatre.idle()
    again = await theatre.picture_by(HASTE_S, 0.6)
    assert (again.exact, again.cached, again.degraded) == (True, True, None)


async def test_missing_the_deadline_is_noted_at_a_later_tick(theatre: Theatre) -> None:
    """A hang is a failure at its deadline, though no picture waits that long."""
    gate = Gate()
    theatre.renderer().then(gate)
    with theatre.haste():
        for failures in (0, 0, 1, 1):
            await theatre.picture_by(HASTE_S / 4.0, 0.6)
            assert theatre.failures(reason="timeout") == failures
            theatre.clock.now_s += 0.6 * HASTE_S
    gate.open()


async def test_a_renderer_slower_than_the_ticks_is_waited_for(theatre: Theatre) -> None:
    """It has the deadline to draw in: fewer frames of the face asked for are better than none."""
    slow = Gate()
    theatre.renderer().then(slow)
    await theatre.picture_by(HASTE_S, 0.6)
    theatre.clock.now_s += 2.0 * HASTE_S
    slow.open()
    await theatre.idle()
    theatre.renderer().always = takes(2.0 * HASTE_S)
    assert (await theatre.picture_by(HASTE_S, 0.61)).exact


async def test_a_late_failure_still_counts(theatre: Theatre) -> None:
    """A render that ends in an error after its deadline is a failure all the same."""
    gate = Gate()

    def late_and_lost() -> None:
        gate()
        raise DeviceLostError("gone")

    theatre.renderer().then(late_and_lost)
    with theatre.haste():
        await theatre.picture(0.6)
    gate.open()
    await until(lambda: theatre.lost == ["gone"])
    assert theatre.ladder.degraded == "mesh: device lost"


# --- hangs --------------------------------------------------------------------------------


async def test_a_hang_is_survived(theatre: Theatre) -> None:
    """The stream goes on; after 5 s another thread with a new renderer takes over."""
    stuck, gate = theatre.renderer(), Gate()
    stuck.then(gate)
    with theatre.haste():
        picture = await theatre.picture(0.6)
        assert picture.degraded == "mesh: no frame within 30 ms"
        theatre.clock.now_s += 1.0
        await theatre.picture(0.6)
    assert theatre.ladder.rung == "cached"
    theatre.clock.now_s += 6.0
    await theatre.picture(0.6)
    # What the new thread has begun must not look as if it had taken half a minute.
    await theatre.idle()
    theatre.clock.now_s += 31.0
    await theatre.picture(0.6)
    await theatre.recovered()
    assert theatre.renderer() is not stuck
    picture = await theatre.picture(0.7)
    assert (picture.exact, picture.degraded) == (True, None)
    gate.open()
    await until(lambda: stuck.closed == 1)
    assert theatre.failures(reason="hang") == 1


async def test_endless_hangs_end_in_a_new_process() -> None:
    """When too many threads are stuck the application is told once; the still is served on."""
    theatre, gates = Theatre(), list[Gate]()
    await theatre.show()

    def hang(renderer: FakeRenderer) -> None:
        gates.append(Gate())
        renderer.always = gates[-1]

    theatre.on_make = hang
    hang(theatre.renderer())
    with theatre.haste():
        for _ in range(60):
            assert (await theatre.picture(0.6)).degraded is not None
            await asyncio.sleep(0.002)
            theatre.clock.now_s += 4.0
    assert theatre.lost == ["too many renders hang"]
    assert len(gates) == 3
    for gate in gates:
        gate.open()
    await theatre.close()


# --- a lost device ------------------------------------------------------------------------


async def test_a_lost_device_is_reported_once_and_never_tried_again(theatre: Theatre) -> None:
    """The application is told; meanwhile the cached faces are served."""
    renderer = theatre.renderer()
    renderer.always = fails(DeviceLostError("illegal memory access"))
    for _ in range(5):
        picture = await theatre.picture(0.6)
        assert picture.degraded == "mesh: device lost"
        theatre.clock.now_s += 40.0
        await theatre.idle()
    assert theatre.lost == ["illegal memory access"]
    assert len(renderer.rendered) == len(AHEAD) + 1
    assert theatre.failures(reason="device_lost") == 1


# --- the rungs below ----------------------------------------------------------------------


async def test_the_nearest_frame_is_the_nearest(theatre: Theatre) -> None:
    """Among the faces seen so far, the one closest to the wanted one is shown."""
    for strength in (0.1, 0.2, 0.4):
        await theatre.picture(strength)
    theatre.renderer().always = fails(RenderError("no"))
    for strength, nearest in ((0.12, 0.1), (0.28, 0.2), (0.35, 0.4), (1.0, 0.8)):
        picture = await theatre.picture(strength)
        assert picture.controls["mouthSmileLeft"] == pytest.approx(nearest, abs=0.01)


async def test_without_a_cache_the_neutral_frame_serves() -> None:
    """A cache too small for any frame: the neutral one is kept beside it."""
    theatre = Theatre(cache_bytes=10)
    with capture_logs() as lines:
        await theatre.show()
    assert "frames_not_pinned" in [line["event"] for line in lines]
    assert (await theatre.picture(0.5)).exact
    theatre.renderer().always = fails(RenderError("no"))
    picture = await theatre.picture(0.6)
    assert theatre.ladder.rung == "neutral"
    assert picture.weights == {"neutral": 1.0}
    assert brightness(picture) == pytest.approx(40, abs=2)
    assert (await picture.encoded(ImageFormat.PNG)).startswith(b"\x89PNG")
    await theatre.close()


async def test_without_any_renderer_the_portrait_serves() -> None:
    """At the start, a character can go on stage as a still until a renderer works."""
    theatre = Theatre()

    def broken(renderer: FakeRenderer) -> None:
        raise RuntimeError("no device")

    theatre.on_make = broken
    await theatre.ladder.show(fake_portrait(), AHEAD, accept_still=True)
    picture = await theatre.picture(0.5)
    assert theatre.ladder.rung == "portrait"
    assert theatre.rung_metrics() == {"portrait"}
    assert picture.degraded == "mesh: RuntimeError: no device"
    assert (picture.exact, picture.cached) == (False, True)
    assert (picture.weights, picture.controls.as_mapping()) == (
        {"neutral": 1.0},
        FaceControls().as_mapping(),
    )
    assert decode_jpeg(picture.jpeg).shape == (48, 64, 3)
    assert theatre.ladder.device == "unknown"
    theatre.on_make = lambda renderer: None
    theatre.clock.now_s += 0.6
    await theatre.picture(0.5)
    await theatre.recovered()
    assert (await theatre.picture(0.5)).exact
    await theatre.close()


async def test_the_second_renderer_comes_before_the_cache() -> None:
    """If the wanted renderer fails, the next one draws the wanted face."""
    theatre = Theatre("liveportrait", "mesh")
    await theatre.show()
    assert theatre.ladder.renderer == "liveportrait"
    theatre.renderer("liveportrait").then(fails(MemoryError()))
    picture = await theatre.picture(0.6)
    assert (picture.exact, picture.cached) == (True, False)
    assert picture.degraded == "liveportrait: out of memory"
    assert picture.key.family.renderer == "mesh"
    assert theatre.ladder.rung == theatre.ladder.renderer == "mesh"
    assert theatre.rung_metrics() == {"mesh"}
    again = await theatre.picture(0.6)
    assert (again.exact, again.cached, again.degraded) == (
        True,
        True,
        "liveportrait: out of memory",
    )
    theatre.clock.now_s += 0.6
    await theatre.picture(0.6)
    await theatre.recovered()
    picture = await theatre.picture(0.6)
    assert picture.key.family.renderer == "liveportrait"
    assert theatre.rung_metrics() == {"liveportrait"}
    await theatre.close()


async def test_the_second_renderer_is_ready_when_it_is_needed() -> None:
    """Its portrait is prepared when the character goes on stage."""
    theatre = Theatre("liveportrait", "mesh")
    await theatre.show()
    assert theatre.renderer("mesh").prepared == ["key-of-ada"]
    assert theatre.renderer("mesh").rendered == []
    await theatre.close()


async def test_all_renderers_failing_leaves_the_cache() -> None:
    """The reason is the wanted renderer's; each is probed on its own."""
    theatre = Theatre("liveportrait", "mesh")
    await theatre.show()
    theatre.renderer("liveportrait").always = fails(RenderError("one"))
    theatre.renderer("mesh").then(fails(RenderError("two")))
    picture = await theatre.picture(0.6)
    assert (picture.exact, picture.degraded) == (False, "liveportrait: one")
    assert theatre.ladder.rung == "cached"
    for _ in range(3):
        theatre.clock.now_s += 31.0
        await theatre.picture(0.6)
        await theatre.idle()
    assert theatre.ladder.rung == "mesh"
    assert theatre.ladder.degraded == "liveportrait: one"
    await theatre.close()


# --- characters ---------------------------------------------------------------------------


async def test_the_old_face_stays_until_the_new_one_is_ready(theatre: Theatre) -> None:
    """While a portrait is prepared the one before is shown, from the cache where need be."""
    gate = Gate()
    theatre.renderer().on_prepare = gate
    switching = asyncio.create_task(theatre.show(fake_portrait("bob")))
    await until(gate.entered.is_set)
    with capture_logs() as lines:
        with theatre.haste():
            hit, miss = await theatre.picture(0.8), await theatre.picture(0.6)
        again = await theatre.picture(0.61)
    assert {p.portrait for p in (hit, miss, again)} == {"key-of-ada"}
    assert hit.exact
    assert (miss.exact, miss.degraded) == (False, "mesh: busy")
    assert again.degraded == "mesh: busy"
    gate.open()
    await switching
    picture = await theatre.picture(0.6)
    assert picture.portrait == "key-of-bob"
    assert (picture.exact, picture.degraded) == (True, None)
    assert theatre.failures() == 0
    assert not lines


async def test_a_picture_begun_before_a_switch_is_finished(theatre: Theatre) -> None:
    """It shows the old portrait, whole; the next shows the new one."""
    gate = Gate()
    theatre.renderer().then(gate)
    drawing = asyncio.create_task(theatre.picture(0.6))
    await until(gate.entered.is_set)
    switching = asyncio.create_task(theatre.show(fake_portrait("bob")))
    await asyncio.sleep(0)
    gate.open()
    assert (await drawing).portrait == "key-of-ada"
    await switching
    assert (await theatre.picture(0.6)).portrait == "key-of-bob"


async def test_a_switch_moves_the_pins(theatre: Theatre) -> None:
    """The new character's frames are kept, the old one's may go; coming back costs no prepare."""
    await theatre.show(fake_portrait("bob"))
    assert theatre.cache.stats.pinned == len(AHEAD)
    await theatre.show(fake_portrait("ada"))
    assert theatre.cache.stats.pinned == len(AHEAD)
    assert theatre.renderer().prepared == ["key-of-ada", "key-of-bob"]
    assert (await theatre.picture(0.8)).portrait == "key-of-ada"


@pytest.mark.parametrize("where", ["prepare", "render"])
async def test_a_portrait_nobody_can_show_changes_nothing(theatre: Theatre, where: str) -> None:
    """The switch fails with the error; the old face goes on, not degraded, its pins in place."""
    renderer = theatre.renderer()
    if where == "prepare":
        renderer.prepare_error = RenderError("no mouth")
    else:
        renderer.then(fails(RenderError("no mouth")))
    with pytest.raises(RenderError, match="no mouth"):
        await theatre.show(fake_portrait("bob"))
    assert theatre.ladder.degraded is None
    assert theatre.cache.stats.pinned == len(AHEAD)
    picture = await theatre.picture(0.6)
    assert (picture.portrait, picture.exact) == ("key-of-ada", True)


async def test_a_peak_that_cannot_be_drawn_does_not_stop_the_switch(theatre: Theatre) -> None:
    """Only the neutral frame must be there; the rest is drawn when it is wanted."""
    theatre.renderer().then(lambda: None, fails(RenderError("no")))
    with capture_logs() as lines:
        await theatre.show(fake_portrait("bob"))
    assert [line["event"] for line in lines] == ["frame_not_drawn_ahead"]
    assert theatre.cache.stats.pinned == len(AHEAD) - 1
    assert (await theatre.picture(0.8)).exact


async def test_a_cancelled_switch_changes_nothing(theatre: Theatre) -> None:
    """Giving up while the portrait is prepared leaves the old face and its pins."""
    gate = Gate()
    theatre.renderer().on_prepare = gate
    switching = asyncio.create_task(theatre.show(fake_portrait("bob")))
    await until(gate.entered.is_set)
    switching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await switching
    gate.open()
    assert theatre.cache.stats.pinned == len(AHEAD)
    await theatre.idle()
    assert (await theatre.picture(0.6)).portrait == "key-of-ada"


async def test_two_switches_at_once_end_with_the_last(theatre: Theatre) -> None:
    """They are carried out one after the other."""
    await asyncio.gather(*(theatre.show(fake_portrait(name)) for name in ("bob", "eve")))
    assert (await theatre.picture(0.6)).portrait == "key-of-eve"
    assert theatre.cache.stats.pinned == len(AHEAD)


async def test_showing_it_again_with_other_peaks(theatre: Theatre) -> None:
    """A reload draws the new peaks and keeps those, without preparing again."""
    await theatre.show(ahead=[AHEAD[0], (smile(0.4), {"happy": 0.4}), (smile(0.9), {"happy": 0.9})])
    assert theatre.cache.stats.pinned == 3
    assert (await theatre.picture(0.9)).cached
    assert theatre.renderer().prepared == ["key-of-ada"]


# --- several at once ----------------------------------------------------------------------


async def test_pictures_asked_for_together_all_arrive(theatre: Theatre) -> None:
    """One is drawn, the newest is drawn next, the others show the nearest frame; no failure."""
    wanted = [0.1, 0.2, 0.3, 0.4, 0.5]
    pictures = await asyncio.gather(*map(theatre.picture, wanted))
    assert pictures[-1].exact
    for picture, strength in zip(pictures, wanted, strict=True):
        assert picture.exact or picture.degraded == "mesh: busy"
        assert not picture.exact or picture.controls["mouthSmileLeft"] == pytest.approx(
            strength, abs=0.01
        )
    assert theatre.failures() == 0
    assert (await theatre.picture(0.55)).degraded is None


async def test_stages_share_renderer_and_cache(theatre: Theatre) -> None:
    """A second stage with the same character finds its frames; each has its own health."""
    side = theatre.stage("side")
    await side.show(fake_portrait(), AHEAD)
    assert theatre.renderer().prepared == ["key-of-ada"]
    await theatre.picture(0.5)
    assert (await side.picture(smile(0.5), {})).cached
    theatre.renderer().then(fails(RenderError("no")))
    await theatre.picture(0.6)
    assert (theatre.ladder.degraded, side.degraded) == ("mesh: no", None)
    assert theatre.rung_metrics("side") == {"mesh"}
    theatre.ladder.close()
    assert theatre.cache.stats.pinned == len(AHEAD)
    side.close()
    assert theatre.cache.stats.pinned == 0


async def test_a_cancelled_picture_leaves_no_trace(theatre: Theatre) -> None:
    """The stage may stop while a frame is drawn; the next picture is served."""
    gate = Gate()
    theatre.renderer().then(gate)
    drawing = asyncio.create_task(theatre.picture(0.6))
    await until(gate.entered.is_set)
    drawing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await drawing
    gate.open()
    assert (await theatre.picture(0.7)).exact


async def test_closing_during_a_render(theatre: Theatre) -> None:
    """The frame in the making is finished, then the renderer is closed in its own thread."""
    gate = Gate()
    theatre.renderer().then(gate)
    drawing = asyncio.create_task(theatre.picture(0.6))
    await until(gate.entered.is_set)
    closing = asyncio.create_task(theatre.close())
    await asyncio.sleep(0.01)
    gate.open()
    await closing
    assert (await drawing).exact
    assert theatre.renderer().closed == 1
    assert len(theatre.renderer().threads) == 1


async def test_formats_of_one_face_are_made_once(theatre: Theatre) -> None:
    """Fresh, from the cache, or asked for by many: one encoding per face and format."""
    first = await theatre.picture(0.6)
    await asyncio.gather(*(first.encoded(ImageFormat.WEBP) for _ in range(10)))
    again = await theatre.picture(0.6)
    assert again.cached
    await again.encoded(ImageFormat.WEBP)
    assert len(theatre.metrics.values(Metric.ENCODE_SECONDS, format="webp")) == 1


# --- whatever happens ---------------------------------------------------------------------

DEEDS: dict[str, Step | None] = {
    "draw": None,
    "fail": fails(RenderError("no")),
    "run out": fails(MemoryError()),
    "misshape": gives(np.zeros((1, 2, 3), np.uint8)),
}
scripts = st.lists(
    st.one_of(
        st.tuples(
            st.just("picture"),
            st.sampled_from(list(DEEDS)),
            st.integers(0, 128),
            st.sampled_from([0.0, 0.03, 0.6, 5.0, 40.0]),
        ),
        st.tuples(st.just("show"), st.sampled_from(list(DEEDS)), st.sampled_from("abc")),
    ),
    max_size=30,
)


@settings(max_examples=40, deadline=None)
@given(scripts, st.sampled_from([10, 20_000, 2**20]))
def test_every_picture_is_whole_and_honest(script: list[tuple[Any, ...]], cache: int) -> None:
    """Whatever fails whenever: a whole JPEG, true labels, one serving rung, and recovery."""
    asyncio.run(perform(script, Theatre(cache_bytes=cache)))


async def perform(script: list[tuple[Any, ...]], theatre: Theatre) -> None:
    rest = (smile(0), {"smile": 0.0})
    await theatre.ladder.show(fake_portrait("a"), [rest])
    on_stage = "a"
    calm = [("picture", "draw", step, 31.0) for step in range(4)]
    for name, deed, *arguments in [*script, *calm]:
        theatre.renderer().always = DEEDS[deed]
        if name == "show":
            with contextlib.suppress(RenderError):
                await theatre.ladder.show(fake_portrait(arguments[0]), [rest])
                on_stage = arguments[0]
            continue
        step, wait_s = arguments
        wanted = smile(step / 128)
        picture = await theatre.ladder.picture(wanted, {"smile": step / 128})
        await theatre.idle()
        theatre.clock.now_s += wait_s
        check(picture, wanted, fake_portrait(on_stage))
        assert len(theatre.rung_metrics()) == 1
        assert theatre.cache.stats.bytes <= theatre.cache.stats.max_bytes
    assert theatre.ladder.degraded is None
    assert theatre.rung_metrics() == {"mesh"}
    await theatre.close()


def check(picture: Picture, wanted: FaceControls, portrait: Portrait) -> None:
    assert picture.portrait == portrait.key
    assert decode_jpeg(picture.jpeg).shape == (48, 64, 3)
    assert picture.exact == (picture.degraded is None)
    assert picture.weights["smile"] == picture.controls["mouthSmileLeft"]
    assert brightness(picture) == pytest.approx(40 + 160 * picture.weights["smile"], abs=3)
    if picture.exact:
        assert face_code(picture.controls) == face_code(wanted)

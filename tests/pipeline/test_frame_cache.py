"""Frames by the face they show."""

import threading
from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.frame_cache import (
    ENTRY_OVERHEAD_BYTES,
    CachedFrame,
    FrameCache,
    FrameFamily,
    FrameKey,
    face_code,
    face_of,
    quantise,
)
from pipeline.ports import Metric
from pipeline.types import ARKIT_BLENDSHAPES, FaceControls, ImageFormat
from tests.fakes.metrics import RecordingMetrics

FAMILY = FrameFamily("portrait", "mesh", (512, 512), ImageFormat.JPEG, 88)
IMAGE_BYTES = 10_000
ENTRY_BYTES = IMAGE_BYTES + ENTRY_OVERHEAD_BYTES


def key_of(number: int, family: FrameFamily = FAMILY) -> FrameKey:
    """A different face for each number up to 128."""
    return FrameKey(family, face_code(FaceControls.of(jawOpen=number / 128)))


def frame(key: FrameKey, size: int = IMAGE_BYTES, **weights: float) -> CachedFrame:
    return CachedFrame(bytes(size), face_of(key.code), weights or {"neutral": 1.0})


def cache_for(entries: int) -> FrameCache:
    return FrameCache(entries * ENTRY_BYTES, RecordingMetrics())


def fill(cache: FrameCache, *numbers: int) -> None:
    for number in numbers:
        assert cache.put(key_of(number), frame(key_of(number)))


def held(cache: FrameCache, *numbers: int) -> list[int]:
    return [number for number in numbers if cache.peek(key_of(number)) is not None]


controls = st.builds(
    FaceControls,
    st.lists(st.floats(0, 1, width=32), min_size=52, max_size=52).map(np.array),
    *[st.floats(-45, 45)] * 3,
)


# --- quantising ---------------------------------------------------------------------------


@settings(deadline=None)
@given(controls)
def test_quantised_controls_are_within_half_a_step(wanted: FaceControls) -> None:
    """A frame from the cache is never more than half a step from the face asked for."""
    near = quantise(wanted)
    assert np.abs(near.weights - wanted.weights).max() <= 0.5 / 128 + 1e-6
    for angle in ("pitch", "yaw", "roll"):
        assert abs(getattr(near, angle) - getattr(wanted, angle)) <= 0.05 + 1e-9


@settings(deadline=None)
@given(controls)
def test_quantising_twice_changes_nothing(wanted: FaceControls) -> None:
    """The face that is drawn has the same code as the face asked for."""
    assert face_code(quantise(wanted)) == face_code(wanted)


def test_the_ends_of_the_range_are_exact() -> None:
    """Rest and full strength are drawn as such."""
    ends = FaceControls(np.ones(52, np.float32), 45.0, -45.0, 45.0)
    assert quantise(ends).as_mapping() == ends.as_mapping()
    assert not quantise(FaceControls()).weights.any()


@pytest.mark.parametrize("name", [*ARKIT_BLENDSHAPES, "pitch", "yaw", "roll"])
def test_every_control_is_part_of_the_code(name: str) -> None:
    """Faces that differ in any one control are different entries."""
    assert face_code(FaceControls.of(**{name: 0.5})) != face_code(FaceControls())


def test_near_equal_faces_hit() -> None:
    """A face a thousandth away is the same entry."""
    assert face_code(FaceControls.of(jawOpen=0.501, yaw=3.01)) == face_code(
        FaceControls.of(jawOpen=0.5, yaw=3.0)
    )


# --- keeping ------------------------------------------------------------------------------


def test_what_is_put_is_got() -> None:
    """The frame comes back with the controls and weights it was drawn with."""
    cache = cache_for(4)
    kept = frame(key_of(3), happy=0.5, neutral=0.5)
    assert cache.put(key_of(3), kept)
    assert cache.get(key_of(3)) is kept


@pytest.mark.parametrize(
    "change",
    [
        {"portrait": "other"},
        {"renderer": "liveportrait"},
        {"size_px": (256, 256)},
        {"image_format": ImageFormat.WEBP},
        {"quality": 87},
    ],
)
def test_everything_in_the_key_counts(change: Mapping[str, object]) -> None:
    """Another portrait, renderer, size, encoding or quality is another frame."""
    cache = cache_for(4)
    fill(cache, 1)
    other = FAMILY._replace(**change)  # type: ignore[arg-type]
    assert cache.get(key_of(1, other)) is None
    assert cache.nearest(key_of(1, other)) is None


def test_the_least_recently_used_goes_first() -> None:
    """Getting a frame keeps it; the one nobody asked for makes room."""
    cache = cache_for(3)
    fill(cache, 1, 2, 3)
    cache.get(key_of(1))
    fill(cache, 4)
    assert held(cache, 1, 2, 3, 4) == [1, 3, 4]


def test_large_frames_push_out_as_many_as_they_need() -> None:
    """The bound is in bytes, not in entries."""
    cache = cache_for(4)
    fill(cache, 1, 2, 3, 4)
    assert cache.put(key_of(5), frame(key_of(5), 2 * IMAGE_BYTES))
    assert held(cache, 1, 2, 3, 4, 5) == [3, 4, 5]


def test_a_frame_larger_than_the_cache_is_not_kept() -> None:
    """It is refused without evicting what is there."""
    cache = cache_for(2)
    fill(cache, 1, 2)
    assert not cache.put(key_of(3), frame(key_of(3), 3 * IMAGE_BYTES))
    assert held(cache, 1, 2, 3) == [1, 2]


def test_putting_again_replaces() -> None:
    """The same key holds one frame, the newest, and its bytes count once."""
    cache = cache_for(4)
    fill(cache, 1)
    again = frame(key_of(1), 5)
    cache.put(key_of(1), again)
    assert cache.get(key_of(1)) is again
    assert (cache.stats.entries, cache.stats.bytes) == (1, 5 + ENTRY_OVERHEAD_BYTES)


def test_hits_misses_and_bytes_are_told() -> None:
    """Statistics and metrics agree; looking without counting is possible."""
    metrics = RecordingMetrics()
    cache = FrameCache(10 * ENTRY_BYTES, metrics)
    cache.get(key_of(1))
    fill(cache, 1, 2)
    cache.get(key_of(1))
    cache.get(key_of(2))
    cache.peek(key_of(3))
    stats = cache.stats
    assert (stats.hits, stats.misses, stats.entries, stats.bytes) == (2, 1, 2, 2 * ENTRY_BYTES)
    assert metrics.total(Metric.CACHE_HITS) == 2
    assert metrics.total(Metric.CACHE_MISSES) == 1
    assert metrics.gauge(Metric.CACHE_BYTES) == 2 * ENTRY_BYTES
    assert metrics.gauge(Metric.CACHE_ENTRIES) == 2


# --- pinning ------------------------------------------------------------------------------


def test_pinned_frames_are_not_evicted() -> None:
    """However many frames pass through, the pinned ones stay."""
    cache = cache_for(4)
    fill(cache, 1, 2)
    assert cache.pin("main", [key_of(1), key_of(2)]) == 2
    fill(cache, *range(10, 60))
    assert held(cache, 1, 2) == [1, 2]
    assert cache.stats.entries == 4


def test_unpinned_frames_can_go() -> None:
    """A character that leaves the stage no longer holds memory."""
    cache = cache_for(4)
    fill(cache, 1, 2)
    cache.pin("main", [key_of(1), key_of(2)])
    cache.unpin("main")
    fill(cache, *range(10, 20))
    assert held(cache, 1, 2) == []
    assert cache.stats.pinned == 0


def test_pins_take_at_most_half() -> None:
    """There is always room for frames in transit; the first in the list are pinned."""
    cache = cache_for(8)
    fill(cache, *range(8))
    assert cache.pin("main", map(key_of, range(8))) == 4
    fill(cache, *range(20, 60))
    assert held(cache, *range(8)) == [0, 1, 2, 3]


def test_two_stages_can_pin_the_same_frame() -> None:
    """It stays until the last of them lets go, and its bytes count once."""
    cache = cache_for(4)
    fill(cache, 1, 2)
    assert cache.pin("main", [key_of(1), key_of(2)]) == 2
    assert cache.pin("side", [key_of(1), key_of(2)]) == 2
    cache.unpin("main")
    fill(cache, *range(10, 20))
    assert held(cache, 1, 2) == [1, 2]
    cache.unpin("side")
    fill(cache, *range(10, 20))
    assert held(cache, 1, 2) == []


def test_pinning_again_replaces_the_owners_pins() -> None:
    """An owner names all that it wants at once; what is not there is not pinned."""
    cache = cache_for(4)
    fill(cache, 1, 2)
    cache.pin("main", [key_of(1)])
    assert cache.pin("main", [key_of(2), key_of(99)]) == 1
    fill(cache, *range(10, 20))
    assert held(cache, 1, 2) == [2]


def on_stage(name: str) -> FrameFamily:
    return FAMILY._replace(portrait=name)


def test_a_greedy_stage_evicts_its_own_frames() -> None:
    """However many frames one stage puts in, another on stage keeps its share of the room."""
    cache, modest, greedy = cache_for(30), on_stage("modest"), on_stage("greedy")
    for family in (modest, greedy):
        key = key_of(0, family)
        cache.put(key, frame(key))
        cache.pin(family.portrait, [key])
    for number in range(1, 10):
        cache.put(key_of(number, modest), frame(key_of(number, modest)))
    for number in range(1, 129):
        cache.put(key_of(number, greedy), frame(key_of(number, greedy)))
    assert all(cache.peek(key_of(number, modest)) for number in range(10))
    kept = [number for number in range(129) if cache.peek(key_of(number, greedy))]
    assert kept == [0, *range(110, 129)]


def test_who_has_left_the_stage_has_no_share() -> None:
    """Frames of a portrait that is on no stage go as soon as they are the oldest."""
    cache, gone, here = cache_for(10), on_stage("gone"), on_stage("here")
    for family in (gone, here):
        key = key_of(0, family)
        cache.put(key, frame(key))
        cache.pin(family.portrait, [key])
    cache.unpin("gone")
    for number in range(1, 10):
        cache.put(key_of(number, here), frame(key_of(number, here)))
    assert cache.peek(key_of(0, gone)) is None


def test_one_who_is_to_come_finds_room() -> None:
    """What is drawn ahead for a new stage stays, though those on stage have filled the cache."""
    cache, here, next_ = cache_for(12), on_stage("here"), on_stage("next")
    for number in range(12):
        cache.put(key_of(number, here), frame(key_of(number, here)))
    cache.pin("here", [key_of(0, here)])
    ahead = [key_of(number, next_) for number in range(5)]
    for key in ahead:
        cache.put(key, frame(key))
    assert cache.pin("next", ahead) == 5


def test_each_owner_can_pin_its_part() -> None:
    """Where one has pinned half of the room alone, it gives some back to the next."""
    cache, first, second = cache_for(20), on_stage("first"), on_stage("second")
    for family in (first, second):
        for number in range(10):
            cache.put(key_of(number, family), frame(key_of(number, family)))
    assert cache.pin("first", [key_of(number, first) for number in range(10)]) == 10
    assert cache.pin("second", [key_of(number, second) for number in range(10)]) == 5
    assert cache.stats.pinned == 10
    cache.unpin("second")
    assert cache.stats.pinned == 5


def test_replacing_a_frame_by_a_larger_one_keeps_count() -> None:
    """Making room for it does not count what it replaces twice."""
    cache = cache_for(3)
    fill(cache, 0, 1, 2)
    assert cache.put(key_of(0), frame(key_of(0), 2 * IMAGE_BYTES))
    assert held(cache, 1, 2, 0) == [2, 0]
    assert cache.stats.bytes == 3 * ENTRY_BYTES - ENTRY_OVERHEAD_BYTES
    fill(cache, 1)
    assert held(cache, 0, 1, 2) == [0, 1]


def test_unpinning_nothing_is_harmless() -> None:
    """An owner without pins may let go."""
    cache_for(1).unpin("nobody")


# --- the nearest --------------------------------------------------------------------------


def test_nearest_of_nothing_is_nothing() -> None:
    """An empty family has no nearest frame."""
    assert cache_for(1).nearest(key_of(1)) is None


def test_nearest_comes_with_what_it_shows() -> None:
    """The frame says which face it is, so that what is reported is what is shown."""
    cache = cache_for(4)
    cache.put(key_of(10), frame(key_of(10), happy=0.25))
    cache.put(key_of(90), frame(key_of(90), happy=0.75))
    found = cache.nearest(key_of(70))
    assert found is not None
    assert found[0] == key_of(90)
    assert found[1].weights == {"happy": 0.75}
    assert found[1].controls["jawOpen"] == pytest.approx(90 / 128)


def test_head_and_face_both_count_for_nearness() -> None:
    """A face turned far away is not near because its mouth is right."""
    cache = cache_for(4)
    turned = FrameKey(FAMILY, face_code(FaceControls.of(jawOpen=0.5, yaw=40)))
    other_mouth = FrameKey(FAMILY, face_code(FaceControls.of(jawOpen=0.3)))
    for key in (turned, other_mouth):
        cache.put(key, frame(key))
    found = cache.nearest(FrameKey(FAMILY, face_code(FaceControls.of(jawOpen=0.5))))
    assert found is not None
    assert found[0] == other_mouth


faces = st.lists(
    st.builds(
        lambda jaw, smile, yaw: face_code(
            FaceControls.of(jawOpen=jaw / 128, mouthSmileLeft=smile / 128, yaw=yaw / 10)
        ),
        st.integers(0, 128),
        st.integers(0, 128),
        st.integers(-450, 450),
    ),
    min_size=1,
    max_size=40,
)


@settings(deadline=None)
@given(faces, faces)
def test_nearest_really_is_nearest(kept: list[bytes], wanted: list[bytes]) -> None:
    """Among all that are held, none is nearer than the one that is found, evictions or not."""
    cache = cache_for(25)
    for code in kept:
        cache.put(FrameKey(FAMILY, code), frame(FrameKey(FAMILY, code)))
    here = [code for code in kept if cache.peek(FrameKey(FAMILY, code)) is not None]
    for code in wanted:
        found = cache.nearest(FrameKey(FAMILY, code))
        assert found is not None
        nearest = min(distance(code, other) for other in here)
        assert distance(code, found[0].code) == pytest.approx(nearest, abs=1e-3)


def distance(code: bytes, other: bytes) -> float:
    one, two = face_of(code), face_of(other)
    head = [one.pitch - two.pitch, one.yaw - two.yaw, one.roll - two.roll]
    steps = np.concatenate(((one.weights - two.weights) * 128, np.array(head) * 10))
    return float(np.linalg.norm(steps))


# --- what always holds --------------------------------------------------------------------

keys = st.builds(
    lambda number, image_format: key_of(number, FAMILY._replace(image_format=image_format)),
    st.integers(0, 30),
    st.sampled_from(list(ImageFormat)),
)
operations = st.lists(
    st.one_of(
        st.tuples(st.just("put"), keys, st.integers(0, 6 * IMAGE_BYTES)),
        st.tuples(st.just("get"), keys),
        st.tuples(st.just("pin"), st.sampled_from("ab"), st.lists(keys, max_size=8)),
        st.tuples(st.just("unpin"), st.sampled_from("ab")),
        st.tuples(st.just("nearest"), keys),
    ),
    max_size=80,
)


@settings(max_examples=150, deadline=None)
@given(operations)
def test_the_bound_holds_and_pins_stay(steps: list[tuple]) -> None:  # type: ignore[type-arg]
    """Whatever is done: bytes within the bound, pins in place, index and entries agree."""
    cache = cache_for(6)
    pins: dict[str, list[FrameKey]] = {}
    for name, *arguments in steps:
        if name == "put":
            key, size = arguments
            cache.put(key, frame(key, size))
        elif name == "pin":
            owner, wanted = arguments
            present = [key for key in dict.fromkeys(wanted) if cache.peek(key) is not None]
            pins[owner] = present[: cache.pin(owner, wanted)]
        elif name == "unpin":
            cache.unpin(*arguments)
            pins.pop(str(arguments[0]), None)
        elif name == "get":
            cache.get(*arguments)
        else:
            found = cache.nearest(*arguments)
            assert found is None or cache.peek(found[0]) is found[1]
        stats = cache.stats
        pinned = {key for keys in pins.values() for key in keys}
        kept = [cache.peek(key) for key in pinned]
        assert None not in kept
        assert stats.bytes <= stats.max_bytes
        assert stats.pinned == len(pinned)
        assert sum(len(f.data) + ENTRY_OVERHEAD_BYTES for f in kept if f) <= stats.max_bytes // 2


def test_threads_may_use_it_together() -> None:
    """Puts, gets and searches from several threads leave it whole."""
    cache = cache_for(16)
    failures: list[BaseException] = []

    def work(seed: int) -> None:
        numbers = np.random.default_rng(seed).integers(0, 128, 300)
        try:
            for number in map(int, numbers):
                cache.put(key_of(number), frame(key_of(number)))
                cache.get(key_of(number // 2))
                cache.nearest(key_of(number))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert cache.stats.entries == 16
    assert cache.stats.bytes == 16 * ENTRY_BYTES

"""What was accepted is known for ten minutes, at a few bytes each."""

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.accepted import KEPT_S, AcceptedEvents
from pipeline.types import EmotionEvent, Policy

STEPS = st.lists(
    st.tuples(st.floats(0.0, 90.0), st.integers(0, 12).map(str), st.sampled_from((None, 0.5, 1.0))),
    max_size=60,
)


@given(STEPS)
def test_it_knows_what_a_table_of_all_would_know(steps: list[tuple[float, str, float]]) -> None:
    """New, the same again, or another body, at any times."""
    events, all_of_them, now_s = AcceptedEvents(), dict[str, tuple[EmotionEvent, float]](), 0.0
    for gap_s, name, attack_s in steps:
        now_s += gap_s
        event = EmotionEvent(name, "happy", attack_s=attack_s)
        earlier, at_s = all_of_them.get(name, (None, 0.0))
        if earlier is not None and now_s - at_s < KEPT_S:
            assert events.same(event, now_s) == (earlier == event)
        else:
            assert events.same(event, now_s) is None
            assert not events.has(name, now_s)
            events.add(event, now_s)
            all_of_them[name] = event, now_s
        assert events.has(name, now_s)


@pytest.mark.parametrize(
    "other",
    [
        EmotionEvent("a", "sad", 0.5, {"happy": 0.1}, policy=Policy.QUEUE),
        EmotionEvent("a", "happy", 0.6, {"happy": 0.1}, policy=Policy.QUEUE),
        EmotionEvent("a", "happy", 0.5, {"happy": 0.2}, policy=Policy.QUEUE),
        EmotionEvent("a", "happy", 0.5, {"happy": 0.1}),
        EmotionEvent("a", "happy", 0.5, {"happy": 0.1}, hold_s=0.0, policy=Policy.QUEUE),
        EmotionEvent("a", "happy", 0.5, {"happy": 0.1}, policy=Policy.QUEUE, priority=6),
        EmotionEvent("a", "happy", 0.5, {"happy": 0.1}, policy=Policy.QUEUE, ttl_s=1.0),
    ],
)
def test_another_body_is_told_from_the_same(other: EmotionEvent) -> None:
    """Whatever it is that differs."""
    event = EmotionEvent("a", "happy", 0.5, {"happy": 0.1}, policy=Policy.QUEUE)
    events = AcceptedEvents()
    events.add(event, 0.0)
    assert events.same(event, 1.0) is True
    assert events.same(other, 1.0) is False


def test_an_hour_of_events_takes_little_and_grows_no_more() -> None:
    """Four a second: below 150 kB, as many after an hour as after ten minutes."""
    events = AcceptedEvents()
    tracemalloc.start()
    try:
        for number in range(4 * 3600):
            events.add(EmotionEvent(f"event-{number}", "happy"), number / 4.0)
            if number == 4 * 660:
                after_ten_minutes = len(events)
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(events) <= after_ten_minutes + 1
    assert taken < 150_000


def test_a_flood_forgets_the_oldest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its memory is bounded in number, too; the newest are known."""
    monkeypatch.setattr("orchestrator.accepted.KEPT_EVENTS", 10_000)
    events = AcceptedEvents()
    for number in range(20_000):
        events.add(EmotionEvent(str(number), "happy"), 0.0)
        assert len(events) <= 10_000
    assert events.has("19999", 0.0)
    assert not events.has("0", 0.0)

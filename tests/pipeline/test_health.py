"""When a renderer is used, and when it is tried again."""

import pytest

from pipeline.health import RendererHealth


def waits(health: RendererHealth, now_s: float) -> float:
    """Seconds until the next try, to a hundredth."""
    steps = range(100 * 60)
    return next(step / 100 for step in steps if health.retry_due(now_s + step / 100))


def test_it_starts_healthy() -> None:
    """Nothing is held against a renderer that was not tried yet, and nothing is due."""
    health = RendererHealth()
    assert health.reason is None
    assert not health.retry_due(1e9)


def test_tries_come_ever_later() -> None:
    """Half a second after the first failure, then twice as long each time, up to 30 s."""
    health, now_s, found = RendererHealth(), 100.0, []
    for _ in range(9):
        health.failed(now_s, "no")
        found.append(waits(health, now_s))
        now_s += found[-1]
    assert found == pytest.approx([0.5, 1, 2, 4, 8, 16, 30, 30, 30], abs=0.011)


def test_success_clears_the_reason() -> None:
    """One frame in time and the renderer is used again."""
    health = RendererHealth()
    health.failed(0.0, "out of memory")
    assert health.reason == "out of memory"
    health.succeeded(0.5)
    assert health.reason is None
    assert not health.retry_due(1e9)


def test_one_late_frame_is_no_failure() -> None:
    """Two in a row are; a frame in time between them forgives the first."""
    health = RendererHealth()
    health.missed(0.0, "late")
    health.succeeded(0.1)
    health.missed(0.2, "late")
    assert health.reason is None
    health.missed(0.3, "late")
    assert health.reason == "late"


def test_a_late_renderer_is_looked_at_again_soon() -> None:
    """Being late does not make the back-off grow: the machine may be busy for a moment only."""
    health = RendererHealth()
    for now_s in (1.0, 2.0, 3.0):
        health.missed(now_s, "late")
        health.missed(now_s, "late")
        assert waits(health, now_s) == pytest.approx(0.15, abs=0.011)
        health.succeeded(now_s + 0.2)
    health.failed(10.0, "no")
    assert waits(health, 10.0) == pytest.approx(0.5, abs=0.011)


def test_a_relapse_goes_on_with_the_back_off() -> None:
    """A renderer that keeps failing right after it recovered is tried ever more seldom."""
    health = RendererHealth()
    health.failed(0.0, "no")
    health.succeeded(0.5)
    health.failed(1.0, "no")
    assert waits(health, 1.0) == pytest.approx(1.0, abs=0.011)


def test_a_long_success_starts_the_back_off_afresh() -> None:
    """After half a minute of frames, a failure is a new one."""
    health = RendererHealth()
    for _ in range(5):
        health.failed(0.0, "no")
    for now_s in range(10, 60):
        health.succeeded(float(now_s))
    health.failed(60.0, "no")
    assert waits(health, 60.0) == pytest.approx(0.5, abs=0.011)


def test_what_is_lost_stays_lost() -> None:
    """A lost device is never tried again, whatever comes in late."""
    health = RendererHealth()
    health.failed(0.0, "device lost", lost=True)
    health.succeeded(1.0)
    assert health.lost
    assert health.reason == "device lost"
    assert not health.retry_due(1e9)

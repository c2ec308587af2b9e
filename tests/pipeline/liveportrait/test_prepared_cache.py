"""What is kept of prepared portraits."""

from dataclasses import dataclass

from pipeline.liveportrait.prepared_cache import PreparedCache


@dataclass(frozen=True)
class Fake:
    """A prepared portrait of a size."""

    bytes: int


def test_the_least_recently_used_portrait_goes_first() -> None:
    """Three of four bytes do not fit into ten; the one that was not asked for again goes."""
    cache: PreparedCache[Fake] = PreparedCache(10)
    first = cache.get("a", lambda: Fake(4))
    cache.get("b", lambda: Fake(4))
    assert cache.get("a", lambda: Fake(4)) is first
    cache.get("c", lambda: Fake(4))
    assert cache.bytes == 8
    assert cache.get("a", lambda: Fake(4)) is first
    again: list[str] = []
    cache.get("b", lambda: again.append("b") or Fake(4))
    assert again == ["b"]


def test_a_portrait_that_has_grown_is_counted_anew() -> None:
    """Others make room for it; what has outgrown the cache is used but not kept."""

    @dataclass
    class Growing:
        bytes: int

    cache: PreparedCache[Growing] = PreparedCache(10)
    first, second = cache.get("a", lambda: Growing(4)), cache.get("b", lambda: Growing(4))
    second.bytes = 8
    assert cache.get("b", lambda: Growing(0)) is second
    assert cache.bytes == 8
    assert cache.get("a", lambda: first) is first
    assert cache.bytes == 4
    first.bytes = 11
    assert cache.get("a", lambda: Growing(0)) is first
    assert cache.bytes == 0


def test_a_portrait_larger_than_the_cache_is_used_but_not_kept() -> None:
    """It displaces nothing."""
    cache: PreparedCache[Fake] = PreparedCache(10)
    kept = cache.get("a", lambda: Fake(4))
    assert cache.get("b", lambda: Fake(11)) == Fake(11)
    assert cache.get("a", lambda: Fake(1)) is kept
    cache.clear()
    assert cache.bytes == 0

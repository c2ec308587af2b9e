"""The composition: what the parts cannot show alone."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from orchestrator.app import Daemon
from orchestrator.housekeeping import Housekeeping
from orchestrator.settings import Settings, StateSettings, default_config_dir
from pipeline.frame_cache import FrameCache
from tests.fakes.metrics import RecordingMetrics


class Housekept:
    """Counts what housekeeping asks of stage and state."""

    name = "main"
    seq = 0
    degraded = None

    def __init__(self) -> None:
        self.loops: list[asyncio.AbstractEventLoop] = []

    def __iter__(self) -> "Iterator[Housekept]":
        yield self

    def probe(self) -> None:
        self.loops.append(asyncio.get_running_loop())

    def snapshot(self) -> dict[str, Any]:
        self.loops.append(asyncio.get_running_loop())
        return {"viewers": {}}

    def release_idle(self) -> None:
        self.loops.append(asyncio.get_running_loop())

    async def now(self) -> None:
        self.loops.append(asyncio.get_running_loop())


async def test_housekeeping_runs_in_the_event_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Probes, figures and state belong to the loop's thread; none may end up in another."""
    works: list[Callable[[], Awaitable[None]]] = []
    monkeypatch.setattr(Housekeeping, "every", lambda _self, _seconds, work: works.append(work))
    settings = Settings(state=StateSettings(dir=str(tmp_path)))
    daemon = Daemon(settings, default_config_dir() / "avatar.toml")
    kept = Housekept()
    cache = FrameCache(2**20, RecordingMetrics())
    daemon._housekeeping(cast(Any, kept), cast(Any, kept), cache, cast(Any, kept))
    assert len(works) == 3
    for work in works:
        assert asyncio.iscoroutinefunction(work)
        await work()
    assert kept.loops == [asyncio.get_running_loop()] * 4

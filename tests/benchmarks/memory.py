"""Resident memory of a daemon at work."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from itertools import cycle

from websockets.sync.client import ClientConnection, connect

from tests.benchmarks.daemon import MeasuredDaemon, Window, running_daemon
from tests.benchmarks.parts import Options
from tests.benchmarks.table import Table
from tests.benchmarks.viewers import Viewers

VIEWERS = 10
EVENT_EVERY_S = 2.0
LOOKS_MIN = (1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0)
MIB = 2.0**20


def run(options: Options) -> Iterator[Table]:
    """Ten viewers, and an event every other second, as a user runs it: on all cores."""
    table = Table(
        f"Memory in MiB and CPU with {VIEWERS} viewers and an event every {EVENT_EVERY_S:.0f} s",
        ("After", "RSS", "Frame cache", "The rest", "Cached frames", "Cache hits (%)", "Threads",
         "CPU since (% of a core)"),
    )  # fmt: skip
    looks = [minutes for minutes in LOOKS_MIN if minutes < options.minutes] + [options.minutes]
    with running_daemon() as daemon:
        _look(table, "READY", daemon, None)
        with (
            Viewers(daemon.port, VIEWERS, watched=0),
            connect(f"{daemon.ws}/v1/events") as producer,
        ):
            begun_s = time.monotonic()
            labels = cycle(json.loads(producer.recv())["emotions"])
            for minutes in looks:
                window = Window(daemon)
                _live(producer, labels, begun_s + minutes * 60.0)
                window.end()
                _look(table, f"{minutes:g} min", daemon, window)
    table.notes.append("The daemon is not pinned here.")
    yield table


def _live(producer: ClientConnection, labels: Iterator[str], until_s: float) -> None:
    """Send events and read what comes of them."""
    next_s = time.monotonic()
    while (now_s := time.monotonic()) < until_s:
        if now_s >= next_s:
            producer.send(json.dumps({"type": "emotion", "emotion": next(labels)}))
            next_s += EVENT_EVERY_S
        try:
            producer.recv(timeout=max(0.0, min(next_s, until_s) - time.monotonic()))
        except TimeoutError:
            continue


def _look(table: Table, after: str, daemon: MeasuredDaemon, window: Window | None) -> None:
    figures = daemon.scrape()
    rss = daemon.rss_bytes() / MIB
    cache = figures.total("cache_bytes") / MIB
    entries = int(figures.total("cache_entries"))
    hits = cpu = None
    if window is not None:
        hit, missed = (window.counted(f"cache_{kind}_total") for kind in ("hits", "misses"))
        hits = 100.0 * hit / (hit + missed) if hit + missed else None
        cpu = 100.0 * window.cpu
    table.add(after, rss, cache, rss - cache, entries, hits, daemon.threads(), cpu)

"""Resident memory of a daemon at work."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from itertools import cycle

from websockets.sync.client import ClientConnection, connect

from tests.benchmarks.daemon import MeasuredDaemon, running_daemon
from tests.benchmarks.machine import Cores
from tests.benchmarks.parts import Options
from tests.benchmarks.table import Table
from tests.benchmarks.viewers import Viewers

VIEWERS = 10
EVENT_EVERY_S = 2.0
LOOKS_MIN = (1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0)
MIB = 2.0**20


def run(options: Options) -> Iterator[Table]:
    """Ten viewers, and an event every other second."""
    cores = Cores.split()
    table = Table(
        f"Resident memory with {VIEWERS} viewers and an event every {EVENT_EVERY_S:.0f} s: MiB",
        ("After", "RSS", "Frame cache", "The rest", "Cached frames", "Cache hits (%)", "Threads"),
    )
    looks = [minutes for minutes in LOOKS_MIN if minutes < options.minutes] + [options.minutes]
    with running_daemon(cores.measured) as daemon:
        _look(table, "READY", daemon)
        with (
            Viewers(daemon.port, VIEWERS, watched=0, cores=cores.others),
            connect(f"{daemon.ws}/v1/events") as producer,
        ):
            begun_s = time.monotonic()
            labels = cycle(json.loads(producer.recv())["emotions"])
            for minutes in looks:
                _live(producer, labels, begun_s + minutes * 60.0)
                _look(table, f"{minutes:g} min", daemon)
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


def _look(table: Table, after: str, daemon: MeasuredDaemon) -> None:
    figures = daemon.scrape()
    rss = daemon.rss_bytes() / MIB
    cache = figures.total("cache_bytes") / MIB
    hits, misses = figures.total("cache_hits_total"), figures.total("cache_misses_total")
    share = 100.0 * hits / (hits + misses) if hits + misses else None
    entries = int(figures.total("cache_entries"))
    table.add(after, rss, cache, rss - cache, entries, share, daemon.threads())

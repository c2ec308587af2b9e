"""How evenly frames come, with one viewer and with many."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import pairwise

from tests.benchmarks.daemon import Window, running_daemon
from tests.benchmarks.figures import spread
from tests.benchmarks.machine import Cores
from tests.benchmarks.parts import Options
from tests.benchmarks.table import Table
from tests.benchmarks.viewers import Arrival, Viewers

FPS = 30.0
SETTLE_S = 2.0
AUDIENCES = (1, 100)


def run(options: Options) -> Iterator[Table]:
    """A minute alone and a minute with 100 viewers."""
    seconds = options.either(5.0, 60.0)
    cores = Cores.split()
    table = Table(
        f"Frame interval at {FPS:.0f} fps: deviation from {1000.0 / FPS:.1f} ms, in milliseconds",
        ("Viewers", "Seen by", "Intervals", "p50", "p99", "max", "Skipped ticks", "Missed frames",
         "CPU (% of a core)"),
    )  # fmt: skip
    with running_daemon(cores.measured) as daemon:
        for count in AUDIENCES:
            with Viewers(daemon.port, count, cores=cores.others) as viewers:
                time.sleep(SETTLE_S)
                viewers.mark()
                window = Window(daemon)
                time.sleep(seconds)
                report = viewers.report()
                window.end()
            lost = (
                window.counted("ticks_skipped_total"),
                window.counted("frames_dropped_total"),
                window.cpu * 100.0,
            )
            told = window.observed("frame_interval_deviation_seconds")
            shares = (told.quantile(0.5), told.quantile(0.99), told.ceiling)
            p50, p99, ceiling = (share * 1000.0 for share in shares)
            table.add(count, "the daemon", told.total, p50, p99, f"≤ {ceiling:g}", *lost)
            seen = [abs(interval - 1 / FPS) * 1000.0 for interval in _intervals(report.arrivals)]
            table.add(count, "viewers", len(seen), *spread(seen), *lost)
    table.notes.append(
        "The daemon's figures are interpolated in the buckets of its histogram; a viewer's are "
        "between the last bytes of consecutive frames."
    )
    table.notes.append(f"Cores: {cores}.")
    yield table


def _intervals(arrivals: Iterable[Arrival]) -> Iterator[float]:
    """Seconds between frames that follow each other at one viewer."""
    by_viewer: dict[int, list[Arrival]] = defaultdict(list)
    for arrival in arrivals:
        by_viewer[arrival.viewer].append(arrival)
    for its in by_viewer.values():
        for before, after in pairwise(its):
            if after.seq == before.seq + 1:
                yield after.at_s - before.at_s

"""How evenly frames come, with one viewer and with many."""

from __future__ import annotations

import json
import math
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from itertools import count, pairwise

from websockets.sync.client import connect

from tests.benchmarks.daemon import DAEMON, Window, running_daemon
from tests.benchmarks.figures import spread
from tests.benchmarks.machine import Cores
from tests.benchmarks.parts import Options
from tests.benchmarks.table import Table
from tests.benchmarks.viewers import Arrival, Viewers

FPS = 30.0
SETTLE_S = 2.0
GOLDEN = 2.399963  # radians: no two angles of many are alike (H. Vogel 1979)


@dataclass(frozen=True, slots=True)
class Case:
    """What is measured.

    Attributes:
        render: what a frame takes, for the table.
        python: how the daemon is started.
        driven: the head turns all the time, so that every frame is drawn.
    """

    viewers: int
    render: str
    python: tuple[str, ...] = DAEMON
    driven: bool = False


SLOW = Case(100, "20 ms, every frame", ("-m", "tests.chaos.faulty", "busy 0.02"), driven=True)
CASES = (Case(1, "as it is"), Case(100, "as it is"), SLOW)


def run(options: Options) -> Iterator[Table]:
    """A minute alone, a minute with 100 viewers, and one with a renderer that takes long, too."""
    seconds = options.either(5.0, 60.0)
    cores = Cores.split()
    table = Table(
        f"Frame interval at {FPS:.0f} fps: deviation from {1000.0 / FPS:.1f} ms, in milliseconds",
        ("Viewers", "Render", "Seen by", "Intervals", "p50", "p99", "max", "Skipped ticks",
         "Missed frames", "CPU (% of a core)"),
    )  # fmt: skip
    for case in CASES:
        with running_daemon(cores.measured, python=case.python) as daemon:
            with (
                Viewers(daemon.port, case.viewers, cores=cores.others) as viewers,
                _driven(daemon.ws) if case.driven else nullcontext(),
            ):
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
            table.add(
                case.viewers,
                case.render,
                "the daemon",
                told.total,
                p50,
                p99,
                f"≤ {ceiling:g}",
                *lost,
            )
            seen = [abs(interval - 1 / FPS) * 1000.0 for interval in _intervals(report.arrivals)]
            table.add(case.viewers, case.render, "viewers", len(seen), *spread(seen), *lost)
    table.notes.append(
        "The daemon's figures are interpolated in the buckets of its histogram; a viewer's are "
        "between the last bytes of consecutive frames."
    )
    table.notes.append(f"Cores: {cores}.")
    yield table


@contextmanager
def _driven(url: str) -> Iterator[None]:
    """Turn the head a little further with every frame until the block ends."""
    ended = threading.Event()

    def drive() -> None:
        with connect(f"{url}/v1/events") as producer:
            for number in count(1):
                yaw = 10.0 * math.sin(number * GOLDEN)
                message = {"type": "controls", "mode": "set", "head": {"yaw": yaw}}
                producer.send(json.dumps(message))
                if ended.wait(1.0 / FPS):
                    return

    thread = threading.Thread(target=drive)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _intervals(arrivals: Iterable[Arrival]) -> Iterator[float]:
    """Seconds between frames that follow each other at one viewer."""
    by_viewer: dict[int, list[Arrival]] = defaultdict(list)
    for arrival in arrivals:
        by_viewer[arrival.viewer].append(arrival)
    for its in by_viewer.values():
        for before, after in pairwise(its):
            if after.seq == before.seq + 1:
                yield after.at_s - before.at_s

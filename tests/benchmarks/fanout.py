"""How many viewers one core serves until the first of them misses a frame."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

from tests.benchmarks.daemon import MeasuredDaemon, Window, running_daemon
from tests.benchmarks.figures import spread
from tests.benchmarks.machine import Cores
from tests.benchmarks.parts import Options
from tests.benchmarks.table import Table
from tests.benchmarks.viewers import Viewers

SETTLE_S = 2.0
STEPS = (50, 100, 200, 400, 800, 1200, 1600, 2000, 2500, 3000, 4000)
QUICK_STEPS = (50, 200)
RATES = (30, 60)
ENOUGH_MISSED = 0.01


@dataclass(frozen=True, slots=True)
class Step:
    """What happened with one number of viewers.

    Attributes:
        missed: frames that some viewer did not get, and ticks without a frame times viewers.
        offered: frames times viewers.
    """

    viewers: int
    row: tuple[float, ...]
    missed: int
    offered: int


def run(options: Options) -> Iterator[Table]:
    """More and more viewers of a daemon on one core."""
    cores = Cores.split()
    for fps in RATES[: options.number(1, len(RATES))]:
        table = Table(
            f"Viewers of one daemon on one core, {fps} fps",
            ("Viewers", "Frames/s sent", "Missed", "Skipped ticks", "CPU (% of a core)",
             "Core taken (%)", "Receivers' CPU (%)", "Arrival p50 ms", "p99", "max"),
        )  # fmt: skip
        served = before = 0
        with running_daemon(cores.measured, AVATAR_STAGE__FPS=str(fps)) as daemon:
            for count in QUICK_STEPS if options.quick else STEPS:
                step = _measured(daemon, count, fps, options.either(3.0, 10.0), cores)
                table.add(*step.row)
                if not step.missed and served == before:
                    served = count
                before = count
                if step.missed > ENOUGH_MISSED * step.offered:
                    break
        table.notes.append(
            f"{served} viewers ({served * fps} frames/s) without a missed frame. Arrival is from "
            "publishing to the last byte at the viewer, for 20 viewers spread over all."
        )
        table.notes.append(
            "Core taken is the share of the time in which the event loop wanted to run but its "
            "core did something else: drew a frame of ours, or another program's work."
        )
        table.notes.append(f"Cores: {cores}; the daemon draws every frame on its core as well.")
        yield table


def _measured(daemon: MeasuredDaemon, count: int, fps: int, seconds: float, cores: Cores) -> Step:
    with Viewers(daemon.port, count, cores=cores.others) as viewers:
        time.sleep(SETTLE_S)
        viewers.mark()
        window = Window(daemon)
        time.sleep(seconds)
        report = viewers.report()
        window.end()
    missed = window.counted("frames_dropped_total", kind="websocket")
    skipped = window.counted("ticks_skipped_total")
    row = (
        count,
        round(window.counted("frames_sent_total", kind="websocket") / window.seconds),
        missed,
        skipped,
        window.cpu * 100.0,
        window.waited * 100.0,
        report.cpu * 100.0,
        *spread([arrival.latency_ms for arrival in report.arrivals]),
    )
    return Step(count, row, missed + skipped * count, round(count * fps * window.seconds))

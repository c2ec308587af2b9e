"""How long the daemon takes to start and to stop."""

from __future__ import annotations

import contextlib
import os
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from tests.benchmarks.daemon import running_daemon
from tests.benchmarks.machine import forget
from tests.benchmarks.parts import Options
from tests.benchmarks.table import Table
from tests.benchmarks.viewers import Viewers

ROOT = Path(__file__).parents[2]
VIEWERS = 200
SETTLE_S = 1.0
GOING_AWAY = "1001"


def run(options: Options) -> Iterator[Table]:
    """From the start of the process to READY, and from SIGTERM to its end."""
    table = Table(
        "Start of the daemon: seconds from the start of the process to READY (first frame)",
        ("Start", "Runs", "Median", "Longest", "Read from disk (MiB)"),
    )
    if hasattr(os, "posix_fadvise"):
        cold = [_cold_start() for _ in range(options.number(1, 3))]
        _add(table, "cold: its files are not in memory", cold)
    warm = [_start() for _ in range(options.number(2, 5))]
    _add(table, "warm", warm)
    yield table
    yield _stops(options.number(1, 3))


def _add(table: Table, name: str, starts: list[tuple[float, float | None]]) -> None:
    seconds = [each for each, _ in starts]
    read = [each for _, each in starts if each is not None]
    table.add(name, len(starts), median(seconds), max(seconds), median(read) if read else None)


def _start() -> tuple[float, float | None]:
    """Seconds to READY, and MiB read from disk where the system counts that."""
    begun_s = time.monotonic()
    with running_daemon() as daemon:
        seconds = time.monotonic() - begun_s
        return seconds, daemon.read_mib()


def _cold_start() -> tuple[float, float | None]:
    _forget_files()
    return _start()


def _stops(runs: int) -> Table:
    table = Table(
        f"Stop of the daemon: seconds from SIGTERM to the end of the process, {VIEWERS} viewers",
        ("Viewers", "Runs", "Median", "Longest", "Closed with 1001", "Exit status"),
    )
    for name, watched in (("answer the close", VIEWERS), ("hang on", 0)):
        stops = [_stop(watched) for _ in range(runs)]
        seconds = [each for each, _, _ in stops]
        codes = sorted({code for _, code, _ in stops}) if watched else [None]
        statuses = {status for _, _, status in stops}
        table.add(name, runs, median(seconds), max(seconds), codes[0], *statuses)
    table.notes.append("The end is seen within 50 ms.")
    return table


def _stop(watched: int) -> tuple[float, int, int]:
    """Seconds to the exit, watched viewers that were closed with 1001, exit status."""
    with (
        running_daemon() as daemon,
        Viewers(daemon.port, VIEWERS, watched=watched) as viewers,
    ):
        time.sleep(SETTLE_S)
        begun_s = time.monotonic()
        status = daemon.process.stop()
        seconds = time.monotonic() - begun_s
        return seconds, viewers.report().closed_with.get(GOING_AWAY, 0), status


def _forget_files() -> None:
    """Drop the files that the daemon reads from the page cache, as after a boot."""
    names = ("stdlib", "platstdlib", "purelib", "platlib")
    for folder in {ROOT, *(Path(sysconfig.get_path(name)) for name in names)}:
        for path in folder.rglob("*"):
            with contextlib.suppress(OSError):
                if path.is_file() and not path.is_symlink():
                    forget(path)

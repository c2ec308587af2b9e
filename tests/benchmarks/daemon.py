"""A real daemon to measure: its figures and its use of the processor."""

from __future__ import annotations

import contextlib
import math
import tempfile
import time
import urllib.request
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import psutil  # type: ignore[import-untyped]

from tests.benchmarks.figures import Histogram, Scrape
from tests.benchmarks.machine import on_cores
from tests.fakes.daemon import DaemonProcess

MANY_VIEWERS = "10000"
DAEMON = ("-m", "orchestrator", "run")


class MeasuredDaemon:
    """A running daemon as seen from outside."""

    def __init__(self, process: DaemonProcess) -> None:
        self.process = process
        self.port = process.port
        self.ws = process.ws
        self._seen = psutil.Process(process.process.pid)

    def scrape(self) -> Scrape:
        """GET /metrics."""
        with urllib.request.urlopen(f"{self.process.http}/metrics", timeout=30) as answer:
            return Scrape(answer.read().decode())

    def cpu_s(self) -> float:
        """Processor time so far, all threads, in user and kernel mode."""
        times = self._seen.cpu_times()
        return float(times.user + times.system)

    def loop_waited_s(self) -> float:
        """How long the event loop's thread was ready to run, but its core was taken.

        Second field of schedstat, nanoseconds (Linux, Documentation/scheduler/sched-stats.rst);
        NaN on other systems.
        """
        process = self.process.process.pid
        try:
            text = Path(f"/proc/{process}/task/{process}/schedstat").read_text("ascii")
        except OSError:
            return math.nan
        return int(text.split()[1]) / 1e9

    def rss_bytes(self) -> int:
        """Resident memory."""
        return int(self._seen.memory_info().rss)

    def read_mib(self) -> float | None:
        """MiB that it has read from disk so far; None where the system does not say."""
        counters = getattr(self._seen, "io_counters", None)
        return float(counters().read_bytes) / 2**20 if counters is not None else None

    def threads(self) -> int:
        return int(self._seen.num_threads())


@contextlib.contextmanager
def running_daemon(
    cores: Collection[int] = (), *, python: Sequence[str] = DAEMON, **settings: str
) -> Iterator[MeasuredDaemon]:
    """A daemon on these cores until the block ends; `settings` are environment variables."""
    with tempfile.TemporaryDirectory(prefix="avatar-bench-") as folder:
        with on_cores(cores):
            process = DaemonProcess(
                Path(folder), python=python, **{"AVATAR_LIMITS__VIEWERS": MANY_VIEWERS} | settings
            )
        try:
            with process:
                yield MeasuredDaemon(process)
        finally:
            if process.process.poll() is None:  # it never became ready, or would not stop
                process.process.kill()
                process.process.wait()


class Window:
    """A stretch of time in the daemon's life.

    Attributes:
        seconds: its length.
        cpu: share of one core that the daemon used.
        waited: share of the time in which its event loop was kept from running by others.
    """

    def __init__(self, daemon: MeasuredDaemon) -> None:
        self._daemon = daemon
        self._before = daemon.scrape()
        self._after = self._before
        self._begun_waited_s = daemon.loop_waited_s()
        self._begun_cpu_s, self._begun_s = daemon.cpu_s(), time.monotonic()
        self.seconds = self.cpu = self.waited = 0.0

    def end(self) -> None:
        """Look again, and fix what the window has seen."""
        self.seconds = time.monotonic() - self._begun_s
        self.cpu = (self._daemon.cpu_s() - self._begun_cpu_s) / self.seconds
        self.waited = (self._daemon.loop_waited_s() - self._begun_waited_s) / self.seconds
        self._after = self._daemon.scrape()

    def counted(self, name: str, **labels: str) -> int:
        """By how much a counter has risen."""
        return int(self._after.total(name, **labels) - self._before.total(name, **labels))

    def observed(self, name: str) -> Histogram:
        """What a histogram has observed."""
        return self._after.histogram(name).since(self._before.histogram(name))

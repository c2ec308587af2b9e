"""The machine under the figures, and which of its cores does what."""

from __future__ import annotations

import contextlib
import importlib.metadata
import multiprocessing
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import psutil  # type: ignore[import-untyped]

from tests.benchmarks.parts import Options
from tests.benchmarks.table import Table

T = TypeVar("T")

LIBRARIES = (
    "numpy", "opencv-python-headless", "simplejpeg", "aiohttp", "uvloop", "msgspec", "websockets",
)  # fmt: skip
BUSY_SHARE = 0.25


@dataclass(frozen=True, slots=True)
class Cores:
    """One core for what is measured, the others for what it is measured with.

    Both are empty where processes cannot be pinned, and the same where there is but one core.
    """

    measured: tuple[int, ...]
    others: tuple[int, ...]

    @classmethod
    def split(cls) -> Cores:
        """The last core that we may use, and the rest; the first serves most interrupts."""
        if not hasattr(os, "sched_getaffinity"):
            return cls((), ())
        allowed = sorted(os.sched_getaffinity(0))
        return cls((allowed[-1],), tuple(allowed[:-1]) or (allowed[-1],))

    def __str__(self) -> str:
        if not self.measured:
            return "processes are not pinned: this system cannot"
        if self.measured == self.others:
            return f"everything on core {self.measured[0]}: there is no other"
        others = ", ".join(map(str, self.others))
        return f"the daemon on core {self.measured[0]}, what measures it on {others}"


@contextlib.contextmanager
def on_cores(cores: Collection[int]) -> Iterator[None]:
    """Keep this process, and every process and thread it starts, to these cores for a while."""
    if not cores:
        yield
        return
    before = {thread: os.sched_getaffinity(thread) for thread in _threads()}
    mine = os.sched_getaffinity(0)
    _pin({thread: set(cores) for thread in before})
    try:
        yield
    finally:
        _pin({thread: before.get(thread, mine) for thread in _threads()})


def in_process_on(cores: Collection[int], work: Callable[[Options], T], options: Options) -> T:
    """Have work done by a process that never knew more than these cores.

    Libraries choose their number of threads when they are imported: pinning a process later
    would leave too many of them for its cores.
    """
    with (
        on_cores(cores),
        ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process,
    ):
        return process.submit(work, options).result()


def _threads() -> list[int]:
    tasks = Path("/proc/self/task")
    return [int(each.name) for each in tasks.iterdir()] if tasks.is_dir() else [0]


def _pin(cores: dict[int, set[int]]) -> None:
    for thread, its in cores.items():
        with contextlib.suppress(ProcessLookupError):  # it has ended meanwhile
            os.sched_setaffinity(thread, its)


def forget(path: Path) -> None:
    """Drop a file from the page cache, as after a boot, where the system has a way to."""
    if not hasattr(os, "posix_fadvise"):
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            os.fsync(descriptor)  # what is not written yet would stay
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)


def described() -> Table:
    """What the figures depend on."""
    table = Table("Machine", ("What", "Which"))
    memory = psutil.virtual_memory().total / 2**30
    physical = psutil.cpu_count(logical=False) or 0
    table.add("CPU", f"{_cpu()}, {physical} cores, {os.cpu_count()} threads")
    table.add("Memory", f"{memory:.0f} GiB")
    table.add("System", f"{_system()}, {platform.machine()}")
    table.add("Python", f"{platform.python_implementation()} {platform.python_version()}")
    versions = (f"{name} {importlib.metadata.version(name)}" for name in LIBRARIES)
    table.add("Libraries", ", ".join(versions))
    busy = psutil.cpu_percent(interval=0.5) / 100.0
    table.add("Load", f"{busy:.0%} of all cores before the start")
    if busy > BUSY_SHARE:
        table.notes.append("The machine was busy with other work: do not trust absolute figures.")
    return table


def _cpu() -> str:
    found = _after("model name", _cpuinfo()) or _after("Model name", _lscpu())
    return found or platform.processor() or platform.machine()


def _cpuinfo() -> str:
    try:
        return Path("/proc/cpuinfo").read_text("utf-8")
    except OSError:
        return ""


def _lscpu() -> str:
    """aarch64 has no names in /proc/cpuinfo, but lscpu knows them."""
    command = shutil.which("lscpu")
    if command is None:
        return ""
    done = subprocess.run([command], capture_output=True, text=True, check=False)
    return done.stdout


def _after(key: str, text: str) -> str:
    """Every different value of `key: value` lines, joined."""
    lines = (line.partition(":") for line in text.splitlines())
    values = (value.strip() for name, _, value in lines if name.strip() == key)
    return " + ".join(dict.fromkeys(values))


def _system() -> str:
    if sys.platform != "linux":
        return platform.platform(terse=True)
    try:
        name = platform.freedesktop_os_release().get("PRETTY_NAME", "Linux")
    except OSError:
        name = "Linux"
    return f"{name}, Linux {platform.release().split('-')[0]}"

"""The machine: processor, memory, limits and clock, as far as this process may use them."""

from __future__ import annotations

import os
import platform
import re
import resource
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Final

from orchestrator.doctor.patient import Patient
from orchestrator.doctor.probing import told_by
from orchestrator.doctor.report import Diagnosis

MIB: Final = 2**20
CGROUP: Final = Path("/sys/fs/cgroup")
CLOCK: Final = Path("/sys/devices/system/clocksource/clocksource0/current_clocksource")
CONTAINERS: Final = (Path("/.dockerenv"), Path("/run/.containerenv"))
SLOW_CLOCKS: Final = ("hpet", "acpi_pm", "jiffies")
# The daemon on the mesh renderer without its frame cache.
DAEMON_BYTES: Final = 256 * MIB
SPARE_FILES: Final = 256


def look(patient: Patient) -> Iterator[Diagnosis]:
    """Processor, memory, limits, clock."""
    yield _processor()
    yield _load()
    yield from _memory(patient)
    yield _files(patient)
    yield _clock()
    if any(path.exists() for path in CONTAINERS):
        yield Diagnosis("ok", "container", "this runs in a container")


def usable_cores() -> float:
    """Cores that this process may use: of the affinity and the control group's quota the less."""
    affine = getattr(os, "sched_getaffinity", None)
    cores = float(len(affine(0)) if affine is not None else os.cpu_count() or 1)
    quota, _, period = _read(CGROUP / "cpu.max").partition(" ")
    if quota.isdigit() and period.isdigit():
        cores = min(cores, int(quota) / int(period))
    return cores


def _processor() -> Diagnosis:
    found = re.search(r"^model name\s*:\s*(.+)$", _read(Path("/proc/cpuinfo")), re.MULTILINE)
    model = found.group(1) if found else platform.processor() or platform.machine()
    cores = usable_cores()
    text = f"{model}; {cores:g} of {os.cpu_count()} cores may be used"
    if cores < 1.0:
        advice = "less than one core stutters; raise the container's or the unit's processor quota"
        return Diagnosis("FAIL", "processor", text, advice)
    return Diagnosis("ok", "processor", text)


def _load() -> Diagnosis:
    try:
        one, five, fifteen = os.getloadavg()
    except OSError:
        return Diagnosis("note", "load", "unknown")
    text = f"{one:.1f}, {five:.1f}, {fifteen:.1f} processes wait for or use a core"
    if one > 2.0 * (os.cpu_count() or 1):
        return Diagnosis("note", "load", text, "frames come unevenly on a machine this busy")
    return Diagnosis("ok", "load", text)


def _memory(patient: Patient) -> Iterator[Diagnosis]:
    figures = dict(re.findall(r"^(\w+):\s+(\d+) kB", _read(Path("/proc/meminfo")), re.MULTILINE))
    if "MemTotal" not in figures:
        yield Diagnosis("note", "memory", "unknown")
        return
    total, free = (int(figures[name]) * 1024 for name in ("MemTotal", "MemAvailable"))
    text = f"{free // MIB} of {total // MIB} MiB available"
    limit, used = _read(CGROUP / "memory.max").strip(), _read(CGROUP / "memory.current").strip()
    if limit.isdigit() and used.isdigit():
        free = min(free, int(limit) - int(used))
        text += f"; the control group allows {int(limit) // MIB} MiB, {int(used) // MIB} in use"
    cache = patient.settings.cache.max_bytes if patient.settings is not None else 0
    if free < cache + DAEMON_BYTES:
        advice = f"the frame cache alone may take {cache // MIB} MiB; lower cache.max_bytes"
        yield Diagnosis("note", "memory", text, advice)
    else:
        yield Diagnosis("ok", "memory", text)


def _files(patient: Patient) -> Diagnosis:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    shown = "unlimited" if hard == resource.RLIM_INFINITY else str(hard)
    text = f"{soft} open files, {shown} at most"
    if patient.settings is not None:
        limits = patient.settings.limits
        wanted = limits.viewers + limits.producers + SPARE_FILES
        if hard not in (resource.RLIM_INFINITY,) and hard < wanted:
            return Diagnosis(
                "note",
                "limits",
                f"{text}; {limits.viewers} viewers and {limits.producers} producers need {wanted}",
                "raise LimitNOFILE of the unit (ulimit -n), or lower limits.viewers",
            )
    return Diagnosis("ok", "limits", text)


def _clock() -> Diagnosis:
    now = datetime.now().astimezone().isoformat(timespec="seconds")
    source = _read(CLOCK).strip()
    text = f"{now}, clock source {source or 'unknown'}"
    if source in SLOW_CLOCKS:
        advice = (
            "reading this clock is slow; boot with clocksource=tsc if the processor has a good one"
        )
        return Diagnosis("note", "clock", text, advice)
    synchronised = told_by(("timedatectl", "show", "-p", "NTPSynchronized", "--value"), 2.0)
    if synchronised.output.strip() == "no":
        advice = "ts_ms of the frames is off by as much as the clock; turn on time synchronisation"
        return Diagnosis("note", "clock", f"{text}, not synchronised", advice)
    return Diagnosis("ok", "clock", text)


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace")
    except OSError:
        return ""

"""The systemd unit and what the journal last complained of, where there is one."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from orchestrator.doctor.patient import Patient
from orchestrator.doctor.probing import told_by
from orchestrator.doctor.report import Diagnosis

UNIT: Final = "avatar-orchestrator.service"
SYSTEMD: Final = Path("/run/systemd/system")
ASKED: Final = (
    "LoadState", "ActiveState", "SubState", "UnitFileState", "NRestarts", "Result",
    "ExecMainStatus", "ExecMainStartTimestamp", "NeedDaemonReload",
)  # fmt: skip
TOOL_S: Final = 4.0
LINES: Final = 500
SHOWN: Final = 8
LINE_CHARS: Final = 300
GRAVE: Final = ("warning", "error", "critical")
STATUSES: Final = {
    "64": "wrong command line: see ExecStart of the unit",
    "69": "another process has the daemon's port: see Ports, below",
    "70": "an error in the daemon: see the log",
    "75": "the GPU was lost: see nvidia-smi and the kernel's log",
    "78": "wrong settings: avatar-orchestrator check --config with the unit's file",
}


def look(patient: Patient, systemd: Path = SYSTEMD) -> Iterator[Diagnosis]:
    """State of the unit, recent warnings and errors."""
    if not systemd.is_dir():
        yield Diagnosis("ok", "systemd", "this machine is not run by systemd")
        return
    told = told_by(("systemctl", "show", UNIT, f"--property={','.join(ASKED)}"), TOOL_S)
    if told.trouble is not None:
        advice = "run systemctl status avatar-orchestrator by hand"
        yield Diagnosis("note", "systemd", f"systemctl: {told.trouble}", advice)
        return
    yield from judge_unit(dict(line.partition("=")[::2] for line in told.output.splitlines()))
    yield from _journal()


def judge_unit(unit: dict[str, str]) -> Iterator[Diagnosis]:
    """Findings about what `systemctl show` says."""
    if unit.get("LoadState") != "loaded":
        yield Diagnosis("ok", "unit", f"{UNIT} is not installed")
        return
    state = f"{unit.get('ActiveState')} ({unit.get('SubState')}), {unit.get('UnitFileState')}"
    text = f"{state}; since {unit.get('ExecMainStartTimestamp') or 'never'}"
    status = unit.get("ExecMainStatus", "0")
    if unit.get("ActiveState") == "failed":
        advice = STATUSES.get(status, f"journalctl -u {UNIT} says why")
        yield Diagnosis("FAIL", "unit", f"{text}; {unit.get('Result')}, status {status}", advice)
    else:
        yield Diagnosis("ok", "unit", text)
    restarts = unit.get("NRestarts", "0")
    if restarts.isdigit() and int(restarts):
        text = f"systemd has restarted it {restarts} times, last after status {status}"
        advice = STATUSES.get(status, "see below, and the journal")
        yield Diagnosis("note", "restarts", text, advice)
    if unit.get("NeedDaemonReload") == "yes":
        text = "the unit file has changed since it was read"
        yield Diagnosis("note", "unit file", text, "systemctl daemon-reload, then restart")


def _journal() -> Iterator[Diagnosis]:
    told = told_by(
        ("journalctl", "-u", UNIT, "-n", str(LINES), "-o", "cat", "--no-pager", "--quiet"), TOOL_S
    )
    if told.trouble is not None:
        advice = "run this as root, or as a member of the group systemd-journal"
        yield Diagnosis("note", "journal", f"cannot be read: {told.trouble}", advice)
        return
    yield from judge_log(told.output.splitlines())


def judge_log(lines: list[str]) -> Iterator[Diagnosis]:
    """Findings about lines of the daemon's log: JSON of its own, anything else of others."""
    grave = [entry for entry in map(_entry, lines) if entry is not None]
    if not grave:
        yield Diagnosis("ok", "log", f"no warnings in the last {len(lines)} lines")
        return
    counts = Counter(str(entry.get("event")) for entry in grave)
    often = ", ".join(f"{event} {times} times" for event, times in counts.most_common(SHOWN))
    yield Diagnosis("note", "log", f"warnings and errors in the last {len(lines)} lines: {often}")
    for entry in grave[-SHOWN:]:
        fields = (f"{k}={v}" for k, v in entry.items() if k not in ("timestamp", "event", "logger"))
        line = f"{entry.get('timestamp', '')} {entry.get('event')}: {' '.join(fields)}"
        yield Diagnosis("note", "log", line[:LINE_CHARS])


def _entry(line: str) -> dict[str, Any] | None:
    """A warning or error; None for anything else."""
    try:
        entry = json.loads(line)
    except ValueError:
        if "Traceback" in line or "Fatal Python error" in line:
            return {"event": line.strip()}
        return None
    if isinstance(entry, dict) and entry.get("level") in GRAVE:
        return entry
    return None

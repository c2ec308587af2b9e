"""Looking at things that may hang or break: each for a bounded time, each alone."""

from __future__ import annotations

import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from structlog.testing import capture_logs

from orchestrator.check import Verdict
from orchestrator.doctor.patient import Patient
from orchestrator.doctor.redaction import Redactor
from orchestrator.doctor.report import Diagnosis, Examined

T = TypeVar("T")
Look = Callable[[Patient], Iterator[Diagnosis]]
_MOST_FINDINGS: Final = 200
_MOST_OUTPUT: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Section:
    """One part of the examination.

    Attributes:
        look: gives the findings; runs in a thread of its own.
        deadline_s: it is given up after that.
        needs_settings: it makes no sense without usable settings.
    """

    title: str
    look: Look
    deadline_s: float
    needs_settings: bool = False


def examine(section: Section, patient: Patient, redactor: Redactor) -> Examined:
    """Look at one section. What has been found before it hangs or breaks is kept."""
    began_s = time.monotonic()
    if section.needs_settings and patient.settings is None:
        skipped = Diagnosis("note", "not looked at", "the configuration cannot be used")
        return Examined(section.title, (skipped,), 0.0)
    found: list[Diagnosis] = []

    def look() -> None:
        try:
            for finding in section.look(patient):
                if len(found) >= _MOST_FINDINGS:
                    found.append(Diagnosis("note", "more", "there is more of it"))
                    return
                found.append(finding)
        except Exception as error:
            # A report without one section is better than none.
            found.append(_broken(error))

    thread = threading.Thread(target=look, name=f"doctor-{section.title}", daemon=True)
    # What is looked at may log, and the log's default is standard output.
    with capture_logs() as logged:
        thread.start()
        thread.join(section.deadline_s)
    findings = [*found, *map(_logged, logged[:_MOST_FINDINGS])]
    if thread.is_alive():
        findings.append(
            Diagnosis(
                "FAIL",
                "no answer",
                f"not done after {section.deadline_s:g} s; what comes after the lines above hangs",
                "look for a stuck device, network folder or name server",
            )
        )
    shown = tuple(redactor.finding(finding) for finding in findings)
    return Examined(section.title, shown, round(time.monotonic() - began_s, 3))


def _logged(entry: MutableMapping[str, Any]) -> Diagnosis:
    fields = " ".join(f"{k}={v}" for k, v in entry.items() if k not in ("event", "log_level"))
    verdict: Verdict = "ok" if entry.get("log_level") in ("debug", "info") else "note"
    return Diagnosis(verdict, "log", f"{entry.get('event')}: {fields}")


def _broken(error: Exception) -> Diagnosis:
    kind = type(error).__name__
    return Diagnosis(
        "FAIL",
        "not looked at",
        f"{kind}: {' '.join(str(error).split())[:300]}",
        "this is a fault of the report itself or of a broken installation; please pass it on",
    )


def all_within(looks: Sequence[Callable[[], T]], deadline_s: float) -> list[T | None]:
    """Do several things at the same time; None for each that has not come back in time.

    The things raise nothing.
    """
    results: list[T | None] = [None] * len(looks)

    def run(place: int, look: Callable[[], T]) -> None:
        results[place] = look()

    threads = [threading.Thread(target=run, args=pair, daemon=True) for pair in enumerate(looks)]
    for thread in threads:
        thread.start()
    end_s = time.monotonic() + deadline_s
    for thread in threads:
        thread.join(max(0.0, end_s - time.monotonic()))
    return list(results)


@dataclass(frozen=True, slots=True)
class Told:
    """What a program said.

    Attributes:
        trouble: None, or why there is nothing to read: `missing`, `hangs`, or its complaint.
    """

    output: str
    trouble: str | None = None


def told_by(arguments: Sequence[str], timeout_s: float) -> Told:
    """Run a program that asks nothing, and read what it says."""
    program = shutil.which(arguments[0])
    if program is None:
        return Told("", "missing")
    try:
        done = subprocess.run(
            [program, *arguments[1:]],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Told("", "hangs")
    except OSError as error:
        return Told("", error.strerror or str(error))
    output = done.stdout[:_MOST_OUTPUT].decode("utf-8", "replace")
    if done.returncode:
        complaint = done.stderr.decode("utf-8", "replace").strip() or output.strip()
        last = complaint.splitlines()[-1][:300] if complaint else ""
        return Told(output, f"exit status {done.returncode}: {last}")
    return Told(output)

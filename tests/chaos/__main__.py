"""`python -m tests.chaos [PART ...]`: break things on purpose, and print what came of it."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tests.benchmarks.figures import percentile
from tests.benchmarks.machine import described
from tests.benchmarks.table import Table
from tests.chaos import (
    clock_faults,
    disk_faults,
    floods,
    producer_faults,
    renderer_faults,
    restarts,
    sink_faults,
    starts,
    viewer_faults,
)
from tests.chaos.fault import Fault, Outcome, Seen, carry_out_alone
from tests.chaos.kills import kill_and_restart
from tests.chaos.namespaces import NotPossibleHereError
from tests.chaos.scene import Scene

CONTROL_S = 3.0


async def _nothing(_: Scene) -> Seen:
    await asyncio.sleep(CONTROL_S)
    return Seen("", 0.0)


FAULTS = {
    "control": (Fault("nothing at all, for comparison", _nothing),),
    "renderer": renderer_faults.FAULTS,
    "sink": sink_faults.FAULTS,
    "viewer": viewer_faults.FAULTS,
    "producer": producer_faults.FAULTS,
    "disk": disk_faults.FAULTS,
    "clock": clock_faults.FAULTS,
}
PARTS = (*FAULTS, "floods", "starts", "restarts", "kills")


@dataclass(slots=True)
class Verdict:
    """Whether all was as it should be."""

    failed: bool = False


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out parts one after the other.

    Returns:
        1 if something was lost or did not recover.
    """
    options = _parser().parse_args(arguments)
    chosen = [part for part in PARTS if part in (options.parts or PARTS)]
    verdict = Verdict()
    tables = [lambda: iter([described()])]
    faults = [fault for part in chosen if part in FAULTS for fault in FAULTS[part]]
    if faults:
        tables.append(lambda: _faults(faults, options.times, verdict))
    if "floods" in chosen:
        tables.append(lambda: _floods(options.times, verdict))
    if "starts" in chosen:
        tables.append(lambda: _starts(options.times, verdict))
    if "restarts" in chosen:
        tables.append(lambda: _restarts(options.times, verdict))
    if "kills" in chosen:
        tables.append(lambda: _kills(options.kills, verdict))
    for make in tables:
        for table in make():
            sys.stdout.write(f"{table.markdown() if options.markdown else table.text()}\n")
            sys.stdout.flush()
    return int(verdict.failed)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="make chaos CHAOS=...", description="Break a running daemon, and see what it does."
    )
    parser.add_argument(
        "parts", nargs="*", metavar="PART", choices=[*PARTS, []],
        help=f"of {', '.join(PARTS)} (default: all)",
    )  # fmt: skip
    parser.add_argument("--times", type=int, default=3, help="how often each (default: 3)")
    parser.add_argument("--kills", type=int, default=100, help="kill -9 so often (default: 100)")
    parser.add_argument("--markdown", action="store_true", help="tables ready for the README")
    return parser


def _faults(faults: Sequence[Fault], times: int, verdict: Verdict) -> Iterator[Table]:
    table = Table(
        "Faults, each at a daemon of its own at 30 fps",
        ("What was done", "Times", "Frames missed", "Of the full rate (%)", "Longest interval ms",
         "Cues", "Without their one ending", "Recovery s p50", "max", "Where it is seen"),
    )  # fmt: skip
    for fault in faults:
        outcomes, trouble = _outcomes(fault, times, verdict)
        table.add(
            fault.name, len(outcomes), *_summed(outcomes, verdict), trouble or _where(outcomes)
        )
    table.notes.append(
        "Frames, intervals and cues are those of three healthy viewers and a producer of ten cues "
        "a second beside. Recovery is from the end of the fault until all is as before."
    )
    table.notes.append(_load())
    yield table


def _outcomes(fault: Fault, times: int, verdict: Verdict) -> tuple[list[Outcome], str]:
    """Of each time, and what was in the way."""
    sys.stderr.write(f"[{fault.name}]\n")
    outcomes: list[Outcome] = []
    trouble = ""
    for _ in range(times):
        try:
            outcomes.append(asyncio.run(carry_out_alone(fault)))
        except NotPossibleHereError as error:
            trouble = f"not possible here: {error}"
            break
        except Exception:
            traceback.print_exc()
            trouble, verdict.failed = "FAILED: see above", True
    return outcomes, trouble


def _floods(times: int, verdict: Verdict) -> Iterator[Table]:
    table = Table(
        "Floods, beside a producer of 20 cues a second and three viewers",
        ("Flood", "Times", "Messages/s", "Hung up on", "Accepted ms p50 / p99", "during it",
         "Started ms p50 / p99", "during it", "Frame interval ms p50 / p99", "during it",
         "Frames missed", "Without their one ending"),
    )  # fmt: skip
    for fault in floods.FAULTS:
        outcomes, trouble = _outcomes(fault, times, verdict)
        seen = [each.seen for each in outcomes if isinstance(each.seen, floods.Compared)]
        if not seen:
            table.add(fault.name, 0, *([None] * 9), trouble)
            continue
        before = floods.joined([each.before for each in seen])
        during = floods.joined([each.during for each in seen])
        missed, _, _, _, unended, _, _ = _summed(outcomes, verdict)
        table.add(
            fault.name, len(seen), max(each.sent_per_s for each in seen),
            sum(each.hung_up for each in seen),
            floods.summary(before.accepted), floods.summary(during.accepted),
            floods.summary(before.started), floods.summary(during.started),
            floods.summary(before.intervals), floods.summary(during.intervals),
            missed, unended,
        )  # fmt: skip
    table.notes.append(
        f"Each is looked at for {floods.LOOK_S:g} s without the flood, then for as long during it. "
        "All of it, flood and viewers too, has the same cores."
    )
    table.notes.append(_load())
    yield table


def _restarts(times: int, verdict: Verdict) -> Iterator[Table]:
    table = Table(
        "The renderer is lost for good: the daemon ends, and is started again at once",
        ("What was done", "Times", "Exit status", "Seconds to the end, max",
         "New start to a frame s, max", "Character and mood kept", "Cues", "Without an outcome",
         "Where it is seen"),
    )  # fmt: skip
    for loss in restarts.LOSSES:
        sys.stderr.write(f"[{loss.name}]\n")
        try:
            done = [asyncio.run(restarts.lose(loss)) for _ in range(times)]
        except Exception:
            traceback.print_exc()
            verdict.failed = True
            table.add(loss.name, times, "FAILED: see above", *([None] * 6))
            continue
        unsettled = sum(each.events - each.outcomes.total() for each in done)
        statuses = {each.status for each in done}
        verdict.failed |= bool(unsettled) or statuses != {restarts.DEVICE_LOST}
        verdict.failed |= not all(each.kept for each in done)
        table.add(
            loss.name, times, ", ".join(map(str, sorted(statuses))),
            max(each.end_s for each in done), max(each.back_s for each in done),
            sum(each.kept for each in done), sum(each.events for each in done), unsettled,
            f"log: ending_because_of_device ({done[0].reason})",
        )  # fmt: skip
    table.notes.append(_load())
    yield table


def _summed(outcomes: Sequence[Outcome], verdict: Verdict) -> tuple[float | None, ...]:
    if not outcomes:
        return (None,) * 7
    noticed = [outcome.noticed for outcome in outcomes]
    unended = sum(each.unended + each.twice for each in noticed)
    missed = sum(each.missed for each in noticed)
    verdict.failed |= bool(unended or missed)
    recovery_s = [outcome.seen.recovery_s for outcome in outcomes]
    return (
        missed,
        100.0 * min(each.rate for each in noticed),
        max(each.longest_ms for each in noticed),
        sum(each.cues for each in noticed),
        unended,
        percentile(recovery_s, 50),
        max(recovery_s),
    )


def _where(outcomes: Sequence[Outcome]) -> str:
    reason = outcomes[0].seen.reason
    return reason if len(reason) < 90 else f"{reason[:87]}..."


def _starts(times: int, verdict: Verdict) -> Iterator[Table]:
    table = Table(
        "Starts and stops",
        ("What was done", "Times", "Exit status", "Seconds to the end, max", "Errors in the log"),
    )
    for moment in starts.MOMENTS:
        sys.stderr.write(f"[{moment.name}]\n")
        try:
            stops = [asyncio.run(starts.carry_out(moment)) for _ in range(times)]
        except Exception:
            traceback.print_exc()
            verdict.failed = True
            table.add(moment.name, times, "FAILED: see above", None, None)
            continue
        statuses = sorted({stop.status for stop in stops})
        verdict.failed |= not set(statuses) <= set(moment.statuses)
        table.add(
            moment.name, times, ", ".join(map(str, statuses)),
            max(stop.seconds for stop in stops), sum(stop.errors for stop in stops),
        )  # fmt: skip
    table.notes.append("-15: the signal came before Python had begun to listen to it.")
    table.notes.append(_load())
    yield table


def _kills(times: int, verdict: Verdict) -> Iterator[Table]:
    sys.stderr.write(f"[kill -9, {times} times]\n")
    killed = asyncio.run(kill_and_restart(times))
    table = Table("kill -9 at random moments under load, started again at once", ("What", "Figure"))
    table.add("kills", times)
    for name, values in (("a frame at a viewer", killed.frame_s), ("all as it was", killed.back_s)):
        table.add(f"new start to {name}, s: p50", percentile(values, 50))
        table.add(f"new start to {name}, s: p99", percentile(values, 99))
        table.add(f"new start to {name}, s: max", max(values))
    table.add("another character or mood than confirmed", killed.wrong)
    table.add("state files that were not whole", killed.corrupt)
    table.add("events sent", killed.events)
    for outcome, number in sorted(killed.outcomes.items()):
        table.add(f"of those: {outcome}", number)
    table.add("of those: without an outcome", killed.unsettled)
    table.notes.append(_load())
    verdict.failed |= bool(killed.wrong or killed.corrupt or killed.unsettled)
    verdict.failed |= sum(killed.outcomes.values()) != killed.events
    yield table


def _load() -> str:
    return f"Load average at the end: {os.getloadavg()[0]:.1f} on {os.cpu_count()} threads."


if __name__ == "__main__":
    sys.exit(main())

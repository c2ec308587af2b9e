"""`make bench-liveportrait`: plain eager against the fast form, on one device."""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from pipeline.errors import AvatarError
from tests.benchmarks.liveportrait.first import first
from tests.benchmarks.liveportrait.forms import FLOAT32, forms, pairs
from tests.benchmarks.liveportrait.source import Source
from tests.benchmarks.table import Table

Say = Callable[[str], None]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print.

    Returns:
        1 if the weights cannot be loaded.
    """
    options = _parser().parse_args(arguments)
    try:
        with _weights(options) as (weights_dir, described):
            device = options.device or _best_device()
            source = Source(weights_dir, device, options.threads)
            for table in _tables(source, described, options, _say):
                text = table.markdown() if options.markdown else table.text()
                sys.stdout.write(f"{text}\n")
                sys.stdout.flush()
    except AvatarError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="make bench-liveportrait BENCH=...",
        description="Measure LivePortrait's plain eager form against the fast one.",
    )
    add = parser.add_argument
    add(
        "--weights",
        type=Path,
        metavar="DIR",
        help="folder that holds liveportrait/ (default: synthetic weights, 520 MB for a while)",
    )
    add("--device", help="cpu, cuda, cuda:1 or mps (default: cuda where it is, else cpu)")
    add("--frames", type=_positive, help="rounds of frames (default: 30, on a CPU 3)")
    add("--threads", type=_positive, help="that torch uses on a CPU (default: torch's choice)")
    add("--float32", action="store_true", help="leave half precision out")
    add("--quick", action="store_true", help="one round, and no first frames")
    add("--markdown", action="store_true", help="tables ready for the README")
    add("--dry", action="store_true",
        help="stand-ins in the place of the model, to try the benchmark out")  # fmt: skip
    return parser


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected a number from 1 on, found {text}")
    return value


@contextlib.contextmanager
def _weights(options: argparse.Namespace) -> Iterator[tuple[Path | None, str]]:
    """The folder of the weights, and what they are."""
    if options.dry:
        yield None, "stand-ins: no figure here means anything"
    elif options.weights is not None:
        yield options.weights, "weights as they are in the given folder"
    else:
        from tests.fakes.liveportrait_weights import write_checkpoints

        _say("writing synthetic weights")
        with tempfile.TemporaryDirectory() as folder:
            write_checkpoints(Path(folder), seed=1)
            yield Path(folder), "synthetic weights"


def _tables(source: Source, weights: str, options: argparse.Namespace, say: Say) -> Iterator[Table]:
    from tests.benchmarks.character import transitions
    from tests.benchmarks.liveportrait import report, rounds
    from tests.benchmarks.liveportrait.clock import Clock, matrix_peak
    from tests.benchmarks.liveportrait.subject import half_types

    source.check()
    source.settle()
    clock = Clock(source.device)
    halves = () if options.float32 else half_types(source.device)
    every = forms(halves)
    frames = 1 if options.quick else options.frames or (3 if clock.kind == "cpu" else 30)
    side, times = (256, 2) if options.dry else (4096, 20) if clock.kind == "cuda" else (2048, 5)

    def peaks() -> dict[str, float]:
        say("measuring what the device can do")
        kinds = (FLOAT32, *halves)
        return {
            each: matrix_peak(clock, source.device, each, side=side, times=times) for each in kinds
        }

    yield report.machine(source.device, weights)
    if not options.quick:
        found = {}
        for form in every:
            say(f"first frame: {form}")
            found[form] = first(source, form)
        yield report.firsts(found)
    before = peaks()
    # A face per round, each another, from the middle of transitions between emotions.
    faces = list(transitions(4 * (frames + 1)))[3::4]
    with contextlib.ExitStack() as stack:
        subjects = {form: stack.enter_context(source.loaded(form)) for form in every}
        figures = rounds.measured(subjects, faces, clock, say)
        if clock.kind == "cuda" or options.dry:
            say("frames per second")
            fast = {form: subjects[form] for form in every if form.fast}
            rates = {form: rounds.throughput(each, faces, clock) for form, each in fast.items()}
            reasons = {form: each.fallback_reasons for form, each in fast.items()}
    after = peaks()
    yield report.stages(figures, frames, clock)
    yield report.ratios(figures, pairs(clock.kind, halves))
    yield report.arithmetic(figures, {each: max(before[each], after[each]) for each in before})
    if clock.kind == "cuda" or options.dry:
        yield report.throughputs(rates, reasons)


def _best_device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _say(text: str) -> None:
    sys.stderr.write(f"[{text}]\n")


if __name__ == "__main__":
    sys.exit(main())

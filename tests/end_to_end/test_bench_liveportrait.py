"""`make bench-liveportrait`: what it compares, and the tables it prints."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.types import FaceControls
from tests.benchmarks.liveportrait.forms import Form, Pair, factors, forms, pairs
from tests.end_to_end.test_benchmarks import tables

pytest.importorskip("torch", reason="torch is not installed")

from tests.benchmarks.liveportrait import report
from tests.benchmarks.liveportrait.__main__ import main
from tests.benchmarks.liveportrait.clock import Clock
from tests.benchmarks.liveportrait.dry import FLOP, StandIn
from tests.benchmarks.liveportrait.rounds import (
    Figures,
    counted,
    measured,
    throughput,
)
from tests.benchmarks.liveportrait.subject import STAGES

ROOT = Path(__file__).parents[2]
PLAIN, FAST = Form(False, "float32"), Form(True, "float32")
FACES = [FaceControls.of(jawOpen=step / 4) for step in range(5)]


@pytest.fixture
def torch_as_it_was() -> Iterator[None]:
    """The benchmark has its process to itself."""
    import torch

    threads, benchmark = torch.get_num_threads(), torch.backends.cudnn.benchmark
    yield
    torch.set_num_threads(threads)
    torch.backends.cudnn.benchmark = benchmark


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.benchmarks.liveportrait", *arguments]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=50, check=False
    )


class Remembering(StandIn):
    """Notes in a list of all which form drew."""

    def __init__(self, form: Form, drawn: list[Form]) -> None:
        super().__init__(form, "cpu")
        self._form, self._drawn = form, drawn

    def begin(self, face: FaceControls) -> Any:
        self._drawn.append(self._form)
        return super().begin(face)


class Even(Clock):
    """Everything takes the same."""

    def on_host(self, work: Callable[[], Any]) -> tuple[Any, float]:
        return work(), 10.0


@pytest.mark.timeout(150)
def test_one_run_prints_every_table(
    capsys: pytest.CaptureFixture[str], torch_as_it_was: None
) -> None:
    """Machine, first frames in processes of their own, stages, ratios, arithmetic, throughput."""
    assert main(["--dry", "--float32", "--frames", "2", "--threads", "1", "--markdown"]) == 0
    printed = tables(capsys.readouterr().out)
    machine, firsts, stages, ratios, arithmetic, rates = printed.values()
    assert "torch" in dict(machine[1:])["LivePortrait"]
    for rows in (firsts, stages, arithmetic, rates):
        assert {row[0] for row in rows[1:]} <= {str(PLAIN), str(FAST)}
        assert len(rows) > 1
    assert stages[0][1:] == ["prepare", *STAGES, "Frame", "Elapsed"]
    assert all(float(cell) > 0.0 for row in stages[1:] for cell in row[1:])
    cold = firsts[0].index("Cold")
    assert all(float(row[cold]) >= float(row[1]) > 0.0 for row in firsts[1:])
    (ratio,) = ratios[1:]
    # The stand-in does sixteen times less; nothing else is sure on a busy machine.
    assert ratio[:2] == [str(FAST), str(PLAIN)]
    assert ratio[5:] == [">= 2.00", "met" if float(ratio[2]) >= 2.0 else "NOT MET"]


def test_a_folder_without_weights_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before anything is measured, and the file that is missing is named."""
    assert main(["--weights", str(tmp_path), "--device", "cpu"]) == 1
    said = capsys.readouterr()
    assert "appearance_feature_extractor.pth" in said.err
    assert said.out == ""


@pytest.mark.parametrize("arguments", [("--frames", "0"), ("--threads", "-1"), ("--speed",)])
def test_bad_arguments_are_refused(arguments: tuple[str, ...]) -> None:
    """The message names the argument."""
    done = bench(*arguments)
    assert done.returncode == 2
    assert arguments[0] in done.stderr


def test_targets_by_device() -> None:
    """A CPU: 1.25 in float32 and 2 in its half, where it has one; CUDA: 2.5 in each half."""

    def wanted(kind: str, *halves: str) -> dict[tuple[str, str], float]:
        found = pairs(kind, halves)
        assert {each for pair in found for each in (pair.form, pair.against)} == set(forms(halves))
        return {(p.form.dtype, p.against.dtype): p.wanted for p in found if p.wanted}

    assert wanted("cpu", "bfloat16") == {
        ("float32", "float32"): 1.25, ("bfloat16", "float32"): 2.0,
    }  # fmt: skip
    assert wanted("cpu") == {("float32", "float32"): 2.0}
    assert wanted("cuda", "float16", "bfloat16") == {
        ("float16", "float16"): 2.5, ("bfloat16", "bfloat16"): 2.5,
    }  # fmt: skip
    assert wanted("mps") == {}


def test_a_ratio_is_of_neighbours() -> None:
    """A machine that is slow for a round is slow for both: the median of the rounds' ratios."""
    pair = Pair(FAST, PLAIN, 2.0)
    frames = {PLAIN: [20.0, 2000.0, 21.0], FAST: [10.0, 1000.0, 7.0]}
    assert factors(frames, pair) == (2.0, 2.0, 3.0)
    assert (pair.verdict(2.0), pair.verdict(1.99)) == ("met", "NOT MET")


def test_forms_alternate() -> None:
    """Each draws once per round, every other round in reverse; the first face only warms up."""
    drawn: list[Form] = []
    subjects = {form: Remembering(form, drawn) for form in (PLAIN, FAST)}
    figures = measured(subjects, FACES, Clock("cpu"), lambda text: None)
    assert drawn == [PLAIN, FAST, FAST, PLAIN] * 2
    for seen in figures.values():
        assert [len(seen.stages[stage]) for stage in ("prepare", *STAGES)] == [4] * 7
        assert len(seen.frames) == 4


def test_arithmetic_is_counted_by_stage() -> None:
    """Convolutions that really run, and the share of the peak that follows from their time."""
    gflop = counted(StandIn(FAST, "cpu"), FACES[0])
    assert gflop == dict.fromkeys(("prepare", *STAGES), FLOP / 1e9)
    plain = counted(StandIn(PLAIN, "cpu"), FACES[0])
    assert plain["warp"] == pytest.approx(16 * FLOP / 1e9)
    figures = measured({FAST: StandIn(FAST, "cpu")}, FACES[:2], Even("cpu"), lambda text: None)
    peak = FLOP / 1e9 * 100.0 * 4  # GFLOP/s: one stage in 10 ms is a quarter of it
    (row,) = report.arithmetic(figures, {"float32": peak}).rows
    assert [cell for cell in row if isinstance(cell, str)] == [str(FAST), "25%", "25%", "25%"]


def test_missed_targets_show() -> None:
    """Both verdicts stand beside the figures."""
    figures = {PLAIN: Figures(frames=[30.0]), FAST: Figures(frames=[20.0])}
    table = report.ratios(figures, [Pair(FAST, PLAIN, 1.25), Pair(FAST, PLAIN, 2.0)])
    assert [row[-2:] for row in table.rows] == [(">= 1.25", "met"), (">= 2.00", "NOT MET")]


def test_the_devices_own_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """On CUDA events stand around the work, after all that came before, and are waited for."""
    import torch

    calls: list[str] = []

    class Event:
        def __init__(self, *, enable_timing: bool) -> None:
            assert enable_timing

        def record(self) -> None:
            calls.append("record")

        def synchronize(self) -> None:
            calls.append("wait for the event")

        def elapsed_time(self, end: Event) -> float:
            return 7.0

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "device", lambda device: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: calls.append("wait for all"))
    clock = Clock("cuda")
    assert clock.on_device(lambda: calls.append("work")) == (None, 7.0)
    assert calls == ["wait for all", "record", "work", "record", "wait for the event"]
    calls.clear()
    clock.on_host(lambda: calls.append("work"))
    assert calls == ["wait for all", "work", "wait for all"]


def test_throughput_overlaps_frames() -> None:
    """A frame is begun before the last one is fetched, and every one is fetched."""
    calls: list[str] = []

    class Noting(StandIn):
        def begin(self, face: FaceControls) -> Any:
            number = calls.count("begin")
            calls.append("begin")
            pending = super().begin(face)

            class Noted:
                def picture(self) -> Any:
                    calls.append(f"fetch {number}")
                    return pending.picture()

            return Noted()

    assert throughput(Noting(FAST, "cpu"), FACES[:3], Clock("cpu")) > 0.0
    assert calls == ["begin", "begin", "fetch 0", "begin", "fetch 1", "fetch 2"]

"""`make bench-liveportrait` on a GPU."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.end_to_end.test_benchmarks import tables

pytestmark = [pytest.mark.requires_cuda, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]


def test_every_table_is_printed(weights_dir: Path) -> None:
    """By the device's events, graphs and overlapped copies; no form is slower than it could be."""
    command = [
        sys.executable, "-m", "tests.benchmarks.liveportrait", "--weights", str(weights_dir),
        "--device", "cuda", "--frames", "3", "--markdown",
    ]  # fmt: skip
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=500, check=False
    )
    assert done.returncode == 0, done.stderr
    _, firsts, stages, ratios, arithmetic, rates = (
        rows[1:] for rows in tables(done.stdout).values()
    )
    assert len(firsts) == len(stages) == len(arithmetic) == 6
    assert all(float(cell) > 0.0 for row in stages for cell in row[1:])
    assert sum(row[5] == ">= 2.50" for row in ratios) == 2
    assert [row[2] for row in rates] == ["no"] * 3

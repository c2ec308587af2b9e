"""`make bench`: the cheapest parts, and the tables they print."""

import math
import subprocess
import sys
from pathlib import Path

import pytest

from tests.benchmarks.figures import Histogram, percentile
from tests.benchmarks.table import Table

ROOT = Path(__file__).parents[2]


def bench(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "tests.benchmarks", *arguments]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=50, check=False
    )


def tables(markdown: str) -> dict[str, list[list[str]]]:
    """Rows by title, the heading first."""
    found: dict[str, list[list[str]]] = {}
    title = ""
    for line in markdown.splitlines():
        if line.startswith("**"):
            title = line.strip("*")
            found[title] = []
        elif line.startswith("|") and not line.startswith("|--"):
            found[title].append([cell.strip() for cell in line.strip("|").split("|")])
    return found


def test_chosen_parts_print_their_tables() -> None:
    """Hardware, versions, stages of a frame, and what a cached one costs, all above zero."""
    done = bench("mesh", "cached", "--quick", "--markdown")
    assert done.returncode == 0, done.stderr
    machine, mesh, steps, cached = (rows[1:] for rows in tables(done.stdout).values())
    assert {"CPU", "Memory", "System", "Python", "Libraries"} <= {row[0] for row in machine}
    heads = [rows[0] for rows in tables(done.stdout).values()]
    assert {"warp", "mouth", "JPEG", "Total p50", "p99"} <= set(heads[1])
    assert len(mesh) == 3
    for row in mesh:
        total = float(row[heads[1].index("Total p50")])
        assert total > float(row[heads[1].index("warp")]) > 0.0
    assert all(float(seconds) > 0.0 for _, seconds in steps)
    assert [row[0] for row in cached if "publish to 100" in row[0]]
    assert all(float(p50) > 0.0 for _, _, p50, *_ in cached)


def test_an_unknown_part_is_refused() -> None:
    """The message names the parts there are."""
    done = bench("speed")
    assert done.returncode == 2
    assert "mesh" in done.stderr


def test_tables_in_both_forms() -> None:
    """Text to the left, numbers to the right, nothing as a dash."""
    table = Table("Sizes", ("Thing", "cm"), notes=["As seen."])
    table.add("ant", 0.51234)
    table.add("elephant", None)
    table.add("whale", 2500.4)
    assert table.text() == (
        "Sizes\n  Thing        cm\n  --------  -----\n  ant       0.512\n"
        "  elephant      -\n  whale      2500\n  As seen.\n"
    )
    assert table.markdown() == (
        "**Sizes**\n\n| Thing | cm |\n|---|--:|\n| ant | 0.512 |\n| elephant | - |\n"
        "| whale | 2500 |\n\nAs seen.\n"
    )
    with pytest.raises(ValueError, match="expected 2 cells"):
        table.add("mouse")


def test_figures_of_values_and_histograms() -> None:
    """Percentiles lie between neighbours; a histogram's between the bounds of a bucket."""
    assert percentile([4.0, 1.0, 3.0, 2.0], 50) == 2.5
    assert math.isnan(percentile([], 50))
    bounds = (1.0, 2.0, 4.0, math.inf)
    seen = Histogram(bounds, (5, 15, 15, 15)).since(Histogram(bounds, (5, 5, 5, 5)))
    assert (seen.total, seen.quantile(0.5), seen.ceiling) == (10, 1.5, 2.0)
    assert math.isnan(Histogram((), ()).quantile(0.5))

"""Tables for a terminal and for Markdown."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Table:
    """Figures under headings.

    Attributes:
        title: what was measured.
        head: one heading per column, with its unit.
        rows: text is set to the left, numbers to the right; None is a dash.
        notes: sentences below the table.
    """

    title: str
    head: Sequence[str]
    rows: list[Sequence[Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, *cells: Any) -> None:
        """One more row."""
        if len(cells) != len(self.head):
            raise ValueError(f"{self.title}: expected {len(self.head)} cells, got {len(cells)}")
        self.rows.append(cells)

    def text(self) -> str:
        """For a terminal."""
        widths, rights, lines = self._laid_out()

        def line(cells: Sequence[str]) -> str:
            padded = (
                cell.rjust(width) if right else cell.ljust(width)
                for cell, width, right in zip(cells, widths, rights, strict=True)
            )
            return "  ".join(padded).rstrip()

        rule = "  ".join("-" * width for width in widths)
        body = [line(lines[0]), rule, *map(line, lines[1:])]
        return "\n".join([self.title, *(f"  {each}" for each in [*body, *self.notes])]) + "\n"

    def markdown(self) -> str:
        """For the README."""
        _, rights, lines = self._laid_out()
        marks = ["--:" if right else "---" for right in rights]

        def line(cells: Sequence[str]) -> str:
            return f"| {' | '.join(cells)} |"

        body = [line(lines[0]), f"|{'|'.join(marks)}|", *map(line, lines[1:])]
        notes = ["", " ".join(self.notes)] if self.notes else []
        return "\n".join([f"**{self.title}**", "", *body, *notes]) + "\n"

    def _laid_out(self) -> tuple[list[int], list[bool], list[list[str]]]:
        """Width of each column, whether it is set to the right, and all lines as text."""
        lines = [list(self.head), *([shown(cell) for cell in row] for row in self.rows)]
        widths = [max(2, *(len(cell) for cell in column)) for column in zip(*lines, strict=True)]
        columns = zip(*self.rows, strict=True) if self.rows else ([] for _ in self.head)
        rights = [not any(isinstance(cell, str) for cell in column) for column in columns]
        return widths, rights, lines


def shown(cell: Any) -> str:
    """A cell as text: three significant digits, as far as they are behind the point."""
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return "-"
    if not isinstance(cell, float):
        return str(cell)
    size = abs(cell)
    digits = 0 if size >= 100 else 1 if size >= 10 else 2 if size >= 1 else 3
    return f"{cell:.{digits}f}"

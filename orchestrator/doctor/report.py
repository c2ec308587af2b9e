"""What was found, as text for people and as JSON for machines."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Final, TextIO

from orchestrator.check import Verdict

REPORT_VERSION: Final = 1
TOPIC_WIDTH: Final = 14
_WORST_FIRST: Final[tuple[Verdict, ...]] = ("FAIL", "note", "ok")
_COLOURS: Final[dict[str, str]] = {"ok": "32", "note": "33", "FAIL": "31;1"}


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """One thing that was found.

    Attributes:
        verdict: `note` is worth knowing, `FAIL` is worth acting on.
        topic: what it is about, in a word or two.
        text: what was found.
        advice: what to do about it; empty where there is nothing to do.
    """

    verdict: Verdict
    topic: str
    text: str
    advice: str = ""


@dataclass(frozen=True, slots=True)
class Examined:
    """One section of the report.

    Attributes:
        seconds: that it took.
    """

    title: str
    findings: tuple[Diagnosis, ...]
    seconds: float


def worst(sections: Sequence[Examined]) -> Verdict:
    """The gravest verdict of all."""
    found = {finding.verdict for section in sections for finding in section.findings}
    return next((verdict for verdict in _WORST_FIRST if verdict in found), "ok")


class TextReport:
    """Sections as they come, then what to do.

    Args:
        out: where to.
        colours: mark verdicts with ANSI colours.
        columns: width of the terminal.
    """

    def __init__(self, out: TextIO, *, colours: bool, columns: int) -> None:
        self._out = out
        self._colours = colours
        self._columns = max(columns, 60)

    def section(self, section: Examined) -> None:
        """Write one section."""
        title = f"{section.title}" + (f" ({section.seconds:.1f} s)" if section.seconds > 1 else "")
        self._out.write(f"\n{self._coloured(title, '1')}\n")
        for finding in section.findings:
            self._finding(finding)
        self._out.flush()

    def end(self, sections: Sequence[Examined]) -> None:
        """Write the sum of it."""
        counts = dict.fromkeys(_WORST_FIRST, 0)
        for section in sections:
            for finding in section.findings:
                counts[finding.verdict] += 1
        failed, notes = counts["FAIL"], counts["note"]
        self._out.write(
            f"\n{failed} to act on, {notes} to know, {counts['ok']} in order"
            + ("; see FAIL above\n" if failed else "\n")
        )

    def _finding(self, finding: Diagnosis) -> None:
        verdict = self._coloured(f"{finding.verdict:<4}", _COLOURS[finding.verdict])
        indent = " " * (4 + 2 + TOPIC_WIDTH + 2)
        text = self._wrapped(finding.text, indent)
        self._out.write(f"{verdict}  {finding.topic:<{TOPIC_WIDTH}}  {text}\n")
        if finding.advice:
            self._out.write(f"{indent}{self._wrapped('-> ' + finding.advice, indent + '   ')}\n")

    def _wrapped(self, text: str, indent: str) -> str:
        wrapped = textwrap.wrap(
            " ".join(text.split()),
            self._columns,
            initial_indent=indent,
            subsequent_indent=indent,
            break_long_words=False,
            break_on_hyphens=False,
        )
        return "\n".join(wrapped).lstrip()

    def _coloured(self, text: str, colour: str) -> str:
        return f"\x1b[{colour}m{text}\x1b[0m" if self._colours else text


def as_json(sections: Sequence[Examined], taken_at: str) -> str:
    """The whole report as one JSON object.

    Args:
        taken_at: ISO 8601, with the time zone.
    """
    body = {
        "report": REPORT_VERSION,
        "taken_at": taken_at,
        "verdict": worst(sections),
        "sections": [asdict(section) for section in sections],
    }
    return json.dumps(body, indent=2, ensure_ascii=False)

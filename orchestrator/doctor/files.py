"""Emotions, characters, renderers and weights: what `check` finds, with advice."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from orchestrator.check import findings
from orchestrator.doctor.patient import Patient
from orchestrator.doctor.report import Diagnosis

# These have sections of their own here.
ELSEWHERE: Final = frozenset(
    {"version", "settings", "gpu", "liveportrait", "port", "vmc", "publishers", "media bridge"}
)
ADVICE: Final = {
    "files": "mend the file; the sentence names the key",
    "character": "name one of those that are there in stage.character, or mend its folder",
    "access": "the sentence names the key; the daemon ends with status 78",
    "renderer": 'renderer.backend = "auto" runs with what there is',
    "state": "let the daemon's user write there, or name another folder in state.dir",
    "weights": "avatar-orchestrator models download",
}


def look(patient: Patient) -> Iterator[Diagnosis]:
    """What `check` says, apart from what other sections look at more closely."""
    for finding in findings(patient.known, patient.config):
        if finding.topic not in ELSEWHERE:
            advice = ADVICE.get(finding.topic, "") if finding.verdict == "FAIL" else ""
            yield Diagnosis(finding.verdict, finding.topic, finding.text, advice)

"""What is known before anything is looked at, and what sections tell each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.settings import Settings
from pipeline.errors import ConfigError


@dataclass(slots=True)
class Patient:
    """The installation that is examined.

    Attributes:
        settings: None where they cannot be used.
        config: the file that they come from.
        chosen_by: why that file.
        problem: what is wrong with the settings.
        environ: environment variables.
        samples: figures of the running daemon by name and labels; empty without one.
    """

    settings: Settings | None
    config: Path
    chosen_by: str
    environ: Mapping[str, str]
    problem: ConfigError | None = None
    samples: dict[tuple[str, frozenset[tuple[str, str]]], float] = field(default_factory=dict)

    @property
    def known(self) -> Settings:
        """The settings, for sections that are looked at only where there are some."""
        assert self.settings is not None
        return self.settings

    def total(self, name: str, **labels: str) -> float | None:
        """Sum of the daemon's samples of that name with these labels; None if there are none."""
        found = [
            value
            for (sample, has), value in list(self.samples.items())
            if sample == f"avatar_{name}" and has >= labels.items()
        ]
        return sum(found) if found else None

"""Metrics that remember what they were told."""

from __future__ import annotations

import threading
from collections import defaultdict

from pipeline.ports import Metric

Labels = frozenset[tuple[str, str]]


class RecordingMetrics:
    """Implements `pipeline.ports.Metrics`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.counts: dict[tuple[Metric, Labels], float] = defaultdict(float)
        self.observed: dict[tuple[Metric, Labels], list[float]] = defaultdict(list)
        self.gauges: dict[tuple[Metric, Labels], float] = {}

    def count(self, metric: Metric, amount: float = 1.0, **labels: str) -> None:
        with self._lock:
            self.counts[metric, frozenset(labels.items())] += amount

    def observe(self, metric: Metric, value: float, **labels: str) -> None:
        with self._lock:
            self.observed[metric, frozenset(labels.items())].append(value)

    def set(self, metric: Metric, value: float, **labels: str) -> None:
        with self._lock:
            self.gauges[metric, frozenset(labels.items())] = value

    def forget(self, **labels: str) -> None:
        with self._lock:
            for kept in (self.counts, self.observed, self.gauges):
                for key in [key for key in kept if key[1] >= labels.items()]:
                    del kept[key]

    def total(self, metric: Metric, **labels: str) -> float:
        """Sum of a counter over every label set that has these labels."""
        with self._lock:
            return sum(
                amount
                for (name, found), amount in self.counts.items()
                if name is metric and found >= labels.items()
            )

    def values(self, metric: Metric, **labels: str) -> list[float]:
        """Observations of a histogram over every label set that has these labels."""
        with self._lock:
            return [
                value
                for (name, found), values in self.observed.items()
                if name is metric and found >= labels.items()
                for value in values
            ]

    def gauge(self, metric: Metric, **labels: str) -> float | None:
        """The gauge with exactly these labels; None if it was never set."""
        with self._lock:
            return self.gauges.get((metric, frozenset(labels.items())))

"""Percentiles of values, and of Prometheus histograms between two looks at them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

from prometheus_client.parser import text_string_to_metric_families


def percentile(values: Iterable[float], percent: float) -> float:
    """With linear interpolation between neighbours; NaN of nothing."""
    ordered = sorted(values)
    if not ordered:
        return math.nan
    place = (len(ordered) - 1) * percent / 100.0
    below, above = ordered[math.floor(place)], ordered[math.ceil(place)]
    return below + (above - below) * (place - math.floor(place))


def spread(values: Sequence[float]) -> tuple[float, float, float]:
    """p50, p99 and maximum."""
    return percentile(values, 50), percentile(values, 99), max(values, default=math.nan)


@dataclass(frozen=True, slots=True)
class Histogram:
    """Bucket bounds, and how many observations lie at or below each."""

    bounds: tuple[float, ...]
    counts: tuple[float, ...]

    def since(self, before: Self) -> Histogram:
        """What has been observed after `before`."""
        if not before.counts:
            return Histogram(self.bounds, self.counts)
        counts = (new - old for new, old in zip(self.counts, before.counts, strict=True))
        return Histogram(self.bounds, tuple(counts))

    @property
    def total(self) -> int:
        return int(self.counts[-1]) if self.counts else 0

    def quantile(self, share: float) -> float:
        """By linear interpolation inside the bucket, as Prometheus' `histogram_quantile`."""
        if not self.total:
            return math.nan
        wanted = share * self.total
        below_bound, below_count = 0.0, 0.0
        for bound, count in zip(self.bounds, self.counts, strict=True):
            if count >= wanted and count > below_count:
                if math.isinf(bound):
                    return below_bound
                inside = (wanted - below_count) / (count - below_count)
                return below_bound + (bound - below_bound) * inside
            below_bound, below_count = bound, count
        return below_bound

    @property
    def ceiling(self) -> float:
        """No observation lies above this bound."""
        reached = (
            bound
            for bound, count in zip(self.bounds, self.counts, strict=True)
            if count >= self.total > 0
        )
        return next(reached, math.nan)


class Scrape:
    """One answer of GET /metrics."""

    def __init__(self, text: str) -> None:
        self._samples = [
            (sample.name.removeprefix("avatar_"), sample.labels, sample.value)
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        ]

    def total(self, name: str, **labels: str) -> float:
        """Sum over the series that have these labels."""
        return sum(
            value
            for found, its, value in self._samples
            if found == name and its.items() >= labels.items()
        )

    def histogram(self, name: str) -> Histogram:
        """Of a histogram with one series."""
        pairs = [
            (float(labels["le"]), value)
            for found, labels, value in self._samples
            if found == f"{name}_bucket"
        ]
        return Histogram(tuple(b for b, _ in pairs), tuple(c for _, c in pairs))

"""What PromQL makes of a few scrapes: enough of it for the dashboard and the alerts.

The parser is a real one; evaluated is what they use, and anything else raises. Rates are between
the first and the last scrape in the range, without Prometheus' extrapolation to the range's ends.
"""

from __future__ import annotations

import math
import operator
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import promql_parser as promql
from prometheus_client.parser import text_string_to_metric_families

Labels = frozenset[tuple[str, str]]
Vector = dict[Labels, float]
NAME = "__name__"

ARITHMETIC: dict[str, Callable[[float, float], float]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": lambda a, b: a / b if b else math.nan,
}
COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    ">": operator.gt,
    "<": operator.lt,
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
}
AGGREGATIONS: dict[str, Callable[[Sequence[float]], float]] = {
    "sum": math.fsum,
    "min": min,
    "max": max,
    "count": len,
    "avg": lambda values: math.fsum(values) / len(values),
}


@dataclass(frozen=True, eq=False)
class Scrape:
    """What a scraper keeps of one answer of /metrics.

    Args:
        text: the answer.
        at_s: when it was.
        target: labels that the scraper adds.
        extra: further samples, or others instead, by name.
    """

    text: str
    at_s: float
    target: Mapping[str, str] = field(default_factory=lambda: {"job": "j", "instance": "i"})
    extra: Mapping[str, float] = field(default_factory=dict)

    def samples(self) -> Vector:
        """Every sample by its labels, the name one of them."""
        found: Vector = {}
        for family in text_string_to_metric_families(self.text):
            for sample in family.samples:
                labels = {NAME: sample.name, **self.target, **sample.labels}
                found[frozenset(labels.items())] = sample.value
        for name, value in {"up": 1.0, **self.extra}.items():
            found[frozenset({NAME: name, **self.target}.items())] = value
        return found


class Promql:
    """Evaluates expressions at the time of the last scrape."""

    def __init__(self, *scrapes: Scrape) -> None:
        self._scrapes = [(scrape.at_s, scrape.samples()) for scrape in scrapes]
        self._now_s = self._scrapes[-1][0]

    def series(self, expression: str) -> Vector:
        """The series that an expression gives; one without labels for a scalar."""
        value = self._value(promql.parse(expression))
        return value if isinstance(value, dict) else {frozenset(): value}

    def _value(self, node: Any) -> Any:
        match node:
            case promql.NumberLiteral():
                return node.val
            case promql.ParenExpr():
                return self._value(node.expr)
            case promql.VectorSelector():
                return _selected(node, self._scrapes[-1][1])
            case promql.AggregateExpr():
                return self._aggregate(node)
            case promql.BinaryExpr():
                return self._binary(node)
            case promql.Call():
                return self._call(node)
        raise NotImplementedError(type(node).__name__)

    def _call(self, node: Any) -> Any:
        name, arguments = node.func.name, node.args
        if name == "time":
            return self._now_s
        if name == "histogram_quantile":
            return _quantiles(self._value(arguments[0]), self._value(arguments[1]))
        over = {"rate": _rate, "increase": _increase, "delta": _delta, "changes": _changes}
        over["avg_over_time"] = _average
        if name not in over:
            raise NotImplementedError(f"{name}()")
        result: Vector = {}
        for labels, points in self._ranges(arguments[0]).items():
            value = over[name](points)
            if value is not None:
                result[_nameless(labels)] = value
        return result

    def _ranges(self, node: Any) -> dict[Labels, list[tuple[float, float]]]:
        since_s = self._now_s - node.range.total_seconds()
        points: dict[Labels, list[tuple[float, float]]] = defaultdict(list)
        for at_s, samples in self._scrapes:
            if at_s >= since_s:
                for labels, value in _selected(node.vector_selector, samples).items():
                    points[labels].append((at_s, value))
        return points

    def _aggregate(self, node: Any) -> Vector:
        groups: dict[Labels, list[float]] = defaultdict(list)
        for labels, value in self._value(node.expr).items():
            if node.modifier is None:
                key: Labels = frozenset()
            else:
                key = _projected(_nameless(labels), node.modifier)
            groups[key].append(value)
        combine = AGGREGATIONS[str(node.op)]
        return {labels: float(combine(values)) for labels, values in groups.items()}

    def _binary(self, node: Any) -> Any:
        sign, left, right = str(node.op), self._value(node.lhs), self._value(node.rhs)
        if isinstance(left, dict) and isinstance(right, dict):
            return _between(sign, left, right, node.modifier)
        if not isinstance(left, dict) and not isinstance(right, dict):
            return ARITHMETIC[sign](left, right)
        result: Vector = {}
        for labels, value in (left if isinstance(left, dict) else right).items():
            pair = (value, right) if isinstance(left, dict) else (left, value)
            if sign in COMPARISONS:
                if COMPARISONS[sign](*pair):
                    result[labels] = value
            else:
                result[_nameless(labels)] = ARITHMETIC[sign](*pair)
        return result


def nodes(node: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, tuple[Any, ...]]]:
    """Every node of a parsed expression with those above it, the nearest last."""
    yield node, above
    below: list[Any] = []
    match node:
        case promql.ParenExpr() | promql.AggregateExpr() | promql.UnaryExpr():
            below = [node.expr]
        case promql.BinaryExpr():
            below = [node.lhs, node.rhs]
        case promql.Call():
            below = list(node.args)
        case promql.MatrixSelector():
            below = [node.vector_selector]
    for each in below:
        yield from nodes(each, (*above, node))


def _selected(node: Any, samples: Vector) -> Vector:
    if node.offset is not None or node.at is not None:
        raise NotImplementedError("offset and @")
    found = {}
    for labels, value in samples.items():
        values = dict(labels)
        if values[NAME] == node.name and all(
            _matches(matcher, values.get(matcher.name, "")) for matcher in node.matchers.matchers
        ):
            found[labels] = value
    return found


def _matches(matcher: Any, value: str) -> bool:
    if matcher.op == promql.MatchOp.Equal:
        return bool(value == matcher.value)
    if matcher.op == promql.MatchOp.NotEqual:
        return bool(value != matcher.value)
    same = re.fullmatch(matcher.value, value) is not None
    return same if matcher.op == promql.MatchOp.Re else not same


def _nameless(labels: Labels) -> Labels:
    return frozenset(pair for pair in labels if pair[0] != NAME)


def _projected(labels: Labels, modifier: Any) -> Labels:
    """By or on, without or ignoring."""
    kept = str(modifier.type).endswith((".By", ".Include"))
    return frozenset(pair for pair in labels if (pair[0] in modifier.labels) == kept)


def _between(sign: str, left: Vector, right: Vector, modifier: Any) -> Vector:
    matching = modifier.matching if modifier is not None else None

    def key(labels: Labels) -> Labels:
        return _nameless(labels) if matching is None else _projected(_nameless(labels), matching)

    others: Vector = {}
    for labels, value in right.items():
        assert sign in ("and", "unless") or key(labels) not in others, "many on the right side"
        others[key(labels)] = value
    if sign == "and":
        return {labels: value for labels, value in left.items() if key(labels) in others}
    if sign == "unless":
        return {labels: value for labels, value in left.items() if key(labels) not in others}
    result: Vector = {}
    for labels, value in left.items():
        if key(labels) not in others:
            continue
        other = others[key(labels)]
        if sign in COMPARISONS:
            if COMPARISONS[sign](value, other):
                result[labels] = value
        else:
            assert key(labels) not in result, "many on the left side"
            result[key(labels)] = ARITHMETIC[sign](value, other)
    return result


def _quantiles(quantile: float, buckets: Vector) -> Vector:
    """Linear within a bucket, as Prometheus has it; NaN where nothing was observed."""
    groups: dict[Labels, list[tuple[float, float]]] = defaultdict(list)
    for labels, count in buckets.items():
        bound = float(dict(labels)["le"].replace("+Inf", "inf"))
        rest = frozenset(pair for pair in _nameless(labels) if pair[0] != "le")
        groups[rest].append((bound, count))
    return {labels: _quantile(quantile, sorted(group)) for labels, group in groups.items()}


def _quantile(quantile: float, group: list[tuple[float, float]]) -> float:
    wanted = quantile * group[-1][1]
    if not group[-1][1]:
        return math.nan
    below = (0.0, 0.0)
    for bound, count in group:
        if count >= wanted:
            if math.isinf(bound):
                return below[0]
            share = (wanted - below[1]) / (count - below[1])
            return below[0] + (bound - below[0]) * share
        below = (bound, count)
    return math.nan


_Points = Sequence[tuple[float, float]]


def _increase(points: _Points) -> float | None:
    if len(points) < 2:
        return None
    values = [value for _, value in points]
    return math.fsum(new if new < old else new - old for old, new in pairwise(values))


def _rate(points: _Points) -> float | None:
    increase = _increase(points)
    return None if increase is None else increase / (points[-1][0] - points[0][0])


def _delta(points: _Points) -> float | None:
    return points[-1][1] - points[0][1] if len(points) > 1 else None


def _changes(points: _Points) -> float:
    values = [value for _, value in points]
    return float(sum(new != old for old, new in pairwise(values)))


def _average(points: _Points) -> float:
    return math.fsum(value for _, value in points) / len(points)

"""Counters, gauges and histograms for Prometheus: what `GET /metrics` shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Final, TypeVar

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from pipeline.errors import ErrorCode
from pipeline.ports import Metric

PREFIX: Final = "avatar_"

_Family = Counter | Gauge | Histogram
_FamilyT = TypeVar("_FamilyT", Counter, Gauge, Histogram)

_CODES: Final = tuple(code.value for code in ErrorCode)
_RENDERERS: Final = ("mesh", "liveportrait")
_FAILURES: Final = ("timeout", "hang", "error", "bad_frame", "out_of_memory", "device_lost")
_VIEWERS: Final = ("websocket", "mjpeg", "media_bridge")

# Bucket bounds in seconds. A frame at 30 fps lasts 33 ms, at 60 fps 17 ms.
_RENDER_S: Final = (
    0.001, 0.002, 0.004, 0.006, 0.008, 0.012, 0.0167, 0.025, 0.0333, 0.05, 0.08, 0.12, 0.25,
    0.5, 1.0, 5.0,
)  # fmt: skip
_ENCODE_S: Final = (
    0.0001, 0.0002, 0.0003, 0.0005, 0.00075, 0.001, 0.0015, 0.002, 0.004, 0.008, 0.0167, 0.0333,
    0.1, 0.5,
)  # fmt: skip
_STARTED_S: Final = (
    0.005, 0.01, 0.0167, 0.025, 0.0333, 0.04, 0.05, 0.0667, 0.08, 0.1, 0.15, 0.25, 0.5, 1.0, 5.0,
)  # fmt: skip
_PEAKED_S: Final = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.75, 1.0, 1.5, 2.5, 5.0, 15.0, 60.0)
_DEVIATION_S: Final = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0015, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.0167, 0.0333,
    0.1, 0.5,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Declaration:
    kind: type[_Family]
    help: str
    labels: tuple[str, ...] = ()
    buckets: Sequence[float] = ()
    known: tuple[tuple[str, ...], ...] = ()  # label sets that are there from the start, at zero


def _each(*values: str) -> tuple[tuple[str, ...], ...]:
    return tuple((value,) for value in values)


_DECLARED: Final[Mapping[Metric, _Declaration]] = {
    Metric.FRAMES_PUBLISHED: _Declaration(Counter, "Frames published.", ("stage",)),
    Metric.TICKS_SKIPPED: _Declaration(
        Counter, "Ticks of the frame clock without a frame.", ("stage", "reason")
    ),
    Metric.FRAMES_DROPPED: _Declaration(
        Counter, "Frames that a viewer missed because it was slow.", ("kind",), (), _each(*_VIEWERS)
    ),
    Metric.FRAMES_SENT: _Declaration(
        Counter, "Frames handed to viewers.", ("kind",), (), _each(*_VIEWERS)
    ),
    Metric.RENDER_SECONDS: _Declaration(
        Histogram, "Time to draw one frame, cache misses only.", ("renderer",), _RENDER_S
    ),
    Metric.ENCODE_SECONDS: _Declaration(
        Histogram, "Time to encode one image.", ("format",), _ENCODE_S
    ),
    Metric.STARTED_SECONDS: _Declaration(
        Histogram,
        "From an event's receipt, or its planned start, to publishing 10 % of its change.",
        ("stage",),
        _STARTED_S,
    ),
    Metric.PEAKED_SECONDS: _Declaration(
        Histogram,
        "From an event's receipt, or its planned start, to publishing 90 % of its change.",
        ("stage",),
        _PEAKED_S,
    ),
    Metric.INTERVAL_DEVIATION_SECONDS: _Declaration(
        Histogram,
        "Deviation of the interval between consecutive frames from the ideal, absolute.",
        ("stage",),
        _DEVIATION_S,
    ),
    Metric.CACHE_HITS: _Declaration(Counter, "Frames taken from the frame cache."),
    Metric.CACHE_MISSES: _Declaration(Counter, "Frames that the frame cache did not hold."),
    Metric.CACHE_BYTES: _Declaration(Gauge, "Size of the frame cache in bytes."),
    Metric.CACHE_ENTRIES: _Declaration(Gauge, "Frames in the frame cache."),
    Metric.CUES_ACCEPTED: _Declaration(Counter, "Emotion events accepted.", ("stage",)),
    Metric.CUES_ENDED: _Declaration(
        Counter, "Cues ended: finished, superseded or expired.", ("stage", "ending")
    ),
    Metric.CUES_REJECTED: _Declaration(
        Counter, "Messages that a stage did not take, by error code.", ("code",), (), _each(*_CODES)
    ),
    Metric.MESSAGES: _Declaration(Counter, "Messages of producers, by type.", ("type",)),
    Metric.BAD_MESSAGES: _Declaration(
        Counter,
        "Messages of producers that could not be read or taken, by error code.",
        ("code",),
        (),
        _each(*_CODES),
    ),
    Metric.FPS_WANTED: _Declaration(
        Gauge, "Frames per second of the stage's clock, while somebody watches.", ("stage",)
    ),
    Metric.VIEWERS: _Declaration(
        Gauge, "Who takes the stage's frames, the MediaBridge included.", ("stage",)
    ),
    Metric.STAGE_DEGRADED: _Declaration(
        Gauge, "1 while frames are not those of the wanted renderer.", ("stage",)
    ),
    Metric.PUBLISHERS_WANTED: _Declaration(Gauge, "Publishers that the settings name."),
    Metric.CONNECTIONS: _Declaration(
        Gauge, "Open connections.", ("kind",), (), _each("producer", "publisher", "vmc", *_VIEWERS)
    ),
    Metric.EVICTIONS: _Declaration(
        Counter, "Viewers dropped because they stopped reading.", ("kind",), (), _each(*_VIEWERS)
    ),
    Metric.DEGRADED: _Declaration(
        Gauge, "1 on the rung of the fallback ladder that serves, 0 elsewhere.", ("stage", "rung")
    ),
    Metric.RENDER_FAILURES: _Declaration(
        Counter,
        "Frames that could not be drawn.",
        ("renderer", "reason"),
        (),
        tuple(product(_RENDERERS, _FAILURES)),
    ),
    Metric.MEDIA_BRIDGE_WANTED: _Declaration(Gauge, "1 where the settings name a MediaBridge."),
    Metric.MEDIA_BRIDGE_CONNECTED: _Declaration(Gauge, "1 while the MediaBridge is connected."),
    Metric.MEDIA_BRIDGE_RECONNECTS: _Declaration(
        Counter, "Connections to the MediaBridge after the first."
    ),
    Metric.TASKS: _Declaration(
        Gauge, "Tasks of the event loop; with as many connections there are as many."
    ),
    Metric.EVENTS_UNLOGGED: _Declaration(Counter, "Messages that are missing from the event log."),
    Metric.BUILD_INFO: _Declaration(
        Gauge, "Always 1; what runs, in its labels.", ("version", "python", "renderer", "device")
    ),
}


class PrometheusMetrics:
    """Implements `pipeline.ports.Metrics`. Every method may be called from any thread.

    Recording raises ValueError on labels that are not those declared, and TypeError on a
    metric of another kind.
    """

    content_type: Final = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        # Without this, each counter and histogram has a second series with its birthday.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._registry = CollectorRegistry()
        self._families = {
            metric: _family(metric, declared, self._registry)
            for metric, declared in _DECLARED.items()
        }
        ProcessCollector(registry=self._registry)  # empty where there is no /proc

    def count(self, metric: Metric, amount: float = 1.0, **labels: str) -> None:
        """Raise a counter by `amount` >= 0."""
        _child(self._family(metric, Counter), labels).inc(amount)

    def observe(self, metric: Metric, value: float, **labels: str) -> None:
        """Add one observation to a histogram."""
        _child(self._family(metric, Histogram), labels).observe(value)

    def set(self, metric: Metric, value: float, **labels: str) -> None:
        """Set a gauge."""
        _child(self._family(metric, Gauge), labels).set(value)

    def forget(self, **labels: str) -> None:
        """Drop every series that has these labels."""
        for metric, declared in _DECLARED.items():
            if labels.keys() <= set(declared.labels):
                self._families[metric].remove_by_labels(labels)

    def render(self) -> bytes:
        """Everything in Prometheus' text format. Takes milliseconds: belongs in a thread."""
        return generate_latest(self._registry)

    def _family(self, metric: Metric, kind: type[_FamilyT]) -> _FamilyT:
        family = self._families[metric]
        if not isinstance(family, kind):
            raise TypeError(f"{metric.value} is no {kind.__name__.lower()}")
        return family


def _family(metric: Metric, declared: _Declaration, registry: CollectorRegistry) -> _Family:
    name = f"{PREFIX}{metric.value}"
    family: _Family
    if declared.kind is Histogram:
        family = Histogram(
            name, declared.help, declared.labels, buckets=declared.buckets, registry=registry
        )
    else:
        family = declared.kind(name, declared.help, declared.labels, registry=registry)
    for values in declared.known:
        family.labels(*values)
    return family


def _child(family: _FamilyT, labels: Mapping[str, str]) -> _FamilyT:
    # Without labels a labelled family refuses by itself.
    return family.labels(**labels) if labels else family

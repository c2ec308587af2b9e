"""What GET /metrics shows."""

from __future__ import annotations

import threading

import pytest
from prometheus_client.parser import text_string_to_metric_families

from adapters.metrics import PrometheusMetrics
from pipeline.ports import Metric, Metrics

LABELS = {
    Metric.FRAMES_PUBLISHED: ("stage",),
    Metric.TICKS_SKIPPED: ("stage", "reason"),
    Metric.FRAMES_DROPPED: ("kind",),
    Metric.FRAMES_SENT: ("kind",),
    Metric.RENDER_SECONDS: ("renderer",),
    Metric.ENCODE_SECONDS: ("format",),
    Metric.STARTED_SECONDS: ("stage",),
    Metric.PEAKED_SECONDS: ("stage",),
    Metric.INTERVAL_DEVIATION_SECONDS: ("stage",),
    Metric.CACHE_HITS: (),
    Metric.CACHE_MISSES: (),
    Metric.CACHE_BYTES: (),
    Metric.CACHE_ENTRIES: (),
    Metric.CUES_ACCEPTED: ("stage",),
    Metric.CUES_ENDED: ("stage", "ending"),
    Metric.CUES_REJECTED: ("code",),
    Metric.MESSAGES: ("type",),
    Metric.BAD_MESSAGES: ("code",),
    Metric.FPS_WANTED: ("stage",),
    Metric.VIEWERS: ("stage",),
    Metric.STAGE_DEGRADED: ("stage",),
    Metric.PUBLISHERS_WANTED: (),
    Metric.CONNECTIONS: ("kind",),
    Metric.EVICTIONS: ("kind",),
    Metric.DEGRADED: ("stage", "rung"),
    Metric.RENDER_FAILURES: ("renderer", "reason"),
    Metric.MEDIA_BRIDGE_WANTED: (),
    Metric.MEDIA_BRIDGE_CONNECTED: (),
    Metric.MEDIA_BRIDGE_RECONNECTS: (),
    Metric.TASKS: (),
    Metric.EVENTS_UNLOGGED: (),
    Metric.BUILD_INFO: ("version", "python", "renderer", "device"),
}


def samples(metrics: PrometheusMetrics) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Every sample by name and labels, as a scraper reads it."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(metrics.render().decode())
        for sample in family.samples
    }


def value(metrics: PrometheusMetrics, name: str, **labels: str) -> float:
    return samples(metrics)[name, frozenset(labels.items())]


def record(metrics: PrometheusMetrics, metric: Metric, **labels: str) -> None:
    """Use a metric in the way that its name asks for."""
    if metric.value.endswith("_total"):
        metrics.count(metric, 1.0, **labels)
    elif metric.value.endswith("_seconds"):
        metrics.observe(metric, 0.01, **labels)
    else:
        metrics.set(metric, 1.0, **labels)


@pytest.mark.parametrize("metric", Metric)
def test_every_metric_is_declared_with_its_labels(metric: Metric) -> None:
    """Each can be recorded and read back under its name with the prefix `avatar_`."""
    metrics = PrometheusMetrics()
    labels = dict.fromkeys(LABELS[metric], "x")
    record(metrics, metric, **labels)
    suffix = "_count" if metric.value.endswith("_seconds") else ""
    assert value(metrics, f"avatar_{metric.value}{suffix}", **labels) == 1.0
    assert f"# HELP avatar_{metric.value} " in metrics.render().decode()


@pytest.mark.parametrize("metric", Metric)
def test_wrong_labels_are_refused(metric: Metric) -> None:
    """An unknown label, or a missing one, is a mistake in the program and raises."""
    metrics = PrometheusMetrics()
    labels = dict.fromkeys(LABELS[metric], "x")
    with pytest.raises(ValueError):
        record(metrics, metric, **labels, colour="red")
    if labels:
        with pytest.raises(ValueError):
            record(metrics, metric)


def test_a_metric_of_another_kind_is_refused() -> None:
    """A counter cannot be set, a gauge not counted, a histogram neither."""
    metrics = PrometheusMetrics()
    with pytest.raises(TypeError, match="cache_hits_total is no gauge"):
        metrics.set(Metric.CACHE_HITS, 1.0)
    with pytest.raises(TypeError):
        metrics.count(Metric.CACHE_BYTES)
    with pytest.raises(TypeError):
        metrics.count(Metric.RENDER_SECONDS, renderer="mesh")
    with pytest.raises(TypeError):
        metrics.observe(Metric.CACHE_BYTES, 1.0)


def test_recording_is_that_of_the_port() -> None:
    """The adapter fits where the port is asked for."""
    port: Metrics = PrometheusMetrics()
    port.count(Metric.CACHE_HITS, 2.0)


def test_amounts_add_up_and_gauges_replace() -> None:
    """Counters grow by the amount, gauges show the last value."""
    metrics = PrometheusMetrics()
    metrics.count(Metric.FRAMES_PUBLISHED, stage="main")
    metrics.count(Metric.FRAMES_PUBLISHED, 4.0, stage="main")
    metrics.set(Metric.CACHE_BYTES, 10.0)
    metrics.set(Metric.CACHE_BYTES, 7.0)
    assert value(metrics, "avatar_frames_published_total", stage="main") == 5.0
    assert value(metrics, "avatar_cache_bytes") == 7.0


def test_render_times_fall_into_buckets_of_milliseconds() -> None:
    """The target of 8 ms and a frame's 33 ms are bounds of buckets."""
    metrics = PrometheusMetrics()
    for seconds in (0.003, 0.0079, 0.02, 0.04):
        metrics.observe(Metric.RENDER_SECONDS, seconds, renderer="mesh")

    def at_most(bound: str) -> float:
        name = "avatar_render_seconds_bucket"
        return value(metrics, name, renderer="mesh", le=bound)

    assert at_most("0.008") == 2.0
    assert at_most("0.0333") == 3.0
    assert at_most("+Inf") == 4.0


def test_known_label_values_are_there_from_the_start() -> None:
    """Connections and viewers count from zero, so that a first event shows as a change."""
    metrics = PrometheusMetrics()
    for kind in ("producer", "publisher", "vmc", "websocket", "mjpeg", "media_bridge"):
        assert value(metrics, "avatar_connections", kind=kind) == 0.0
    assert value(metrics, "avatar_viewers_evicted_total", kind="websocket") == 0.0
    assert value(metrics, "avatar_cues_rejected_total", code="unknown_emotion") == 0.0
    failures = value(metrics, "avatar_render_failures_total", renderer="mesh", reason="timeout")
    assert failures == 0.0


def test_two_sets_of_metrics_do_not_mix() -> None:
    """Each has a registry of its own; nothing is global."""
    first, second = PrometheusMetrics(), PrometheusMetrics()
    first.count(Metric.CACHE_HITS)
    assert value(second, "avatar_cache_hits_total") == 0.0


def test_counting_from_threads_loses_nothing() -> None:
    """Every thread's counts arrive, while others read."""
    metrics = PrometheusMetrics()

    def count() -> None:
        for _ in range(500):
            metrics.count(Metric.FRAMES_SENT, kind="websocket")
            metrics.observe(Metric.ENCODE_SECONDS, 0.001, format="jpeg")

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    metrics.render()
    for thread in threads:
        thread.join()
    assert value(metrics, "avatar_frames_sent_total", kind="websocket") == 2000.0
    assert value(metrics, "avatar_encode_seconds_count", format="jpeg") == 2000.0


def test_birthdays_of_series_are_left_out() -> None:
    """No `_created` series doubles the page."""
    metrics = PrometheusMetrics()
    metrics.count(Metric.CACHE_HITS)
    assert b"_created" not in metrics.render()

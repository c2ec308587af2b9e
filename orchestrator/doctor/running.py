"""A daemon that answers on the configured port: health, state and figures."""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterator
from typing import Any, Final

import httpx
from prometheus_client.parser import text_string_to_metric_families

from orchestrator import __version__
from orchestrator.doctor.patient import Patient
from orchestrator.doctor.report import Diagnosis
from orchestrator.send import own_tls, own_url
from pipeline.errors import ConfigError

ANSWER_S: Final = 3.0
SLOW_S: Final = 0.5
SLOW_START_S: Final = 0.15
SOON_DAYS: Final = 14.0
# Failures of any kind that are worth a line, with what to do about them.
COUNTED: Final = (
    ("render_failures_total", "frames could not be drawn", "see the log: `renderer_degraded`"),
    ("viewers_evicted_total", "viewers were dropped because they stopped reading", ""),
    ("cues_rejected_total", "messages were refused", "producers get the field in the answer"),
    ("bad_messages_total", "messages could not be read", "compare them with /asyncapi.json"),
    ("events_unlogged_total", "messages are missing from the event log", "is the disk full?"),
)


def look(patient: Patient) -> Iterator[Diagnosis]:
    """Ask it what it says of itself."""
    settings = patient.known
    if settings.server.port == 0:
        yield Diagnosis("note", "daemon", "server.port = 0: its address is in its log")
        return
    url = own_url(settings).replace("ws", "http", 1)
    token = settings.auth.token
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        tls = own_tls(settings) or True
    except ConfigError as error:
        yield Diagnosis("FAIL", "tls", str(error), "name a file that this user may read")
        return
    # A proxy of the environment has no part in this.
    with httpx.Client(
        base_url=url, headers=headers, timeout=ANSWER_S, verify=tls, trust_env=False
    ) as client:
        began_s = time.monotonic()
        try:
            answer = client.get("/health")
        except httpx.ConnectError as error:
            if "SSL" in str(error):
                text = f"{url}: no TLS with server.tls_cert: {error}"
                advice = "renew the certificate; SIGHUP has the daemon read it again"
                yield Diagnosis("FAIL", "tls", text, advice)
                return
            text = f"nothing answers on {url}: no daemon of these settings runs"
            yield Diagnosis("note", "daemon", text, "avatar-orchestrator run, or the service")
            return
        except httpx.HTTPError as error:
            text = f"{url} takes connections and does not answer: {type(error).__name__}"
            yield Diagnosis("FAIL", "daemon", text, "it hangs, or another program has the port")
            return
        yield from _health(url, answer, time.monotonic() - began_s)
        yield from _certificate(answer)
        if _is_ours(answer):
            yield from _more(patient, client)


def _is_ours(answer: httpx.Response) -> bool:
    try:
        body = answer.json()
    except ValueError:
        return False
    return answer.status_code == 200 and isinstance(body, dict) and "renderer" in body


def _health(url: str, answer: httpx.Response, took_s: float) -> Iterator[Diagnosis]:
    if not _is_ours(answer):
        text = f"{url}/health says {answer.status_code} and not what the daemon would"
        yield Diagnosis(
            "FAIL", "daemon", text, "another program has the port, or a proxy is between"
        )
        return
    body = answer.json()
    text = (
        f"{url} answers in {took_s * 1000:.0f} ms; up for {body['uptime_s']:.0f} s, "
        f"{body['renderer']} on {body['device']}"
    )
    if took_s > SLOW_S:
        advice = "its event loop or the machine is overloaded"
        yield Diagnosis("note", "daemon", text, advice)
    else:
        yield Diagnosis("ok", "daemon", text)
    if body["degraded"]:
        advice = "frames are a stand-in's or a lower renderer's until this is mended"
        yield Diagnosis("FAIL", "degraded", str(body["degraded"]), advice)


def _certificate(answer: httpx.Response) -> Iterator[Diagnosis]:
    secured = answer.extensions["network_stream"].get_extra_info("ssl_object")
    if secured is None:
        return
    ends_s = ssl.cert_time_to_seconds(secured.getpeercert()["notAfter"])
    days = (ends_s - time.time()) / 86400.0
    text = f"{secured.version()}; the certificate is good for {days:.0f} more days"
    if days < SOON_DAYS:
        advice = "renew it in time; SIGHUP has the daemon read it again"
        yield Diagnosis("note", "tls", text, advice)
    else:
        yield Diagnosis("ok", "tls", text)


def _more(patient: Patient, client: httpx.Client) -> Iterator[Diagnosis]:
    ready = client.get("/ready")
    if ready.status_code == 200:
        yield Diagnosis("ok", "ready", "frames are being published, or nobody watches")
    else:
        text = ready.text[:300]
        yield Diagnosis("FAIL", "ready", text, "wait for the start to end, then see the log")
    metrics = client.get("/metrics")
    if metrics.status_code == 401:
        advice = "the daemon was started with another auth.token than these settings have"
        yield Diagnosis("FAIL", "access", "the daemon refuses our token", advice)
        return
    _read_samples(patient, metrics.text)
    yield from _state(patient, client.get("/v1/state"))
    yield from _figures(patient)


def _read_samples(patient: Patient, text: str) -> None:
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            patient.samples[sample.name, frozenset(sample.labels.items())] = sample.value


def _state(patient: Patient, answer: httpx.Response) -> Iterator[Diagnosis]:
    if answer.status_code != 200:
        yield Diagnosis("note", "stage", answer.text[:300])
        return
    body: dict[str, Any] = answer.json()
    viewers = sum(body["viewers"].values())
    wanted = patient.total("fps_wanted", stage=body["stage"]) or patient.known.stage.fps
    text = f"{body['character']}, {viewers} viewers, {body['fps']:g} of {wanted:g} fps"
    if viewers and body["fps"] < 0.9 * wanted:
        advice = "frames are skipped: see speed and load in this report"
        yield Diagnosis("FAIL", "stage", text, advice)
    else:
        yield Diagnosis(
            "ok", "stage", text if viewers else f"{text}; it rests while nobody watches"
        )


def _figures(patient: Patient) -> Iterator[Diagnosis]:
    running = {
        dict(labels).get("version")
        for name, labels in patient.samples
        if name == "avatar_build_info"
    }
    if running and __version__ not in running:
        text = f"the daemon is {', '.join(map(str, running))}, this is {__version__}"
        yield Diagnosis("note", "version", text, "restart the daemon to run what is installed")
    slowest_s = _quantile(patient, "event_to_started_seconds", 0.99)
    if slowest_s is not None:
        text = f"99 of 100 emotions show within {slowest_s * 1000:.0f} ms"
        if slowest_s > SLOW_START_S:
            yield Diagnosis("note", "reaction", text, "see speed and load in this report")
        else:
            yield Diagnosis("ok", "reaction", text)
    hits, misses = patient.total("cache_hits_total"), patient.total("cache_misses_total")
    if hits is not None and misses is not None and hits + misses:
        size = (patient.total("cache_bytes") or 0.0) / 2**20
        share = hits / (hits + misses)
        yield Diagnosis("ok", "cache", f"{share:.0%} of frames come from it; {size:.0f} MiB")
    for name, what, advice in COUNTED:
        times = patient.total(name)
        if times:
            yield Diagnosis("note", "counted", f"{times:.0f} {what} since the start", advice)


def _quantile(patient: Patient, histogram: str, quantile: float) -> float | None:
    """The bound of the bucket that holds it, over all stages; None without observations."""
    counts: dict[float, float] = {}
    for (name, labels), value in patient.samples.items():
        if name == f"avatar_{histogram}_bucket":
            bound = float(dict(labels)["le"].replace("+Inf", "inf"))
            counts[bound] = counts.get(bound, 0.0) + value
    total = max(counts.values(), default=0.0)
    reached = [bound for bound, count in counts.items() if count >= quantile * total]
    return min(reached) if total else None

"""The dashboard and the alerts, against what a running daemon really shows."""

from __future__ import annotations

import asyncio
import json
import math
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import promql_parser as promql
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from websockets.asyncio.client import connect

from adapters.metrics import PrometheusMetrics
from orchestrator.settings import default_config_dir
from pipeline.ports import Metric
from tests.fakes.daemon import DaemonProcess
from tests.fakes.promql import Promql, Scrape, nodes

MONITORING = default_config_dir() / "monitoring"
DASHBOARD = json.loads((MONITORING / "grafana-dashboard.json").read_text())
RULES_FILE = MONITORING / "prometheus-rules.yaml"
RULES = {
    rule["alert"]: rule
    for group in yaml.safe_load(RULES_FILE.read_text())["groups"]
    for rule in group["rules"]
}
PANELS = {panel["title"]: panel for panel in DASHBOARD["panels"] if panel["type"] != "row"}
SOURCES = Path(__file__).parents[2]

CUE = '{"type":"emotion","emotion":"happy","attack_ms":60,"hold_ms":60,"decay_ms":60}'
COUNTED = {"rate", "increase"}
GAUGED = {"delta", "avg_over_time", "changes"}
# With everything well there is nothing to be seen in these.
EMPTY_WHEN_WELL = {"Frames that could not be drawn"}
# Whether these stay quiet depends on what else the machine does.
ABOUT_TIME = {
    "AvatarDegraded",
    "AvatarStandIn",
    "AvatarSlowToReact",
    "AvatarUnevenFrames",
    "AvatarFramesSkipped",
    "AvatarRenderFailures",
    "AvatarViewersSlow",
}


def plain(expression: str) -> str:
    """Without the dashboard's variables: all daemons, all stages."""
    for variable, value in (("$__rate_interval", "1m"), ("$instance", ".*"), ("$stage", ".*")):
        expression = expression.replace(variable, value)
    return expression


def targets() -> Iterator[tuple[str, dict[str, Any]]]:
    for title, panel in PANELS.items():
        for target in panel["targets"]:
            yield f"{title}: {target['refId']}", target


EXPRESSIONS = {name: plain(target["expr"]) for name, target in targets()}
EXPRESSIONS |= {name: rule["expr"] for name, rule in RULES.items()}


@dataclass(frozen=True)
class Shown:
    """What a daemon showed: two answers of /metrics some seconds apart."""

    first: Scrape
    last: Scrape

    @property
    def families(self) -> dict[str, tuple[str, frozenset[str]]]:
        """Sample name to its family's type and its labels."""
        found: dict[str, tuple[str, frozenset[str]]] = {"up": ("gauge", frozenset())}
        for family in text_string_to_metric_families(self.last.text):
            for sample in family.samples:
                found[sample.name] = (family.type, frozenset(sample.labels))
        return found


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shown]:
    """A daemon with a viewer and a producer that also makes mistakes."""
    with DaemonProcess(tmp_path_factory.mktemp("state")) as daemon:
        scrapes: list[Scrape] = []

        def scrape() -> None:
            text = httpx.get(f"{daemon.http}/metrics").raise_for_status().text
            scrapes.append(Scrape(text, time.time()))

        async def live() -> None:
            async with (
                connect(f"{daemon.ws}/v1/frames", max_size=None) as viewer,
                connect(f"{daemon.ws}/v1/events") as producer,
            ):
                for mistakes in ((), ('{"type":"emotion","emotion":"hapy"}', "{")):
                    for message in (CUE, *mistakes):
                        await producer.send(message)
                    async with asyncio.timeout(20):
                        async for answer in producer:
                            if json.loads(answer)["type"] == "emotion.finished":
                                break
                        for _ in range(10):
                            await viewer.recv()
                    await asyncio.to_thread(scrape)

        asyncio.run(live())
        yield Shown(*scrapes)


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_an_expression_fits_what_the_daemon_shows(name: str, shown: Shown) -> None:
    """Every metric exists, has the labels that are asked for, and is of the kind it is used as."""
    known = shown.families
    for node, above in nodes(promql.parse(EXPRESSIONS[name])):
        if not isinstance(node, promql.VectorSelector):
            continue
        assert node.name in known, f"the daemon shows no {node.name}"
        kind, labels = known[node.name]
        labels = labels | {"job", "instance"}
        for matcher in node.matchers.matchers:
            assert matcher.name in labels, f"{node.name} has no label {matcher.name}"
        calls = [each.func.name for each in above if isinstance(each, promql.Call)]
        innermost = calls[-1] if calls else None
        grows = kind == "counter" or node.name.endswith(("_bucket", "_count", "_sum"))
        if innermost in COUNTED:
            assert grows, f"{innermost}() of {node.name}, which is a {kind}"
        else:
            assert not grows, f"{node.name} is a counter, and is taken as it is"
        for each in above:
            if isinstance(each, promql.AggregateExpr) and each.modifier is not None:
                assert set(each.modifier.labels) <= labels, f"{node.name}: {each.modifier.labels}"
        if "histogram_quantile" in calls:
            assert node.name.endswith("_bucket")
            sums = [each for each in above if isinstance(each, promql.AggregateExpr)]
            assert all("le" in each.modifier.labels for each in sums)


@pytest.mark.parametrize(("name", "target"), list(targets()))
def test_a_panel_shows_something(name: str, target: dict[str, Any], shown: Shown) -> None:
    """On a daemon that is watched and spoken to each query has an answer with its legend."""
    series = Promql(shown.first, shown.last).series(plain(target["expr"]))
    if name.rpartition(": ")[0] in EMPTY_WHEN_WELL:
        return
    assert series, "no series"
    assert not all(math.isnan(value) for value in series.values()), series
    for label in re.findall(r"{{(\w+)}}", target["legendFormat"]):
        assert all(label in dict(labels) for labels in series), f"the legend names {label}"


def test_what_the_figures_say_is_true(shown: Shown) -> None:
    """Viewer, finished cue, both refusals and the wanted frame rate are as they were."""
    ask = Promql(shown.first, shown.last).series

    def value(expression: str) -> float:
        (found,) = ask(expression).values()
        return found

    assert value('avatar_viewers{stage="main"}') == 1
    assert value("avatar_fps_wanted") == 30
    assert value('increase(avatar_cues_ended_total{ending="finished"}[1m])') == 1
    assert value('increase(avatar_cues_rejected_total{code="unknown_emotion"}[1m])') == 1
    assert value('increase(avatar_bad_messages_total{code="invalid_json"}[1m])') == 1
    assert value("increase(avatar_frames_published_total[1m])") > 0
    assert value("process_resident_memory_bytes") > 2**20


@pytest.mark.parametrize("alert", sorted(RULES.keys() - ABOUT_TIME))
def test_no_alert_fires_on_a_daemon_that_is_well(alert: str, shown: Shown) -> None:
    """Somebody watches, a cue is shown, two messages are wrong: nothing to wake anybody for."""
    assert Promql(shown.first, shown.last).series(RULES[alert]["expr"]) == {}


# --- the dashboard as a whole -------------------------------------------------------------------


def test_the_dashboard_can_be_imported() -> None:
    """The data source is a variable, ids are unique, nothing overlaps."""
    assert DASHBOARD["id"] is None
    variables = {each["name"]: each for each in DASHBOARD["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    identities = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(identities)) == len(identities)
    cells: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        covered = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert at["x"] + at["w"] <= 24
        assert not covered & cells, panel["title"]
        cells |= covered
    for title, panel in PANELS.items():
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}, title
        for target in panel["targets"]:
            assert target["datasource"] == panel["datasource"], title
            used = set(re.findall(r"\$(\w+)", target["expr"])) - {"__rate_interval"}
            assert used <= variables.keys(), title


def test_the_variables_find_the_daemons_and_their_stages(shown: Shown) -> None:
    """`label_values` names a metric and a label that are there."""
    known = shown.families
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] != "query":
            continue
        found = re.fullmatch(r"label_values\((\w+)(?:{.*})?, (\w+)\)", variable["query"]["query"])
        assert found is not None
        _, labels = known[found[1]]
        assert found[2] in labels | {"instance"}


# --- each alert -----------------------------------------------------------------------------------


class Sick:
    """Two scrapes of a daemon that something is wrong with."""

    def __init__(self, apart_s: float = 60.0) -> None:
        self._metrics = PrometheusMetrics()
        self._apart_s = apart_s
        self._first: Scrape | None = None
        self.extra: dict[str, float] = {}
        self.set(Metric.VIEWERS, 1, stage="main")
        self.set(Metric.FPS_WANTED, 30, stage="main")
        self.set(Metric.STAGE_DEGRADED, 0, stage="main")
        self.set(Metric.DEGRADED, 1, stage="main", rung="mesh")
        self.set(Metric.BUILD_INFO, 1, version="1", python="3", renderer="mesh", device="cpu")
        for metric in (Metric.FRAMES_PUBLISHED, Metric.CUES_ACCEPTED):
            self.count(metric, 0, stage="main")
        self.count(Metric.TICKS_SKIPPED, 0, stage="main", reason="late")

    @property
    def set(self) -> Callable[..., None]:
        return self._metrics.set

    @property
    def count(self) -> Callable[..., None]:
        return self._metrics.count

    @property
    def observe(self) -> Callable[..., None]:
        return self._metrics.observe

    def then(self) -> None:
        """The first scrape is now; what follows is seen by the last."""
        self._first = self._scrape(0.0)

    def fires(self, alert: str) -> bool:
        if self._first is None:
            self.then()
        assert self._first is not None
        return bool(Promql(self._first, self._scrape(self._apart_s)).series(RULES[alert]["expr"]))

    def _scrape(self, at_s: float) -> Scrape:
        target = {"job": "avatar-orchestrator", "instance": "i"}
        return Scrape(self._metrics.render().decode(), at_s, target, dict(self.extra))


def down(sick: Sick) -> None:
    sick.extra["up"] = 0.0


def skipped(sick: Sick) -> None:
    sick.then()
    sick.count(Metric.TICKS_SKIPPED, 120, stage="main", reason="late")


def stand_in(sick: Sick) -> None:
    sick.set(Metric.DEGRADED, 0, stage="main", rung="mesh")
    sick.set(Metric.DEGRADED, 1, stage="main", rung="neutral")


def slow(sick: Sick) -> None:
    sick.observe(Metric.STARTED_SECONDS, 0.03, stage="main")
    sick.then()
    sick.observe(Metric.STARTED_SECONDS, 0.4, stage="main")


def uneven(sick: Sick) -> None:
    sick.observe(Metric.INTERVAL_DEVIATION_SECONDS, 0.001, stage="main")
    sick.then()
    sick.observe(Metric.INTERVAL_DEVIATION_SECONDS, 0.03, stage="main")


def counted(metric: Metric, amount: float, **labels: str) -> Callable[[Sick], None]:
    def happen(sick: Sick) -> None:
        sick.then()
        sick.count(metric, amount, **labels)

    return happen


def bridge(sick: Sick) -> None:
    sick.set(Metric.MEDIA_BRIDGE_WANTED, 1)
    sick.set(Metric.MEDIA_BRIDGE_CONNECTED, 0)


def slow_viewers(sick: Sick) -> None:
    sick.then()
    sick.count(Metric.FRAMES_SENT, 1000, kind="websocket")
    sick.count(Metric.FRAMES_DROPPED, 300, kind="websocket")


def files(sick: Sick) -> None:
    sick.extra |= {"process_open_fds": 95.0, "process_max_fds": 100.0}


def memory(sick: Sick) -> None:
    sick.extra["process_resident_memory_bytes"] = 4e8
    sick.then()
    sick.extra["process_resident_memory_bytes"] = 2e9


SICK: Mapping[str, Callable[[Sick], None]] = {
    "AvatarDown": down,
    "AvatarNoFrames": lambda sick: None,
    "AvatarFramesSkipped": skipped,
    "AvatarDegraded": lambda sick: sick.set(Metric.STAGE_DEGRADED, 1, stage="main"),
    "AvatarStandIn": stand_in,
    "AvatarSlowToReact": slow,
    "AvatarUnevenFrames": uneven,
    "AvatarRenderFailures": counted(Metric.RENDER_FAILURES, 5, renderer="mesh", reason="hang"),
    "AvatarMediaBridgeDown": bridge,
    "AvatarPublisherMissing": lambda sick: sick.set(Metric.PUBLISHERS_WANTED, 1),
    "AvatarViewersDropped": counted(Metric.EVICTIONS, 5, kind="mjpeg"),
    "AvatarViewersSlow": slow_viewers,
    "AvatarRejections": counted(Metric.CUES_REJECTED, 20, code="outranked"),
    "AvatarBadMessages": counted(Metric.BAD_MESSAGES, 20, code="invalid_json"),
    "AvatarFilesRunOut": files,
    "AvatarMemoryGrows": memory,
    "AvatarEventsUnlogged": counted(Metric.EVENTS_UNLOGGED, 1),
}


@pytest.mark.parametrize("alert", sorted(RULES.keys() - {"AvatarRestartLoop"}))
def test_an_alert_fires_on_what_it_is_for(alert: str) -> None:
    """What it warns of makes it fire, and frames as they should be do not."""
    sick = Sick()
    SICK[alert](sick)
    assert sick.fires(alert)
    well = Sick()
    well.then()
    well.count(Metric.FRAMES_PUBLISHED, 1800, stage="main")
    well.count(Metric.FRAMES_SENT, 1800, kind="websocket")
    assert not well.fires(alert)


@pytest.mark.parametrize(("starts", "fires"), [(1, False), (2, False), (4, True)])
def test_the_restart_loop_is_told_from_a_restart(starts: int, fires: bool) -> None:
    """Three changes of the process's start within a quarter of an hour are a loop."""
    metrics = PrometheusMetrics().render().decode()
    scrapes = [
        Scrape(metrics, 60.0 * turn, extra={"process_start_time_seconds": float(min(turn, starts))})
        for turn in range(1, 9)
    ]
    assert bool(Promql(*scrapes).series(RULES["AvatarRestartLoop"]["expr"])) is fires


@pytest.mark.parametrize("alert", RULES)
def test_an_alert_says_what_to_do(alert: str, shown: Shown) -> None:
    """It has a severity, and a summary, a description and a runbook that name what there is."""
    rule = RULES[alert]
    assert rule["labels"]["severity"] in ("warning", "critical")
    notes = rule["annotations"]
    assert set(notes) == {"summary", "description", "runbook"}
    assert "{{ $labels.instance }}" in notes["summary"]
    kept: set[str] = {"job", "instance"}
    for node, _ in nodes(promql.parse(rule["expr"])):
        if isinstance(node, promql.VectorSelector):
            kept |= shown.families[node.name][1]
    for text in notes.values():
        assert text.strip()
        for label in re.findall(r"\$labels\.(\w+)", text):
            assert label in kept, f"{alert}: no label {label}"
    sources = None
    for event in re.findall(r"`([a-z_]+_[a-z_]+)`", notes["runbook"]):
        sources = sources or "".join(
            path.read_text()
            for folder in ("adapters", "orchestrator", "pipeline")
            for path in (SOURCES / folder).rglob("*.py")
        )
        assert f'"{event}"' in sources, f"{alert} speaks of {event}, which is never logged"


def test_promtool_accepts_the_rules() -> None:
    """Prometheus' own check, where it is installed."""
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed")
    done = subprocess.run(
        [promtool, "check", "rules", str(RULES_FILE)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr

"""The report for those who help from afar."""

from __future__ import annotations

import io
import json
import os
import socket
import threading
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog
from websockets.sync.server import ServerConnection, serve

from adapters.metrics import PrometheusMetrics
from orchestrator import check
from orchestrator.doctor import (
    connections,
    files,
    graphics,
    machine,
    ports,
    running,
    service,
    speed,
)
from orchestrator.doctor.command import SECTIONS, doctor
from orchestrator.doctor.connections import Line, dial
from orchestrator.doctor.patient import Patient
from orchestrator.doctor.ports import Holder, holders, inodes_of
from orchestrator.doctor.probing import Section, all_within, examine, told_by
from orchestrator.doctor.redaction import Redactor, secrets_of
from orchestrator.doctor.report import Diagnosis, Examined, TextReport
from orchestrator.settings import CONFIG_FILE, Settings, default_config_dir, load_settings
from pipeline.ports import Metric

BUNDLED = default_config_dir() / CONFIG_FILE
TITLES = {section.title: section for section in SECTIONS}
# These load torch or draw for a second: once, in the end-to-end test.
LONG = {"GPU", "Speed", "Files and renderers"}
QUICK = [section for section in SECTIONS if section.title not in LONG]
SECRET = "s3cr3t-Value&42"


def patient_with(**variables: str) -> Patient:
    settings, config = load_settings(BUNDLED, variables)
    return Patient(settings, config, "a test", variables)


def only(findings: Iterator[Diagnosis]) -> Diagnosis:
    (found,) = findings
    return found


# --- the report ---------------------------------------------------------------------------


def test_a_section_that_hangs_or_breaks_fails_alone() -> None:
    """What was found before is kept, the rest is looked at, and the status says so."""
    stuck = threading.Event()

    def hangs(patient: Patient) -> Iterator[Diagnosis]:
        yield Diagnosis("ok", "before", "it hung")
        stuck.wait(30)
        yield Diagnosis("ok", "after", "it was let go")

    def breaks(patient: Patient) -> Iterator[Diagnosis]:
        yield Diagnosis("ok", "before", "it broke")
        raise OSError("the disk is gone")

    def works(patient: Patient) -> Iterator[Diagnosis]:
        yield Diagnosis("ok", "works", "still")

    out = io.StringIO()
    sections = [Section("one", hangs, 0.2), Section("two", breaks, 5.0), Section("three", works, 5)]
    try:
        status = doctor(BUNDLED, out, machine_readable=True, environ={}, sections=sections)
    finally:
        stuck.set()
    assert status == 1
    report = json.loads(out.getvalue())
    assert report["verdict"] == "FAIL"
    one, two, three = ([f["verdict"] for f in s["findings"]] for s in report["sections"])
    assert (one, two, three) == (["ok", "FAIL"], ["ok", "FAIL"], ["ok"])
    assert "hangs" in report["sections"][0]["findings"][1]["text"]
    assert "the disk is gone" in report["sections"][1]["findings"][1]["text"]


def test_a_section_cannot_flood_the_report() -> None:
    """Findings without end are cut off."""

    def endless(patient: Patient) -> Iterator[Diagnosis]:
        while True:
            yield Diagnosis("ok", "again", "and again")

    examined = examine(Section("flood", endless, 10.0), patient_with(), Redactor(()))
    assert examined.findings[-1].topic == "more"
    assert len(examined.findings) < 1000


def test_what_is_logged_meanwhile_is_a_finding(capsys: pytest.CaptureFixture[str]) -> None:
    """It neither gets lost nor among the report's own lines."""

    def warns(patient: Patient) -> Iterator[Diagnosis]:
        structlog.get_logger().warning("character_hidden", character="ada")
        yield Diagnosis("ok", "looked", "at it")

    examined = examine(Section("talks", warns, 10.0), patient_with(), Redactor(()))
    assert [each.text for each in examined.findings] == ["at it", "character_hidden: character=ada"]
    assert examined.findings[1].verdict == "note"
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("machine_readable", [False, True])
def test_wrong_settings_are_a_finding_and_the_rest_goes_on(
    tmp_path: Path, machine_readable: bool
) -> None:
    """Without usable settings, what does not need them is still looked at."""
    wrong = tmp_path / "avatar.toml"
    wrong.write_text("[server]\nport = 99999\n")
    out = io.StringIO()
    status = doctor(wrong, out, machine_readable=machine_readable, environ={}, sections=QUICK)
    assert status == 1
    text = out.getvalue()
    for expected in ("server.port", "avatar-orchestrator", "cores may be used", "not looked at"):
        assert expected in text


def test_verdicts_are_coloured_on_a_terminal_only() -> None:
    """Elsewhere there is not one escape; long texts are wrapped below their column."""
    section = Examined("title", (Diagnosis("FAIL", "topic", "word " * 60, "do this"),), 0.1)

    def written(colours: bool) -> str:
        out = io.StringIO()
        TextReport(out, colours=colours, columns=80).section(section)
        return out.getvalue()

    assert "\x1b[31;1mFAIL" in written(True)
    plain = written(False)
    assert "\x1b" not in plain
    lines = plain.splitlines()[2:]
    column = lines[0].index("word")
    assert all(len(line) <= 80 for line in lines)
    assert all(line.index(line.strip()) == column for line in lines[1:-1])
    assert lines[-1].strip() == "-> do this"
    assert "FAIL  topic" in lines[0]


# --- secrets ------------------------------------------------------------------------------


@pytest.mark.parametrize("machine_readable", [False, True])
@pytest.mark.parametrize("broken", [False, True])
def test_no_token_is_ever_shown(tmp_path: Path, machine_readable: bool, broken: bool) -> None:
    """Not those of settings, addresses, variables or a file that cannot even be used."""
    config = tmp_path / "avatar.toml"
    config.write_text(
        f'[auth]\ntoken = "{SECRET}-auth"\n[media_bridge]\nurl = '
        f'"ws://me:{SECRET}-pw@127.0.0.1:1/x?token={SECRET}-query"\ntoken = "{SECRET}-bridge"\n'
        f'[events]\nconnect = ["ws://127.0.0.1:1/a?api_key={SECRET}-key"]\n'
        f'tokens = ["{SECRET}-publisher"]\n' + ("[server]\nport = -1\n" if broken else "")
    )
    environ = {"AVATAR_STATE__DIR": str(tmp_path), "HF_TOKEN": f"{SECRET}-hub"}

    def careless(patient: Patient) -> Iterator[Diagnosis]:
        """A section that repeats whatever it comes across."""
        yield Diagnosis("ok", "file", config.read_text(), json.dumps(dict(environ)))
        yield Diagnosis("ok", "log", 'Authorization: Bearer abcdefgh12345, "?token=qwertyuiop"')
        raise RuntimeError(f"cannot reach ws://me:{SECRET}-pw@host with {SECRET}-auth")

    out = io.StringIO()
    sections = [*QUICK, Section("careless", careless, 5.0)]
    doctor(config, out, machine_readable=machine_readable, environ=environ, sections=sections)
    text = out.getvalue()
    assert "careless" in text
    for secret in (SECRET, "s3cr3t", "abcdefgh12345", "qwertyuiop"):
        assert secret not in text
    assert "***" in text


def test_a_secret_is_found_in_every_way_of_writing_it() -> None:
    """Quoted for an address or for JSON it is the same secret."""
    secret = 'a"b\\c/d&e'
    redactor = Redactor([secret, "x"])
    for written in (secret, json.dumps(secret), repr(secret), "a%22b%5Cc%2Fd%26e"):
        assert "d&e" not in redactor.text(f"<{written}>")
        assert "d%26e" not in redactor.text(f"<{written}>")
    assert redactor.text("an x stays") == "an x stays"
    assert redactor.text("ws://host:80/path?stage=a") == "ws://host:80/path?stage=a"


def test_secrets_of_a_file_that_is_no_toml_are_known() -> None:
    """Even a torn file is searched for what looks like a token."""
    torn = Path("torn.toml")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Path, "read_text", lambda *_: '[auth\ntoken = "hidden-token"\nx = "y"\n')
        assert secrets_of(None, torn, {}) == {"hidden-token"}


# --- GPU ----------------------------------------------------------------------------------


def torch_facts(**changed: Any) -> dict[str, Any]:
    device = {"name": "GPU", "capability": [9, 0], "bytes": 2**37, "integrated": False}
    return {
        "version": "2.13.0", "cuda": "13.0", "available": True, "arches": ["sm_80", "sm_90"],
        "devices": [device], "mps": False, "threads": 8,
    } | changed  # fmt: skip


SPARK = {"name": "NVIDIA GB10", "capability": [12, 1], "bytes": 2**37, "integrated": True}


@pytest.mark.parametrize(
    ("facts", "driver", "verdict", "words"),
    [
        (torch_facts(), "13.0", "ok", "9.0"),
        (torch_facts(cuda=None, available=False, devices=[]), "13.0", "FAIL", "CUDA build"),
        (torch_facts(available=False, devices=[]), "12.4", "FAIL", "update the driver"),
        (torch_facts(available=False, devices=[]), "13.1", "FAIL", "/dev/nvidia"),
        (torch_facts(devices=[SPARK], arches=["sm_90", "sm_120"]), "13.0", "ok", "false alarm"),
        (torch_facts(devices=[SPARK], arches=["sm_90"]), "13.0", "FAIL", "no kernels"),
    ],
)
def test_torch_driver_and_device_must_fit(
    facts: dict[str, Any], driver: str, verdict: str, words: str
) -> None:
    """A build without kernels, without CUDA or too new for the driver is told, and what to do."""
    last = list(graphics.judge_torch(facts, driver, gpu=True))[-1]
    assert last.verdict == verdict
    assert words in f"{last.text} {last.advice}"


def test_unified_memory_is_no_alarm() -> None:
    """nvidia-smi has no figures for it, and nothing is wrong."""
    listing = "NVIDIA GB10, 580.95.05, [N/A], [N/A], 12.1\nNVIDIA H200, 570.1, 143771, 12, 9.0\n"
    found = list(graphics.judge_listing(listing))
    assert [each.topic for each in found] == ["gpu", "false alarm", "gpu"]
    assert "12 of 143771 MiB" in found[2].text
    assert all(each.verdict == "ok" for each in found)


def test_a_program_that_is_missing_hangs_or_fails_is_told(tmp_path: Path) -> None:
    """None of it raises."""
    assert told_by(("no-such-program-here",), 1.0).trouble == "missing"
    assert told_by(("sleep", "30"), 0.1).trouble == "hangs"
    failed = told_by(("sh", "-c", "echo seen; echo why >&2; exit 3"), 5.0)
    assert (failed.output, failed.trouble) == ("seen\n", "exit status 3: why")
    assert told_by(("echo", "well"), 5.0).trouble is None


# --- machine, ports, service ----------------------------------------------------------------


def test_fewer_files_than_viewers_need_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit that counts is the hard one: the daemon raises its own."""
    monkeypatch.setattr(machine.resource, "getrlimit", lambda _: (256, 1024))
    found = {each.topic: each for each in machine.look(patient_with())}
    assert found["limits"].verdict == "note"
    assert "LimitNOFILE" in found["limits"].advice
    monkeypatch.setattr(machine.resource, "getrlimit", lambda _: (256, 8192))
    found = {each.topic: each for each in machine.look(patient_with())}
    assert found["limits"].verdict == "ok"


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="needs Linux' /proc")
def test_who_has_a_port_is_named() -> None:
    """A socket of this very process is found; one that nobody shows is of somebody else."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        found = holders(inodes_of("tcp", port))
        assert [each.pid for each in found] == [os.getpid()]
        section = TITLES["Ports"]
        finding = only(section.look(patient_with(AVATAR_SERVER__PORT=str(port))))
        assert finding.verdict == "note"
        assert str(os.getpid()) in finding.text
    assert inodes_of("tcp", port) == set()
    assert only(section.look(patient_with(AVATAR_SERVER__PORT=str(port)))).verdict == "ok"
    assert holders({"0"}) == [Holder(None)]


def test_a_port_that_cannot_be_had_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the kernel does not say who has it; a daemon that has answered has it rightly."""
    monkeypatch.setattr(ports, "inodes_of", lambda *_: set())
    with socket.create_server(("127.0.0.1", 0)) as server:
        patient = patient_with(AVATAR_SERVER__PORT=str(server.getsockname()[1]))
        assert only(ports.look(patient)).verdict == "FAIL"
        patient.samples["avatar_viewers", frozenset({("stage", "main")})] = 0.0
        assert only(ports.look(patient)).verdict == "ok"


@pytest.mark.parametrize(
    ("unit", "verdicts"),
    [
        ({"LoadState": "not-found"}, ["ok"]),
        ({"LoadState": "loaded", "ActiveState": "active", "NRestarts": "0"}, ["ok"]),
        (
            {"LoadState": "loaded", "ActiveState": "failed", "ExecMainStatus": "78"},
            ["FAIL"],
        ),
        (
            {"LoadState": "loaded", "ActiveState": "active", "NRestarts": "7",
             "NeedDaemonReload": "yes"},
            ["ok", "note", "note"],
        ),
    ],
)  # fmt: skip
def test_the_unit_is_judged(unit: dict[str, str], verdicts: list[str]) -> None:
    """Failed, restarted and outdated units are told, with what their status means."""
    found = list(service.judge_unit(unit))
    assert [each.verdict for each in found] == verdicts
    if unit.get("ExecMainStatus") == "78":
        assert "wrong settings" in found[0].advice


def test_the_log_is_summed_up() -> None:
    """Warnings are counted and the last are shown; ordinary lines and torn ones are not."""
    warning = (
        '{"event": "renderer_degraded", "level": "warning", "reason": "late", "timestamp": "t"}'
    )
    lines = ['{"event": "ready", "level": "info"}', "{torn", *[warning] * 40, "Traceback (most"]
    first, *shown = service.judge_log(lines)
    assert "renderer_degraded 40 times" in first.text
    assert len(shown) == service.SHOWN
    assert "reason=late" in shown[0].text
    assert only(service.judge_log(lines[:2])).verdict == "ok"


def test_what_check_finds_is_left_out_only_where_it_is_looked_at_more_closely(
    tmp_path: Path,
) -> None:
    """Each topic that is left out is one of `check`; emotions, characters and access are kept."""
    patient = patient_with(
        AVATAR_STATE__DIR=str(tmp_path),
        AVATAR_SERVER__PORT="0",
        AVATAR_VMC__PORT="18420",
        AVATAR_EVENTS__CONNECT='["ws://127.0.0.1:1/"]',
    )
    topics = {each.topic for each in check.findings(patient.known, patient.config)}
    assert topics >= files.ELSEWHERE
    kept = {each.topic for each in files.look(patient)}
    assert kept == topics - files.ELSEWHERE
    assert kept >= {"emotions", "character", "renderer", "state", "access"}


# --- connections --------------------------------------------------------------------------


@pytest.fixture
def publisher() -> Iterator[str]:
    """A WebSocket server that wants a token."""

    def check(connection: ServerConnection, request: Any) -> Any:
        if request.headers.get("Authorization") != "Bearer right":
            return connection.respond(HTTPStatus.UNAUTHORIZED, "no")
        return None

    with serve(lambda connection: None, "127.0.0.1", 0, process_request=check) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"ws://127.0.0.1:{server.socket.getsockname()[1]}/emotions"
        server.shutdown()
        thread.join()


def test_addresses_are_dialled(publisher: str) -> None:
    """One that answers is timed; a wrong token, nobody and a wrong name are told apart."""
    assert "connected in" in dial(Line("publisher", publisher, "right")).text
    refused = dial(Line("publisher", publisher, "wrong"))
    assert (refused.verdict, refused.advice) == ("FAIL", "check its token")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    nobody = dial(Line("media bridge", f"ws://127.0.0.1:{port}/", ""))
    assert (nobody.verdict, nobody.topic) == ("FAIL", "media bridge")
    assert "refused" in nobody.text


def test_an_address_that_takes_connections_and_says_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is given up after a time."""
    monkeypatch.setattr(connections, "OPEN_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        found = dial(Line("publisher", f"ws://127.0.0.1:{silent.getsockname()[1]}/", ""))
    assert found.verdict == "FAIL"
    assert "no answer within" in found.text


def test_what_the_daemon_is_connected_to_is_not_dialled(publisher: str) -> None:
    """Some take one connection only, and would drop the daemon's."""
    patient = patient_with(
        AVATAR_EVENTS__CONNECT=f'["{publisher}"]', AVATAR_EVENTS__TOKENS='["wrong"]'
    )
    assert only(connections.look(patient)).verdict == "FAIL"
    patient.samples["avatar_publishers_wanted", frozenset()] = 1.0
    patient.samples["avatar_connections", frozenset({("kind", "publisher")})] = 1.0
    found = only(connections.look(patient))
    assert (found.verdict, "the daemon is connected" in found.text) == ("ok", True)


def test_things_done_together_are_waited_for_together() -> None:
    """One that hangs costs its own answer alone."""
    stuck = threading.Event()
    try:
        assert all_within([lambda: 1, lambda: stuck.wait(30) and 2, lambda: 3], 0.3) == [1, None, 3]
    finally:
        stuck.set()


# --- a daemon -----------------------------------------------------------------------------


def test_another_program_on_the_port_is_told() -> None:
    """What answers otherwise than the daemon, and what never answers, are findings."""
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.MonkeyPatch.context() as patched:
        patched.setattr(running, "ANSWER_S", 0.2)
        port = str(silent.getsockname()[1])
        found = only(running.look(patient_with(AVATAR_SERVER__PORT=port)))
    assert found.verdict == "FAIL"
    assert "does not answer" in found.text
    page = httpx.Response(200, text="<html>", request=httpx.Request("GET", "http://x/health"))
    assert only(running._health("http://x", page, 0.0)).verdict == "FAIL"
    assert only(running.look(patient_with(AVATAR_SERVER__PORT=port))).verdict == "note"


def test_a_degraded_daemon_and_one_that_skips_frames_are_told() -> None:
    """Why it is degraded is repeated; fewer frames than wanted count while somebody watches."""
    body = {"renderer": "mesh", "device": "cpu", "uptime_s": 5.0, "degraded": "mesh: hangs"}
    health = httpx.Response(200, json=body, request=httpx.Request("GET", "http://x/health"))
    found = {each.topic: each for each in running._health("http://x", health, 0.001)}
    assert found["daemon"].verdict == "ok"
    assert (found["degraded"].verdict, found["degraded"].text) == ("FAIL", "mesh: hangs")
    for viewers, verdict in (({"websocket": 2}, "FAIL"), ({}, "ok")):
        state = {"stage": "main", "character": "ada", "viewers": viewers, "fps": 12.0}
        assert (
            only(running._state(patient_with(), httpx.Response(200, json=state))).verdict == verdict
        )


def test_its_figures_are_summed_up() -> None:
    """The latency that 99 of 100 stay below, what the cache saves, and each kind of failure."""
    patient = patient_with()
    metrics = PrometheusMetrics()
    metrics.set(Metric.BUILD_INFO, 1, version="0.0.1", python="3", renderer="mesh", device="cpu")
    for latency_s in (*[0.02] * 97, *[0.4] * 3):
        metrics.observe(Metric.STARTED_SECONDS, latency_s, stage="main")
    metrics.count(Metric.CACHE_HITS, 3)
    metrics.count(Metric.CACHE_MISSES, 1)
    metrics.count(Metric.EVICTIONS, 2, kind="mjpeg")
    running._read_samples(patient, metrics.render().decode())
    version, reaction, cache, *counted = running._figures(patient)
    assert (version.verdict, "0.0.1" in version.text) == ("note", True)
    assert (reaction.verdict, "500 ms" in reaction.text) == ("note", True)
    assert cache.text.startswith("75%")
    assert [each.text for each in counted] == [
        "2 viewers were dropped because they stopped reading since the start"
    ]


@pytest.mark.parametrize(("median_ms", "verdict"), [(5.0, "ok"), (28.0, "note"), (40.0, "FAIL")])
def test_a_machine_that_does_not_keep_up_is_told(median_ms: float, verdict: str) -> None:
    """A frame has to be drawn well within its period."""
    assert speed._judge("drawn", median_ms, 1000.0 / 30.0).verdict == verdict


def test_what_is_not_default_is_listed() -> None:
    """Keys with their values; a secret's is not among them."""
    patient = patient_with(
        AVATAR_STAGE__FPS="15",
        AVATAR_AUTH__TOKEN="t-o-k-e-n",
        AVATAR_EVENTS__CONNECT='["wss://me:pass@host/in?token=query"]',
    )
    found = {each.topic: each for each in TITLES["Configuration"].look(patient)}
    assert "stage.fps = 15.0" in found["not default"].text
    assert "auth.token = (set)" in found["not default"].text
    assert "events.connect = ('wss://host/in',)" in found["not default"].text
    assert "AVATAR_STAGE__FPS" in found["environment"].text
    usual = {each.topic: each for each in TITLES["Configuration"].look(patient_with())}
    assert usual["not default"].text == "nothing"
    assert Settings() == patient_with().settings

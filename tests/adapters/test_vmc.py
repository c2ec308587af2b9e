"""VMC: what performers' messages make of a face, and the UDP port that they come to."""

from __future__ import annotations

import asyncio
import math
import socket
import tomllib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from importlib import resources
from typing import Any

import pytest
import structlog
from pythonosc.udp_client import SimpleUDPClient

from adapters import vmc
from adapters.marionette import FORGET_S, Marionette, VmcError, angles, shapes
from adapters.osc import MAX_BYTES, split
from adapters.vmc import KIND, VmcInput, check_host
from pipeline.errors import ConfigError, PortTakenError
from pipeline.ports import Metric, Reply
from pipeline.types import (
    ARKIT_BLENDSHAPES,
    ControlsMode,
    DirectControls,
    ErrorInfo,
    FaceControls,
    Failure,
    StageMessage,
)
from tests.fakes.metrics import RecordingMetrics
from tests.fakes.performer import APPLY, bone, bundle, frame, message, value
from tests.fakes.stage import FakeDaemon, FakeStage
from tests.fakes.waiting import until


def heard(marionette: Marionette, datagram: bytes, now_s: float = 0.0) -> DirectControls | None:
    return marionette.hear(split(datagram), now_s)


def face(datagram: bytes) -> DirectControls:
    """What a new marionette makes of one datagram that counts."""
    controls = heard(Marionette(), datagram)
    assert controls is not None
    return controls


# --- blendshapes ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["jawOpen", "JawOpen", "JAWOPEN", "jawopen"])
def test_arkit_names_are_understood_in_any_case(name: str) -> None:
    """PerfectSync models write them with a capital."""
    assert face(frame({name: 0.25})) == DirectControls(weights={"jawOpen": 0.25})


def test_every_arkit_blendshape_is_understood() -> None:
    """All 52 arrive as themselves, and nothing else with them."""
    sent = {name: round(0.01 * place, 2) for place, name in enumerate(ARKIT_BLENDSHAPES)}
    assert face(frame(sent)).weights == pytest.approx(sent)


VRM_0 = (
    "Neutral", "A", "I", "U", "E", "O", "Blink", "Joy", "Angry", "Sorrow", "Fun", "LookUp",
    "LookDown", "LookLeft", "LookRight", "Blink_L", "Blink_R",
)  # fmt: skip
VRM_1 = (
    "neutral", "aa", "ih", "ou", "ee", "oh", "blink", "happy", "angry", "sad", "relaxed", "lookUp",
    "lookDown", "lookLeft", "lookRight", "blinkLeft", "blinkRight",
)  # fmt: skip


@pytest.mark.parametrize(("old", "new"), [*zip(VRM_0, VRM_1, strict=True), ("Surprised",) * 2])
def test_both_vrms_names_mean_the_same(old: str, new: str) -> None:
    """Each preset of VRM 0 and its heir in VRM 1, upper case too, are one shape on the face."""
    shape = face(frame({old: 1.0})).weights
    assert face(frame({new: 1.0})).weights == shape == face(frame({old.upper(): 1.0})).weights
    assert bool(shape) == (old != "Neutral")
    FaceControls.of(**shape)


def test_presets_look_like_what_they_are_called() -> None:
    """Mouths open, corners go the right way, the right eye closes, gaze goes to its own side."""
    assert face(frame({"A": 1.0})).weights["jawOpen"] > 0.5
    assert face(frame({"U": 1.0})).weights["mouthPucker"] > 0.5
    assert face(frame({"Joy": 0.5})).weights["mouthSmileLeft"] == pytest.approx(0.46)
    assert "mouthFrownRight" in face(frame({"Sorrow": 1.0})).weights
    assert face(frame({"Blink_L": 1.0})).weights == {"eyeBlinkLeft": 1.0}
    assert face(frame({"LookLeft": 1.0})).weights.keys() == {"eyeLookOutLeft", "eyeLookInRight"}


def test_every_shape_of_the_table_is_a_face() -> None:
    """The table names ARKit blendshapes with numbers above 0 up to 1, each name once."""
    text = resources.files("adapters").joinpath("vmc.toml").read_text("utf-8")
    presets = tomllib.loads(text)
    names = [name.lower() for preset in presets.values() for name in preset["names"]]
    assert len(names) == len(set(names))
    assert set(names) <= shapes().keys()
    for preset in presets.values():
        assert preset.keys() <= {"names", "controls"}
        for control, amount in preset.get("controls", {}).items():
            assert control in ARKIT_BLENDSHAPES
            assert 0.0 < amount <= 1.0


def test_expressions_add_up_to_one_at_most() -> None:
    """A smile in a preset and the same smile as a blendshape are not more than a smile."""
    weights = face(frame({"Joy": 1.0, "MouthSmileLeft": 0.8, "A": 0.5})).weights
    assert weights["mouthSmileLeft"] == 1.0
    assert weights["jawOpen"] == pytest.approx(0.07 + 0.31)


def test_values_out_of_range_are_clamped() -> None:
    """A tracker that overshoots is at its limit."""
    weights = face(frame({"jawOpen": 1.7, "mouthLeft": -0.2, "mouthRight": math.inf})).weights
    assert weights == {"jawOpen": 1.0, "mouthLeft": 0.0, "mouthRight": 1.0}


def test_values_count_from_apply_on_and_are_kept() -> None:
    """Until Apply nothing changes; what is not sent again stays."""
    marionette = Marionette()
    assert heard(marionette, value("jawOpen", 0.5)) is None
    assert heard(marionette, value("cheekPuff", 0.2), 0.01) is None
    first = heard(marionette, APPLY, 0.02)
    assert first is not None
    assert first.weights == pytest.approx({"jawOpen": 0.5, "cheekPuff": 0.2})
    second = heard(marionette, frame({"jawOpen": 0.75}), 0.5)
    assert second is not None
    assert second.weights == pytest.approx({"jawOpen": 0.75, "cheekPuff": 0.2})
    assert first.weights["jawOpen"] == 0.5


def test_after_a_silence_old_values_do_not_come_back() -> None:
    """A second later, who comes is somebody new."""
    marionette = Marionette()
    heard(marionette, frame({"jawOpen": 0.5}), 0.0)
    heard(marionette, bone("Head", "y", 20.0), 0.9)
    controls = heard(marionette, frame({"cheekPuff": 0.5}), 0.9 + FORGET_S)
    assert controls == DirectControls(weights={"cheekPuff": 0.5}, head=controls.head)  # type: ignore[union-attr]
    assert controls is not None
    assert controls.head["yaw"] == pytest.approx(20.0, abs=1e-4)
    controls = heard(marionette, frame({"cheekPuff": 0.5}), 0.91 + FORGET_S)
    assert controls == DirectControls(weights={"cheekPuff": 0.5})


def test_what_a_model_has_beside_these_is_passed_over() -> None:
    """Its own expressions, other bones, other messages, more arguments than needed."""
    marionette = Marionette(weight=0.5)
    for other in (
        frame({"Hat_Off": 1.0})[:-20],
        message("/VMC/Ext/OK", 1, 3, 0, 1),
        message("/VMC/Ext/T", 12.5),
        message("/VMC/Ext/Root/Pos", "root", *[0.0] * 7),
        message("/VMC/Ext/Blend/Val", "Hat_Off", "on"),
        bone("RightHand", "x", 90.0),
        message("/VMC/Ext/Bone/Pos", "LeftEye", *[math.nan] * 7),
        message("/other"),
    ):
        assert heard(marionette, bundle(other) if other.startswith(b"/") else bundle()) is None
    sent = message("/VMC/Ext/Blend/Val", "jawOpen", 1, "more", 3)
    assert heard(marionette, bundle(sent, APPLY)) == DirectControls(
        mode=ControlsMode.SET, weights={"jawOpen": 1.0}, weight=0.5
    )


@pytest.mark.parametrize(
    "wrong",
    [
        message("/VMC/Ext/Blend/Val"),
        message("/VMC/Ext/Blend/Val", "jawOpen"),
        message("/VMC/Ext/Blend/Val", 0.5, "jawOpen"),
        message("/VMC/Ext/Blend/Val", "jawOpen", "wide"),
        message("/VMC/Ext/Blend/Val", "jawOpen", math.nan),
        message("/VMC/Ext/Bone/Pos", "Head", 0.0, 0.0, 0.0, 0.0, 0.0, 1.0),
        message("/VMC/Ext/Bone/Pos", "Head", *[0.0] * 7),
        message("/VMC/Ext/Bone/Pos", "Head", *[0.0] * 6, math.nan),
        message("/VMC/Ext/Bone/Pos", "Neck", *[0.0] * 6, math.inf),
        message("/VMC/Ext/Bone/Pos", "Head", *[0.0] * 6, "w"),
    ],
)
def test_a_wrong_message_spoils_its_datagram_and_nothing_else(wrong: bytes) -> None:
    """All or none of a datagram counts, and the sentence is short."""
    marionette = Marionette()
    before = heard(marionette, bundle(value("jawOpen", 0.5), bone("Head", "x", 10.0), APPLY))
    with pytest.raises(VmcError) as refused:
        heard(marionette, bundle(value("jawOpen", 1.0), bone("Head", "x", 30.0), wrong, APPLY))
    assert len(str(refused.value)) < 300
    assert heard(marionette, APPLY) == before


# --- the head -------------------------------------------------------------------------------


@pytest.mark.parametrize(("axis", "angle"), [("x", "pitch"), ("y", "yaw"), ("z", "roll")])
@pytest.mark.parametrize("degrees", [-30.0, 0.0, 12.5])
def test_turns_about_unitys_axes_are_our_angles(axis: str, angle: str, degrees: float) -> None:
    """x down, y to the character's right, z to its left shoulder: no sign flips."""
    expected = {"pitch": 0.0, "yaw": 0.0, "roll": 0.0} | {angle: degrees}
    assert face(bone("Head", axis, degrees)).head == pytest.approx(expected, abs=1e-4)


def turned(rotation: tuple[float, float, float, float], point: tuple[float, float, float]) -> Any:
    """A point after a rotation, by the definition: q p q*."""
    x, y, z, w = rotation
    px, py, pz = point
    tx, ty, tz = 2 * (y * pz - z * py), 2 * (z * px - x * pz), 2 * (x * py - y * px)
    return (
        px + w * tx + y * tz - z * ty,
        py + w * ty + z * tx - x * tz,
        pz + w * tz + x * ty - y * tx,
    )


def test_the_signs_are_those_of_a_face_in_unity() -> None:
    """Where the nose and the crown go, with x to the character's right, y up, z out of the face."""
    half = math.radians(20.0) / 2.0
    s, c = math.sin(half), math.cos(half)
    nose, crown = (0.0, 0.0, 1.0), (0.0, 1.0, 0.0)
    assert turned((s, 0, 0, c), nose)[1] < -0.3  # down
    assert angles((s, 0, 0, c))["pitch"] == pytest.approx(20.0)  # FaceControls: looks down
    assert turned((0, s, 0, c), nose)[0] > 0.3  # to the character's right
    assert angles((0, s, 0, c))["yaw"] == pytest.approx(20.0)  # to the image's left edge
    assert turned((0, 0, s, c), crown)[0] < -0.3  # to the character's left
    assert angles((0, 0, s, c))["roll"] == pytest.approx(20.0)  # to the image's right edge


def test_neck_and_head_are_turned_together() -> None:
    """Performers share a turn between both bones; the neck counts with the head that follows."""
    marionette = Marionette()
    assert heard(marionette, bone("Neck", "y", 8.0)) is None
    for axis, expected in (("y", (0.0, 15.0, 0.0)), ("x", (7.0, 8.0, 0.0))):
        controls = heard(marionette, bone("Head", axis, 7.0))
        assert controls is not None
        angles_deg = tuple(controls.head[name] for name in ("pitch", "yaw", "roll"))
        assert angles_deg == pytest.approx(expected, abs=1e-4)
        assert controls.weights == {}


def test_angles_stay_within_their_limits_and_size_does_not_matter() -> None:
    """A head that looks over its shoulder is at the limit; quaternions need not be of length 1."""
    assert face(bone("Head", "y", 90.0)).head["yaw"] == 45.0
    half = math.radians(10.0) / 2.0
    double = message(
        "/VMC/Ext/Bone/Pos", "head", 0, 0, 0, 2 * math.sin(half), 0.0, 0.0, 2 * math.cos(half)
    )
    assert face(double).head["pitch"] == pytest.approx(10.0, abs=1e-4)


# --- the port -------------------------------------------------------------------------------


class Running:
    """An input that listens, its daemon and its figures."""

    def __init__(self, listener: VmcInput, daemon: FakeDaemon, metrics: RecordingMetrics) -> None:
        self.listener = listener
        self.daemon = daemon
        self.metrics = metrics
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.connect(("127.0.0.1", listener.port))

    @property
    def stage(self) -> FakeStage:
        return self.daemon.main

    def send(self, datagram: bytes) -> None:
        self._socket.send(datagram)

    def bad(self, code: str) -> float:
        return self.metrics.total(Metric.BAD_MESSAGES, code=code)

    def close(self) -> None:
        self._socket.close()


@asynccontextmanager
async def listening(daemon: FakeDaemon | None = None, **options: Any) -> AsyncIterator[Running]:
    daemon, metrics = daemon or FakeDaemon(), RecordingMetrics()
    listener = VmcInput(daemon, metrics, **options)
    await listener.listen("127.0.0.1", 0)
    running = Running(listener, daemon, metrics)
    try:
        yield running
    finally:
        running.close()
        listener.close()
        await asyncio.sleep(0)


async def test_a_python_osc_client_moves_the_face() -> None:
    """Its datagrams become controls on the stage, from one and the same source."""
    async with listening(weight=0.5) as running:
        client = SimpleUDPClient("127.0.0.1", running.listener.port)
        for amount in (0.25, 0.5):
            client.send_message("/VMC/Ext/Blend/Val", ["JawOpen", amount])
            client.send_message("/VMC/Ext/Blend/Apply", [])
        client._sock.close()
        await until(lambda: len(running.stage.submitted) == 2)
        assert running.stage.messages == [
            DirectControls(weights={"jawOpen": amount}, weight=0.5) for amount in (0.25, 0.5)
        ]
        first, second = (reply for _, reply in running.stage.submitted)
        assert first == second
        assert hash(first) == hash(second)
        assert not first.closed
        assert running.metrics.total(Metric.MESSAGES, type="controls") == 2
    assert first.closed


async def test_the_gauge_says_whether_somebody_performs(monkeypatch: pytest.MonkeyPatch) -> None:
    """1 while controls come, 0 after a silence, with a line in the log each."""
    monkeypatch.setattr(vmc, "FORGET_S", 0.1)
    with structlog.testing.capture_logs() as lines:
        async with listening() as running:
            assert running.metrics.gauge(Metric.CONNECTIONS, kind=KIND) == 0
            for _ in range(2):
                running.send(frame({"A": 1.0}))
                await until(lambda: running.metrics.gauge(Metric.CONNECTIONS, kind=KIND) == 1)
                running.send(frame({"A": 1.0}))
                await until(lambda: running.metrics.gauge(Metric.CONNECTIONS, kind=KIND) == 0)
            running.send(frame({"A": 1.0}))
            await until(lambda: running.metrics.gauge(Metric.CONNECTIONS, kind=KIND) == 1)
        assert running.metrics.gauge(Metric.CONNECTIONS, kind=KIND) == 0
    events = [line["event"] for line in lines]
    assert events == ["vmc_listening", *["vmc_performing", "vmc_silent"] * 3]


async def test_bad_datagrams_are_counted_and_logged_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sender that is wrong 60 times a second fills no log, and good ones go on."""
    monkeypatch.setattr(vmc, "COMPLAIN_EVERY_S", 60.0)
    with structlog.testing.capture_logs() as lines:
        async with listening() as running:
            for number in range(30):
                running.send(b"rubbish %d" % number)
            running.send(b"")
            running.send(message("/VMC/Ext/Blend/Val", "jawOpen", "wide"))
            running.send(b"#bundle\0" + bytes(8) + b"\xff\xff\xff\xfc")
            running.send(frame({"jawOpen": 0.5}))
            await until(lambda: bool(running.stage.submitted))
            assert running.bad("invalid_message") == 33
    complaints = [line for line in lines if line["event"] == "vmc_bad_datagram"]
    assert len(complaints) == 1
    assert complaints[0]["remote"].startswith("127.0.0.1:")


async def test_what_was_not_logged_is_counted_in_the_next_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The next complaint says how many there were in between."""
    now_s = 100.0
    with structlog.testing.capture_logs() as lines:
        async with listening(clock=lambda: now_s) as running:
            for _ in range(3):
                running.send(b"rubbish")
            await until(lambda: running.bad("invalid_message") == 3)
            for count in (4, 5):
                now_s += vmc.COMPLAIN_EVERY_S
                running.send(b"rubbish")
                await until(lambda: running.bad("invalid_message") == count)  # noqa: B023 - awaited here
    unsaid = [line["unsaid"] for line in lines if line["event"] == "vmc_bad_datagram"]
    assert unsaid == [0, 2, 0]


async def test_a_datagram_over_the_limit_is_refused() -> None:
    """It is not even looked into."""
    async with listening() as running:
        whole = bundle(*[APPLY] * 800)
        running.send(whole + bytes(MAX_BYTES + 1 - len(whole)))
        await until(lambda: running.bad("too_large") == 1)
        assert running.stage.submitted == []


async def test_a_flood_is_limited() -> None:
    """Beyond the rate datagrams are dropped and counted, until the debt is paid by time."""
    now_s = 0.0
    with structlog.testing.capture_logs() as lines:
        async with listening(clock=lambda: now_s) as running:
            for _ in range(10):
                running.send(bundle(*[value("jawOpen", 0.5)] * 600, APPLY))
                await asyncio.sleep(0.005)  # the kernel drops what does not fit its buffer
            await until(lambda: running.bad("rate_limited") == 6)
            assert len(running.stage.submitted) == 4  # times 602 are more than AT_ONCE
            now_s += 400 / vmc.MESSAGES_PER_S
            running.send(frame({"jawOpen": 0.5}))
            await until(lambda: running.bad("rate_limited") == 7)
            now_s += 0.001
            running.send(frame({"jawOpen": 0.5}))
            await until(lambda: len(running.stage.submitted) == 5)
    assert len([line for line in lines if line["event"] == "vmc_bad_datagram"]) == 1


async def test_mistakes_are_dearer_than_messages() -> None:
    """Rubbish comes to an end sooner, and what was dropped last is counted, too."""
    async with listening(clock=lambda: 0.0) as running:
        for number in range(100):
            running.send(b"rubbish" if number % 2 else bytes(MAX_BYTES + 1))
            await asyncio.sleep(0.001)  # the kernel drops what does not fit its buffer
        await until(lambda: running.bad("invalid_message") + running.bad("too_large") == 96)
        running.send(frame({"jawOpen": 0.5}))
        await asyncio.sleep(0.01)
    assert running.bad("rate_limited") == 5
    assert running.stage.submitted == []


async def test_a_stage_that_is_not_there_is_reported_and_waited_for() -> None:
    """Stages come and go at run time; until it is there its messages count as bad."""
    daemon = FakeDaemon(FakeStage("main"))
    async with listening(daemon, stage="lobby") as running:
        running.send(frame({"jawOpen": 0.5}))
        await until(lambda: running.bad("unknown_stage") == 1)
        lobby = daemon.stages["lobby"] = FakeStage("lobby")
        running.send(frame({"jawOpen": 0.5}))
        await until(lambda: bool(lobby.submitted))
        assert daemon.main.submitted == []


async def test_failures_of_the_stage_do_not_end_the_input() -> None:
    """Neither an exception nor an error as answer; both are in the log."""

    def fail(message: StageMessage, reply: Reply) -> None:
        raise RuntimeError("broken")

    def refuse(message: StageMessage, reply: Reply) -> None:
        reply(Failure(None, ErrorInfo("rate_limited", "128 producers send controls at once")))

    now_s = 0.0
    with structlog.testing.capture_logs() as lines:
        async with listening(clock=lambda: now_s) as running:
            for answer in (fail, refuse, running.stage.usual_answer):
                running.stage.answer = answer
                before = len(running.stage.submitted)
                running.send(frame({"jawOpen": 0.5}))
                await until(lambda: len(running.stage.submitted) > before)  # noqa: B023 - awaited here
                now_s += vmc.COMPLAIN_EVERY_S
    events = [line["event"] for line in lines]
    assert "vmc_failed" in events
    assert [line["reason"] for line in lines if line["event"] == "vmc_refused"] == [
        "128 producers send controls at once"
    ]


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


async def test_a_port_that_is_taken_stops_the_boot(taken_port: int) -> None:
    """The error names the key."""
    listener = VmcInput(FakeDaemon(), RecordingMetrics())
    with pytest.raises(PortTakenError, match=rf"vmc\.port: UDP port {taken_port} is in use"):
        await listener.listen("127.0.0.1", taken_port)
    with pytest.raises(ConfigError, match=r"vmc\.host: 'no\.such\.invalid'"):
        await listener.listen("no.such.invalid", 0)
    assert listener.port == 0
    listener.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.3.2.1"])
def test_loopback_needs_no_permission(host: str) -> None:
    """Only this machine reaches it."""
    check_host(host, anybody=False)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "studio.example"])
def test_other_addresses_are_for_those_who_let_anybody_in(host: str) -> None:
    """UDP has no token, so only auth.mode = "none" opens them; the error says so."""
    with pytest.raises(ConfigError, match=r'vmc\.host: .*auth\.mode = "none"'):
        check_host(host, anybody=False)
    check_host(host, anybody=True)

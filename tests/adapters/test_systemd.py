"""Notifications to the service manager, and the unit file itself."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from adapters.systemd import SystemdNotifier

UNIT = Path(__file__).parents[2] / "systemd" / "avatar-orchestrator.service"
EXECUTABLE = "/opt/avatar-orchestrator/.venv/bin/avatar-orchestrator"

needs_systemd_analyze = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed"
)


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, socket.socket]]:
    """A service manager's socket, and its name as NOTIFY_SOCKET gives it."""
    if request.param == "abstract":
        if sys.platform != "linux":
            pytest.skip("abstract sockets are Linux only")
        name = f"@avatar-test-{os.getpid()}-{time.monotonic_ns()}"
        address = "\0" + name[1:]
    else:
        name = address = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(address)
        receiver.settimeout(5)
        yield name, receiver


@pytest.fixture
def notifier(manager: tuple[str, socket.socket]) -> Iterator[SystemdNotifier]:
    made = SystemdNotifier({"NOTIFY_SOCKET": manager[0]})
    yield made
    made.close()


def test_each_state_is_one_datagram(
    manager: tuple[str, socket.socket], notifier: SystemdNotifier
) -> None:
    """Ready, status, watchdog and stopping arrive as sd_notify(3) writes them."""
    receiver = manager[1]
    notifier.ready("mesh on cpu")
    notifier.status("30 fps")
    notifier.watchdog()
    notifier.stopping()
    assert [receiver.recv(4096) for _ in range(4)] == [
        b"READY=1\nSTATUS=mesh on cpu",
        b"STATUS=30 fps",
        b"WATCHDOG=1",
        b"STOPPING=1",
    ]
    assert notifier.enabled


def test_reloading_says_when_on_the_monotonic_clock(
    manager: tuple[str, socket.socket], notifier: SystemdNotifier
) -> None:
    """RELOADING=1 carries the monotonic time in microseconds, as Type=notify-reload wants it."""
    before_us = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    notifier.reloading()
    state, stamp = manager[1].recv(4096).decode().split("\n")
    after_us = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    key, _, value = stamp.partition("=")
    assert (state, key) == ("RELOADING=1", "MONOTONIC_USEC")
    assert before_us - 1 <= int(value) <= after_us


def test_a_status_stays_on_one_line(
    manager: tuple[str, socket.socket], notifier: SystemdNotifier
) -> None:
    """Text from outside cannot smuggle a field into the datagram, and is cut short."""
    notifier.status("degraded:\nREADY=1\ud800 " + "x" * 5000)
    data = manager[1].recv(8192)
    assert data.startswith(b"STATUS=degraded: READY=1? xxx")
    assert b"\n" not in data
    assert len(data) < 300


@pytest.mark.parametrize("name", ["", "relative", "/nobody/listens/here", "@nobody-listens"])
def test_nobody_listening_is_no_error(name: str) -> None:
    """Without a service manager every call does nothing."""
    notifier = SystemdNotifier({"NOTIFY_SOCKET": name})
    for _ in range(2):
        notifier.ready("up")
        notifier.watchdog()
        notifier.reloading()
        notifier.stopping()
    notifier.close()
    notifier.close()


def test_outside_a_service_it_is_disabled() -> None:
    """An empty environment means no socket and no watchdog."""
    notifier = SystemdNotifier({})
    assert not notifier.enabled
    assert notifier.watchdog_interval_s is None


def test_a_full_queue_does_not_hold_the_daemon_up(tmp_path: Path) -> None:
    """A service manager that does not read costs a moment, and gets what comes later."""
    address = str(tmp_path / "notify")
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as filler,
    ):
        receiver.bind(address)
        filler.setblocking(False)
        queued = 0
        with suppress(BlockingIOError):
            while True:
                filler.sendto(b"x", address)
                queued += 1
        notifier = SystemdNotifier({"NOTIFY_SOCKET": address})
        notifier.watchdog()
        assert [receiver.recv(16) for _ in range(queued)] == [b"x"] * queued
        notifier.watchdog()
        assert receiver.recv(16) == b"WATCHDOG=1"
        notifier.close()


@pytest.mark.parametrize(
    ("environ", "interval_s"),
    [
        ({"WATCHDOG_USEC": "10000000", "WATCHDOG_PID": str(os.getpid())}, 5.0),
        ({"WATCHDOG_USEC": "10000000"}, 5.0),
        ({"WATCHDOG_USEC": "10000000", "WATCHDOG_PID": str(os.getpid() + 1)}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({}, None),
    ],
)
def test_the_watchdog_is_fed_at_half_its_limit(
    environ: dict[str, str], interval_s: float | None
) -> None:
    """The interval is half of WATCHDOG_USEC, where the watchdog means this process."""
    assert SystemdNotifier(environ).watchdog_interval_s == interval_s


# --- the unit -----------------------------------------------------------------------------


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit with a program in place of the daemon that every machine has."""
    text = UNIT.read_text()
    assert EXECUTABLE in text
    copy = tmp_path / UNIT.name
    copy.write_text(text.replace(EXECUTABLE, shutil.which("true") or "/bin/true"))
    return copy


@needs_systemd_analyze
def test_the_unit_is_clean(unit: Path) -> None:
    """`systemd-analyze verify` has nothing to say; unknown keys would show on stderr only."""
    done = subprocess.run(
        ["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@needs_systemd_analyze
def test_the_unit_is_confined(unit: Path) -> None:
    """The exposure that `systemd-analyze security` sees stays at 2.0 or less."""
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=20", str(unit)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_the_unit_says_how_to_run_and_when_to_give_up() -> None:
    """Readiness, watchdog, restarts and stopping are set as the daemon expects them."""
    settings: dict[str, list[str]] = {}
    for line in UNIT.read_text().splitlines():
        key, separator, value = line.partition("=")
        if separator and not line.startswith("#"):
            settings.setdefault(key, []).append(value)
    assert settings["Type"] == ["notify"]
    assert settings["WatchdogSec"] == ["10"]
    assert settings["Restart"] == ["on-failure"]
    assert settings["RestartPreventExitStatus"] == ["64 78"]
    assert settings["TimeoutStopSec"] == ["10"]
    assert settings["StateDirectory"] == ["avatar-orchestrator"]
    assert settings["ExecReload"] == ["/bin/kill -HUP $MAINPID"]
    assert settings["ExecStart"][0].startswith(f"{EXECUTABLE} run --config /etc/")
    assert int(settings["LimitNOFILE"][0]) >= 2 * 2000
    assert "MemoryDenyWriteExecute" not in settings
    assert "PrivateDevices" not in settings

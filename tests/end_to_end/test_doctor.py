"""`avatar-orchestrator doctor` as its user runs it, beside a running daemon."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import httpx

from orchestrator.doctor import running
from orchestrator.doctor.patient import Patient
from orchestrator.settings import load_settings
from tests.fakes.daemon import DaemonProcess

TOKEN = "the-token-of-this-test"


def test_a_running_daemon_is_examined(tmp_path: Path) -> None:
    """It is found on its port, its figures are read with the token, and nothing shows the token."""
    with DaemonProcess(tmp_path / "state", AVATAR_AUTH__TOKEN=TOKEN) as daemon:
        header = {"Authorization": f"Bearer {TOKEN}"}
        message = {"type": "emotion", "emotion": "happy", "attack_ms": 30}
        httpx.post(f"{daemon.http}/v1/events", json=message, headers=header).raise_for_status()
        environ = os.environ | {
            "AVATAR_SERVER__PORT": str(daemon.port),
            "AVATAR_STATE__DIR": str(tmp_path / "state"),
            "AVATAR_AUTH__TOKEN": TOKEN,
        }
        done = subprocess.run(
            [sys.executable, "-m", "orchestrator", "doctor", "--json"],
            env=environ, capture_output=True, text=True, timeout=55, check=False,
        )  # fmt: skip
        wrong = {"AVATAR_SERVER__PORT": str(daemon.port), "AVATAR_AUTH__TOKEN": "another-one"}
        settings, config = load_settings(environ=wrong)
        refused = list(running.look(Patient(settings, config, "a test", wrong)))
    assert [each.topic for each in refused if each.verdict == "FAIL"][-1] == "access"
    assert done.stderr == ""
    assert TOKEN not in done.stdout
    report = json.loads(done.stdout)
    sections = {section["title"]: section["findings"] for section in report["sections"]}
    # How busy this machine is just now is no matter of right and wrong.
    sections.pop("Speed")
    failed = {
        each["topic"] for found in sections.values() for each in found if each["verdict"] == "FAIL"
    }
    assert failed <= {"degraded"}
    assert done.returncode == (1 if report["verdict"] == "FAIL" else 0)

    def text(title: str, topic: str) -> str:
        (found,) = [each["text"] for each in sections[title] if each["topic"] == topic]
        return str(found)

    assert f"127.0.0.1:{daemon.port} answers" in text("Running daemon", "daemon")
    assert text("Running daemon", "stage").startswith("astronaut, 0 viewers")
    assert str(daemon.process.pid) in text("Ports", "tcp")
    assert "auth.token = (set)" in text("Configuration", "not default")

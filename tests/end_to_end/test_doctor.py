"""`avatar-orchestrator doctor` as its user runs it, beside a running daemon."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

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


def certificate(folder: Path, name: str, days: int = 2) -> Path:
    """A certificate with its key in one file."""
    made = folder / f"{name}.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
    options = ["-days", str(days), "-subj", f"/CN={name}", "-keyout", str(made), "-out", "-"]
    done = subprocess.run([*command.split(), *options], check=True, capture_output=True)
    with made.open("ab") as file:
        file.write(done.stdout)
    return made


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")
def test_a_daemon_with_tls_is_examined(tmp_path: Path) -> None:
    """It is asked by its own certificate, which ends soon; another one is no proof of it."""
    right, wrong = certificate(tmp_path, "right"), certificate(tmp_path, "wrong")
    tls = {"AVATAR_SERVER__TLS_CERT": str(right)}
    with DaemonProcess(tmp_path / "state", **tls) as daemon:
        port = {"AVATAR_SERVER__PORT": str(daemon.port)}
        found = []
        for file in (right, wrong, tmp_path / "none.pem"):
            environ = port | {"AVATAR_SERVER__TLS_CERT": str(file)}
            settings, config = load_settings(environ=environ)
            patient = Patient(settings, config, "a test", environ)
            found.append({each.topic: each for each in running.look(patient)})
        health = subprocess.run(
            [sys.executable, "config/container/healthcheck.py"],
            cwd=Path(__file__).parents[2], env=port | tls, capture_output=True, check=False,
        )  # fmt: skip
    examined, unproven, unreadable = found
    assert examined["daemon"].verdict == "ok"
    assert (examined["tls"].verdict, "2 more days" in examined["tls"].text) == ("note", True)
    for other in (unproven, unreadable):
        assert [(each.topic, each.verdict) for each in other.values()] == [("tls", "FAIL")]
    assert health.returncode == 0, health.stdout

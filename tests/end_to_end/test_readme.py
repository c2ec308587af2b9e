"""What the README shows works as it is written there."""

import json
import re
import subprocess
import sys
from pathlib import Path

import httpx

from orchestrator.settings import Settings
from pipeline.ports import Metric
from tests.fakes.daemon import DaemonProcess

README = Path(__file__).parents[2] / "README.md"
TEXT = README.read_text("utf-8")


def test_the_examples_work(tmp_path: Path) -> None:
    """The curl body, every message of the table and the Python program run against a daemon."""
    program, *_ = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    (body,) = re.findall(r"curl -d '(.*?)'", TEXT)
    messages = [
        json.loads(text) for text in re.findall(r'^\| `(\{"type".*?\})`', TEXT, re.MULTILINE)
    ]
    assert [each["type"] for each in messages] == [
        "emotion", "interrupt", "text", "state", "controls", "mood", "character", "get_state",
        "ping",
    ]  # fmt: skip
    with DaemonProcess(tmp_path / "state") as daemon:
        events = f"{daemon.http}/v1/events"
        assert httpx.post(events, content=body).status_code == 202
        for message in messages:
            if message["type"] != "character":
                answer = httpx.post(events, json=message)
                assert answer.is_success, (message, answer.text)
        httpx.post(events, json={"type": "interrupt"})
        done = subprocess.run(
            [sys.executable, "-c", program.replace("127.0.0.1:8081", f"127.0.0.1:{daemon.port}")],
            cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert (tmp_path / "surprised.jpg").read_bytes().startswith(b"\xff\xd8\xff")
        exposed = httpx.get(f"{daemon.http}/metrics").text
    (section,) = re.findall(r"## Metrics\n(.*?)\n## ", TEXT, re.DOTALL)
    named = set(re.findall(r"`([a-z_]+)`", section)) - {"avatar_"}
    assert named <= {metric.value for metric in Metric}
    for name in named:
        assert f"avatar_{name}" in exposed, name


def test_settings_that_it_names_exist() -> None:
    """Every AVATAR_ variable of the README is a key of the settings."""
    for table, key in re.findall(r"AVATAR_([A-Z_]+?)__([A-Z_]+)", TEXT):
        if table != "TABLE":
            assert hasattr(getattr(Settings(), table.lower()), key.lower())

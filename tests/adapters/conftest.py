"""Event loops and a certificate for the tests on real sockets."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import uvloop

# asyncio and uvloop buffer writes differently, and viewers live off what is buffered.
ON_BOTH_LOOPS = {
    "test_frames_ws.py",
    "test_mjpeg.py",
    "test_events_ws.py",
    "test_vmc.py",
    "test_tls.py",
}
ON_UVLOOP = {"test_media_bridge.py", "test_events_client.py"}


@pytest.hookimpl(optionalhook=True)
def pytest_asyncio_loop_factories(
    item: pytest.Item,
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The loops on which to run a test."""
    loops: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {}
    if item.path.name not in ON_UVLOOP:
        loops["asyncio"] = asyncio.new_event_loop
    if item.path.name in ON_BOTH_LOOPS | ON_UVLOOP:
        loops["uvloop"] = uvloop.new_event_loop
    return loops


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A key, and a certificate for 127.0.0.1 and face.example that it has signed itself."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed")
    folder = tmp_path_factory.mktemp("tls")
    key, signed = folder / "key.pem", folder / "certificate.pem"
    command = f"{openssl} req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost"
    names = "subjectAltName=IP:127.0.0.1,DNS:face.example"
    where = ["-addext", names, "-keyout", str(key), "-out", str(signed)]
    subprocess.run([*command.split(), *where], check=True, capture_output=True)
    return key, signed

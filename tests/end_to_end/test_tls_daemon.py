"""The daemon with a certificate of its own: https, wss, the command line, and a renewal."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import ssl
import subprocess
import sys
from pathlib import Path

from websockets.asyncio.client import connect

from adapters.tls import pinned
from tests.adapters.test_tls import made_certificate
from tests.fakes.daemon import DaemonProcess


async def frame_over_tls(daemon: DaemonProcess, trusted: Path) -> bytes:
    """The first frame that a viewer gets who trusts that certificate alone."""
    address = daemon.ws.replace("ws:", "wss:") + "/v1/frames"
    async with asyncio.timeout(20), connect(address, ssl=pinned(trusted), max_size=None) as viewer:
        message = await viewer.recv()
    assert isinstance(message, bytes)
    return message


async def test_a_daemon_with_a_certificate(tmp_path: Path) -> None:
    """Frames and events over TLS; SIGHUP shows a renewed certificate, and a bad one keeps it."""
    key, signed = made_certificate(tmp_path, "first.example")
    new_key, new_signed = made_certificate(tmp_path, "second.example")
    old = tmp_path / "old.pem"
    old.write_bytes(signed.read_bytes())
    files = {"AVATAR_SERVER__TLS_CERT": str(signed), "AVATAR_SERVER__TLS_KEY": str(key)}
    with DaemonProcess(tmp_path / "state", **files) as daemon:
        assert (await frame_over_tls(daemon, signed)).startswith(b"AVF1")
        sent = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-m", "orchestrator", "send", "happy", "--no-wait"],
            env=os.environ | files | {"AVATAR_SERVER__PORT": str(daemon.port)},
            capture_output=True, text=True, timeout=30, check=False,
        )  # fmt: skip
        assert sent.returncode == 0, sent.stderr
        assert json.loads(sent.stdout.splitlines()[0])["type"] == "emotion.accepted"

        new_key.replace(key)
        new_signed.replace(signed)
        await hup(daemon, "reloaded")
        assert await frame_over_tls(daemon, signed)
        try:
            await frame_over_tls(daemon, old)
        except ssl.SSLCertVerificationError:
            pass
        else:
            raise AssertionError("the old certificate is still shown")

        key.write_text("no key")
        await hup(daemon, "reload_refused")
        assert await frame_over_tls(daemon, signed)


async def hup(daemon: DaemonProcess, event: str) -> None:
    """SIGHUP, until that event is in the log."""
    daemon.signal(signal.SIGHUP)
    for _ in range(100):
        if daemon.logged(event):
            return
        await asyncio.sleep(0.1)
    raise AssertionError(f"no {event}: {daemon.log[-3:]}")

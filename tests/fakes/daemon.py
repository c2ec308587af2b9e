"""The real daemon as a process of its own, as a user starts it."""

import contextlib
import json
import os
import queue
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

START_S = 60.0
STOP_S = 20.0


class DaemonProcess:
    """`python -m orchestrator run` on a free port, with a state directory of its own.

    Args:
        state_dir: AVATAR_STATE__DIR.
        python: arguments of the interpreter, where it is not the daemon itself.
        wrapper: a command that becomes the one after it.
        settings: further environment variables.
    """

    def __init__(
        self,
        state_dir: Path,
        *,
        python: Sequence[str] = ("-m", "orchestrator", "run"),
        wrapper: Sequence[str] = (),
        **settings: str,
    ) -> None:
        environ = {k: v for k, v in os.environ.items() if not k.startswith("AVATAR_")}
        environ |= {
            "AVATAR_SERVER__PORT": "0",
            "AVATAR_STATE__DIR": str(state_dir),
            "AVATAR_LOG__FORMAT": "json",
            "PYTHONUNBUFFERED": "1",
        } | settings
        self.process = subprocess.Popen(
            [*wrapper, sys.executable, *python],
            env=environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.log: list[dict[str, Any]] = []
        self._lines: queue.Queue[str] = queue.Queue()
        self._readers = [
            threading.Thread(target=self._read_stdout, daemon=True),
            threading.Thread(target=self._read_stderr, daemon=True),
        ]
        for reader in self._readers:
            reader.start()
        self.port = 0

    def __enter__(self) -> "DaemonProcess":
        try:
            self.port = self._wait_for_port()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop(kill_after_s=STOP_S)

    @property
    def http(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def ws(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def tell(self, line: str) -> None:
        """Write a line to its standard input, for those that read it."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()

    def stop(self, kill_after_s: float = STOP_S) -> int:
        """SIGTERM, and the exit status."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)
        return self.wait(kill_after_s)

    def wait(self, timeout_s: float = STOP_S) -> int:
        """The exit status of a process that ends by itself."""
        try:
            status = self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise
        for reader in self._readers:
            reader.join(5.0)
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            assert stream is not None
            with contextlib.suppress(OSError):  # what it was told last, it did not read
                stream.close()
        return status

    def logged(self, event: str) -> list[dict[str, Any]]:
        """Log lines of that event so far."""
        return [line for line in list(self.log) if line.get("event") == event]

    def _wait_for_port(self) -> int:
        for line in self._stdout_lines():
            found = re.search(r"Watch the face:\s+https?://127\.0\.0\.1:(\d+)/", line)
            if found:
                return int(found.group(1))
        raise AssertionError(f"it never said where to look; log: {self.log}")

    def _stdout_lines(self) -> Iterator[str]:
        while True:
            try:
                line = self._lines.get(timeout=START_S)
            except queue.Empty:
                return
            if line == "":
                return
            yield line

    def _read_stdout(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line)
        self._lines.put("")

    def _read_stderr(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            try:
                self.log.append(json.loads(line))
            except ValueError:
                self.log.append({"text": line})

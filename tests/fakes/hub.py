"""A Hugging Face hub on the loopback, with slow, broken and wrong answers to order.

It serves what `huggingface_hub` asks for when single files are fetched: HEAD and GET of
`/{repository}/resolve/{revision}/{path}` with the hub's own headers, either itself or, as the
public one does with large files, by sending the client on to another address.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import socket
import struct
import threading
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

REPOSITORY = "Studio/Faces"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
STALL_S = 20.0


@dataclass(frozen=True)
class Fault:
    """One wrong answer.

    Attributes:
        status: this instead of the file, with a page of HTML.
        headers: further ones; an empty value takes the usual header away.
        body: this content instead of the file's; announced as long as it is.
        cut_after: the connection ends after so many bytes of the content ...
        reset: ... with a reset.
        stall_after: nothing more comes after so many bytes, until the hub is released.
        ignore_range: the whole file is sent though a part was asked for.
        chunked: the length is not announced.
    """

    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    cut_after: int | None = None
    reset: bool = False
    stall_after: int | None = None
    ignore_range: bool = False
    chunked: bool = False


@dataclass(frozen=True)
class Asked:
    """One request that came in."""

    method: str
    file: str
    revision: str
    range: str | None
    token: str | None
    elsewhere: bool


class FakeHub:
    """Serves `files` until its block ends.

    Args:
        files: path to content.
        repository: the only one that it has.
        redirects: GET is sent on to a second address, as to a storage service.

    Attributes:
        faults: (method, path) to wrong answers, given in that order, one per request; the last
            one stays when `lasting` is set.
        asked: every request, in order.
        stalled: set when an answer has stalled; `release` lets it go on.
    """

    def __init__(
        self,
        files: Mapping[str, bytes],
        *,
        repository: str = REPOSITORY,
        redirects: bool = False,
    ) -> None:
        self.files = dict(files)
        self.repository = repository
        self.redirects = redirects
        self.faults: defaultdict[tuple[str, str], deque[Fault]] = defaultdict(deque)
        self.lasting = False
        self.asked: list[Asked] = []
        self.stalled = threading.Event()
        self.release = threading.Event()
        self._servers = [self._server(elsewhere=False), self._server(elsewhere=True)]

    @property
    def endpoint(self) -> str:
        return self._address(0)

    def gets(self, path: str) -> list[Asked]:
        """Requests for a file's content."""
        return [
            each
            for each in self.asked
            if (each.method, each.file) == ("GET", path) and each.elsewhere == self.redirects
        ]

    def fault(self, method: str, path: str) -> Fault:
        waiting = self.faults[method, path]
        if not waiting:
            return Fault()
        return waiting[0] if self.lasting and len(waiting) == 1 else waiting.popleft()

    def storage(self, path: str) -> str:
        return f"{self._address(1)}/{self.repository}/resolve/{COMMIT}/{path}"

    @contextlib.contextmanager
    def serving(self) -> Iterator[FakeHub]:
        threads = [
            threading.Thread(target=server.serve_forever, args=(0.02,)) for server in self._servers
        ]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            self.release.set()
            for server, thread in zip(self._servers, threads, strict=True):
                server.shutdown()
                thread.join()
                server.server_close()

    def _server(self, *, elsewhere: bool) -> ThreadingHTTPServer:
        handler = type("Handler", (_Handler,), {"hub": self, "elsewhere": elsewhere})
        server = _Server(("127.0.0.1", 0), handler)
        server.daemon_threads = True
        return server

    def _address(self, index: int) -> str:
        return f"http://127.0.0.1:{self._servers[index].server_address[1]}"


class _Server(ThreadingHTTPServer):
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is what some tests are about."""


class _Handler(BaseHTTPRequestHandler):
    hub: FakeHub
    elsewhere: bool
    protocol_version = "HTTP/1.1"
    timeout = STALL_S

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def log_message(self, *args: Any) -> None:
        """Not on the console."""

    def _answer(self) -> None:
        matched = re.fullmatch(rf"/{self.hub.repository}/resolve/([^/]+)/(.+)", self.path)
        if matched is None:
            self._page(404, {"X-Error-Code": "RepoNotFound"})
            return
        revision, path = matched.groups()
        self.hub.asked.append(
            Asked(
                self.command,
                path,
                revision,
                self.headers.get("Range"),
                self.headers.get("Authorization"),
                self.elsewhere,
            )
        )
        sends_on = self.hub.redirects and not self.elsewhere
        fault = (
            Fault() if sends_on and self.command == "GET" else self.hub.fault(self.command, path)
        )
        if fault.status is not None:
            self._page(fault.status, fault.headers)
        elif path not in self.hub.files:
            self._page(404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
        else:
            self._file(path, fault, sends_on)

    def _file(self, path: str, fault: Fault, sends_on: bool) -> None:
        content = self.hub.files[path]
        sha256 = hashlib.sha256(content).hexdigest()
        headers = {
            "X-Repo-Commit": COMMIT,
            "X-Linked-Etag": f'"{sha256}"',
            "X-Linked-Size": str(len(content)),
            "ETag": f'"{sha256}"',
        }
        body = content if fault.body is None else fault.body
        if sends_on:
            headers |= {"Location": self.hub.storage(path), "Content-Length": "0"}
            self._start(302, headers | dict(fault.headers))
            return
        start, status = 0, 200
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if asked and not fault.ignore_range:
            start, status = int(asked.group(1)), 206
            if start >= len(body):
                self._page(416, {"Content-Range": f"bytes */{len(body)}"})
                return
            headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
        if fault.chunked:
            headers["Connection"] = "close"
        else:
            headers["Content-Length"] = str(len(body) - start)
        self._start(status, headers | dict(fault.headers))
        if self.command == "GET":
            self._send(body[start:], fault)

    def _send(self, body: bytes, fault: Fault) -> None:
        if fault.stall_after is not None:
            self.wfile.write(body[: fault.stall_after])
            self.wfile.flush()
            self.hub.stalled.set()
            self.hub.release.wait(STALL_S)
            self.close_connection = True
            return
        if fault.cut_after is None:
            self.wfile.write(body)
            self.close_connection = fault.chunked
            return
        self.wfile.write(body[: fault.cut_after])
        self.wfile.flush()
        self.close_connection = True
        if fault.reset:
            self.hub.release.wait(0.1)  # a reset discards what the client has not read yet
            linger = struct.pack("ii", 1, 0)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.connection.close()

    def _page(self, status: int, headers: Mapping[str, str]) -> None:
        page = b"<html><body>not what you asked for</body></html>"
        usual = {"Content-Type": "text/html", "Content-Length": str(len(page))}
        self._start(status, usual | dict(headers))
        if self.command == "GET":
            self.wfile.write(page)

    def _start(self, status: int, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            if value:
                self.send_header(name, value)
        self.end_headers()

"""A daemon with everything that can be broken about it within reach."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from websockets.asyncio.client import connect

from tests.benchmarks.viewers import Viewers
from tests.chaos.namespaces import HOSTS, LOG, SINK, STATE, Disk, unshared
from tests.chaos.watch import WATCHED
from tests.fakes.daemon import DaemonProcess

CONFIG = Path(__file__).parents[2] / "config"
ASTRONAUT = CONFIG / "characters" / "astronaut"
FAULTY = ("-m", "tests.chaos.faulty")
HANG_S = 1.0
STALL_S = 2.0
PATIENCE_S = 60.0
POLL_S = 0.02
EVENTS = "events.jsonl"


@dataclass(frozen=True, slots=True)
class Stage:
    """The daemon as a process, and the files it reads.

    Attributes:
        folder: holds everything of it.
        bridge_port: where it looks for a MediaBridge.
        own_disks: its state and its event log are on small disks that nobody else sees.
    """

    daemon: DaemonProcess
    viewers: Viewers
    folder: Path
    bridge_port: int
    own_disks: bool = False

    @property
    def state(self) -> Disk:
        """What its state is on, where it has disks of its own."""
        return Disk(self.daemon.process.pid, self.folder / STATE)

    @property
    def log(self) -> Disk:
        """The same for its event log."""
        return Disk(self.daemon.process.pid, self.folder / LOG)

    @property
    def hosts(self) -> Path:
        return self.folder / HOSTS

    @property
    def emotions(self) -> Path:
        return self.folder / "emotions.toml"

    def portrait(self, character: str) -> Path:
        return self.folder / "characters" / f"{character}.jpg"


@contextmanager
def staged(
    folder: Path,
    *orders: str,
    hosts: bool = False,
    disks: bool = False,
    **settings: str,
) -> Iterator[Stage]:
    """A daemon that can be told to fail, with two characters and files of its own.

    Args:
        folder: empty.
        orders: for its renderer, before the start; see `tests.chaos.faulty`.
        hosts, disks: it has some of its own; see `namespaces.unshared`.

    Raises:
        NotPossibleHereError: this system does not let it have any.
    """
    port = free_port()
    furnish(folder)
    wrapper = unshared(folder, hosts=hosts, disks=disks) if hosts or disks else ()
    environ = environment(folder) | {
        "AVATAR_RENDERER__HANG_S": str(HANG_S),
        "AVATAR_STAGE__VIEWER_STALL_S": str(STALL_S),
        "AVATAR_MEDIA_BRIDGE__URL": f"ws://{SINK if hosts else '127.0.0.1'}:{port}/ingest",
        "AVATAR_STATE__SAVE_EVERY_S": "1",
        "AVATAR_LOG__REPORT_EVERY_S": "1",
    }
    if disks:
        environ["AVATAR_LOG__EVENTS_FILE"] = str(folder / LOG / EVENTS)
    daemon = DaemonProcess(
        folder / STATE, python=(*FAULTY, *orders), wrapper=wrapper, **environ | settings
    )
    with daemon, Viewers(daemon.port, WATCHED, watched=WATCHED) as viewers:
        yield Stage(daemon, viewers, folder, port, own_disks=disks)


def furnish(folder: Path) -> None:
    """Emotions and the characters `one` and `two`, as files of their own."""
    characters = folder / "characters"
    characters.mkdir(parents=True)
    shutil.copy(CONFIG / "emotions.toml", folder / "emotions.toml")
    for name in ("one", "two"):
        shutil.copy(ASTRONAUT / "portrait.jpg", characters / f"{name}.jpg")
        shutil.copy(ASTRONAUT / "landmarks.json", characters / f"{name}.json")
        text = f'portrait = "{name}.jpg"\nlandmarks = "{name}.json"\n'
        (characters / f"{name}.toml").write_text(text, "utf-8")


def environment(folder: Path) -> dict[str, str]:
    """The settings that lead to them."""
    return {
        "AVATAR_CHARACTERS__DIR": str(folder / "characters"),
        "AVATAR_EMOTIONS__FILE": str(folder / "emotions.toml"),
        "AVATAR_STAGE__CHARACTER": "one",
    }


class Scene:
    """A stage under observation."""

    def __init__(self, stage: Stage, client: httpx.AsyncClient) -> None:
        self.stage = stage
        self.daemon = stage.daemon
        self.client = client

    async def health(self) -> dict[str, Any]:
        """GET /health."""
        answer: dict[str, Any] = (await self.client.get("/health")).json()
        return answer

    async def state(self) -> dict[str, Any]:
        """GET /v1/state."""
        answer: dict[str, Any] = (await self.client.get("/v1/state")).json()
        return answer

    async def frame_header(self) -> dict[str, Any]:
        """Of the newest frame, as a viewer gets it."""
        async with connect(f"{self.daemon.ws}/v1/frames", max_size=None) as viewer:
            message = await viewer.recv()
        assert isinstance(message, bytes)
        length = int.from_bytes(message[4:8], "little")
        header: dict[str, Any] = json.loads(message[8 : 8 + length])
        return header

    async def metric(self, name: str) -> float:
        """The first series of that name."""
        for line in (await self.client.get("/metrics")).text.splitlines():
            if line.startswith(f"avatar_{name}"):
                return float(line.rpartition(" ")[2])
        return 0.0

    async def post(self, **message: Any) -> httpx.Response:
        """POST /v1/events."""
        return await self.client.post("/v1/events", json=message)

    async def reason(self, *words: str) -> str:
        """Wait until /health gives a reason in which one of these words occurs."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                health = await self.health()
                for reason in (health["degraded"], *health["problems"]):
                    if reason and any(word in reason for word in words):
                        return str(reason)
                await asyncio.sleep(POLL_S)

    async def well(self, *but: str) -> float:
        """Seconds until /health has nothing to say against the daemon.

        Args:
            but: beginnings of what does not count.
        """

        async def nothing() -> bool:
            health = await self.health()
            problems = [each for each in health["problems"] if not each.startswith(but)]
            return health["status"] == "ok" and not problems

        return await self.until(nothing)

    async def ready(self) -> bool:
        """Frames are being published."""
        return (await self.client.get("/ready")).status_code == 200

    async def until(self, there: Callable[[], Awaitable[bool]]) -> float:
        """Seconds until something is so."""
        begun_s = time.monotonic()
        async with asyncio.timeout(PATIENCE_S):
            while not await there():  # noqa: ASYNC110 - another process
                await asyncio.sleep(POLL_S)
        return time.monotonic() - begun_s


@asynccontextmanager
async def scene_of(stage: Stage) -> AsyncIterator[Scene]:
    """Talk to a stage until the block ends."""
    async with httpx.AsyncClient(base_url=stage.daemon.http, timeout=30.0) as client:
        yield Scene(stage, client)


def free_port() -> int:
    """A port that was free a moment ago, on both of localhost's addresses where there are two."""
    with socket.create_server(("127.0.0.1", 0)) as one:
        return int(one.getsockname()[1])

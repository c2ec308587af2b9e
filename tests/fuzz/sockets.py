"""Messages to a running daemon: each bad one gets its error, and nothing else happens."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

import httpx
import psutil
from websockets.asyncio.client import ClientConnection, connect

from adapters import event_codec
from tests.fakes.daemon import DaemonProcess
from tests.fuzz.codec import refusal
from tests.fuzz.messages import Fuzzer

BATCH: Final = 100
ENDINGS: Final = {"emotion.finished", "emotion.superseded", "emotion.expired"}
WAIT_S: Final = 60.0
# A daemon that looks at everything it is sent, and whose face rests.
SETTINGS: Final = {
    "AVATAR_LIMITS__MESSAGES_PER_S": "100000",
    "AVATAR_IDLE__ENABLED": "false",
    "AVATAR_STAGE__WIDTH": "128",
    "AVATAR_STAGE__HEIGHT": "128",
    "AVATAR_CACHE__MAX_BYTES": str(4 * 2**20),
    "AVATAR_LOG__LEVEL": "warning",
}


@dataclass
class Sent:
    """What became of the messages.

    Attributes:
        bad: bad ones, by the code of the one error that each got.
        good: good ones that were taken or refused by name.
        accepted: emotions that were accepted, all of which came to their one ending.
        rss_growth_bytes: of the daemon, from after the first batch.
    """

    bad: Counter[str] = field(default_factory=Counter)
    good: int = 0
    accepted: int = 0
    rss_growth_bytes: int = 0


class Conversation:
    """A producer who checks what he hears."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._batches = 0
        self._open: set[str] = set()  # accepted, not ended
        self._ended: set[str] = set()

    async def say(self, messages: list[bytes]) -> list[dict[str, Any]]:
        """Send them; returns every answer up to the pong behind them."""
        for data in messages:
            await self._socket.send(data, text=True)
        self._batches += 1
        mark = f"mark-{self._batches}"
        await self._socket.send(json.dumps({"type": "ping", "t": mark}))
        heard = []
        async with asyncio.timeout(WAIT_S):
            while True:
                answer = json.loads(await self._socket.recv())
                if answer == {"type": "pong", "t": mark}:
                    return heard
                heard.append(answer)
                self._note(answer)

    def _note(self, answer: dict[str, Any]) -> None:
        kind = answer["type"]
        if kind == "emotion.accepted" and not answer["duplicate"]:
            self._open.add(answer["id"])
        elif kind in ENDINGS:
            assert answer["id"] not in self._ended, f"{answer} ended twice"
            self._open.discard(answer["id"])
            self._ended.add(answer["id"])

    async def all_ended(self) -> int:
        """Interrupt what is left and wait until every accepted cue has ended; how many did."""
        await self.say([b'{"type":"interrupt","id":"the-end","fade_ms":0}'])
        async with asyncio.timeout(WAIT_S):
            while self._open:
                await asyncio.sleep(0.05)
                await self.say([])
        return len(self._ended)


def state(daemon: DaemonProcess) -> dict[str, Any]:
    """What a message could have changed."""
    with httpx.Client(base_url=daemon.http) as client:
        body = client.get("/v1/state").json()
        health = client.get("/health").json()
    kept = ("character", "state", "weights", "controls", "cues", "queue")
    return {key: body[key] for key in kept} | {"health": (health["status"], health["problems"])}


def sorted_out(messages: list[bytes]) -> tuple[list[tuple[bytes, str]], list[bytes]]:
    """The bad ones with their codes, and the good ones."""
    bad, good = [], []
    for data in messages:
        error = refusal(data)
        if error is None:
            good.append(data)
        else:
            bad.append((data, error.code.value))
    return bad, good


async def through_daemon(daemon: DaemonProcess, seed: int, messages: int) -> Sent:
    """Send so many messages; the bad ones first, with nothing on the face meanwhile.

    Raises:
        AssertionError: an answer is missing or wrong, or a bad message changed something.
    """
    sent = Sent()
    process = psutil.Process(daemon.process.pid)
    before_bytes = 0
    supply = itertools.islice(Fuzzer(seed), messages)
    at_rest = await asyncio.to_thread(state, daemon)
    kept: list[bytes] = []
    async with connect(f"{daemon.ws}/v1/events", compression=None) as socket:
        await socket.recv()
        talk = Conversation(socket)
        for number in itertools.count():
            batch = list(itertools.islice(supply, BATCH))
            if not batch:
                break
            bad, good = sorted_out(batch)
            kept.extend(good)
            heard = await talk.say([data for data, _ in bad])
            wanted = Counter(code for _, code in bad)
            # Good ones sent before may still be heard of.
            told = Counter(each["error"]["code"] for each in heard if "error" in each)
            assert told == wanted, (seed, number, told, wanted)
            sent.bad += wanted
            if number == 0:
                before_bytes = process.memory_info().rss
            if len(kept) >= 50 * BATCH:
                sent.good += await _good(talk, kept)
                kept = []
                sent.accepted += await _quiet(daemon, talk, at_rest) - sent.accepted
        assert await asyncio.to_thread(state, daemon) == at_rest
        sent.good += await _good(talk, kept)
        sent.accepted = await _quiet(daemon, talk, at_rest)
    sent.rss_growth_bytes = process.memory_info().rss - before_bytes
    return sent


async def _good(talk: Conversation, messages: list[bytes]) -> int:
    """Send what is right by its form; it may still ask for what there is not."""
    for start in range(0, len(messages), BATCH):
        batch = messages[start : start + BATCH]
        heard = await talk.say(batch)
        pings = sum(event_codec.type_name(event_codec.decode(m).message) == "ping" for m in batch)
        pongs = sum(answer["type"] == "pong" for answer in heard)
        assert pongs == pings
        internal = [each for each in heard if each.get("error", {}).get("code") == "internal"]
        assert not internal, internal
    return len(messages)


async def _quiet(daemon: DaemonProcess, talk: Conversation, at_rest: dict[str, Any]) -> int:
    """Take back what good messages did, and wait until the face is as it was."""
    ended = await talk.all_ended()
    await talk.say(
        [
            b'{"type":"state","state":"idle"}',
            b'{"type":"mood","valence":0,"arousal":0,"decay_ms":1}',
        ]
    )
    for _ in range(int(WAIT_S * 10)):
        if await asyncio.to_thread(state, daemon) == at_rest:
            return ended
        await asyncio.sleep(0.1)
    raise AssertionError("the face never came to rest")

"""Ten thousand messages that nobody would send; `make fuzz` sends a million."""

from __future__ import annotations

import itertools
import time
from pathlib import Path

import pytest

from adapters import event_codec
from tests.fakes.daemon import DaemonProcess
from tests.fuzz.codec import refusal, through_codec
from tests.fuzz.messages import KINDS, Fuzzer
from tests.fuzz.sockets import SETTINGS, through_daemon

SEED = 20_260_721


def test_every_kind_of_message_is_tried_in_every_way() -> None:
    """A fuzzer that makes nothing but garbage, or nothing but what is right, finds nothing."""
    made = list(itertools.islice(Fuzzer(SEED), 3000))
    for kind in KINDS:
        assert sum(f'"type": "{kind}"'.encode() in data for data in made) > 50, kind
    assert made == list(itertools.islice(Fuzzer(SEED), 3000))


def test_whatever_comes_is_read_or_refused() -> None:
    """By the codec, with an error that names what is wrong; none takes long."""
    outcome = through_codec(SEED, 7000)
    assert outcome.read > 700
    assert min(outcome.refused[code] for code in ("invalid_json", "invalid_message")) > 700
    assert outcome.refused["unknown_type"] > 20
    assert outcome.slowest_s < 1.0


async def test_a_daemon_answers_every_bad_message_and_is_not_changed(tmp_path: Path) -> None:
    """Over a socket: one error each, the face at rest, every accepted cue with one ending."""
    with DaemonProcess(tmp_path, **SETTINGS) as daemon:
        sent = await through_daemon(daemon, SEED + 1, 3000)
        assert not [line for line in daemon.log if line.get("level") in {"error", "critical"}]
    assert sent.bad.total() > 1500
    assert sent.good > 300
    assert sent.accepted > 20
    assert sent.rss_growth_bytes < 64 * 2**20


def _members(many: int, value: str = "1") -> str:
    return ",".join(f'"k{number}":{value}' for number in range(many))


COSTLY = {
    "a key twice among thousands": f'{{"type":"ping",{_members(6000)},"k5999":1}}',
    "the same in a mix": f'{{"type":"emotion","mix":{{{_members(6000)},"k5999":1}}}}',
    "the same key thousands of times": '{"type":"ping",' + ",".join(['"a":1'] * 9000) + "}",
    "thousands of controls": f'{{"type":"controls","weights":{{{_members(6000)}}}}}',
    "thousands of wrong controls": f'{{"type":"controls","weights":{{{_members(4500, "[]")}}}}}',
    "a number of sixty thousand digits": f'{{"type":"mood","valence":{"1" * 60_000}}}',
    "a large exponent": f'{{"type":"mood","valence":1e{"9" * 60_000}}}',
    "nesting": f'{{"type":"ping","t":{"[" * 30_000}{"]" * 30_000}}}',
    "nesting of objects": '{"type":"ping","t":' + '{"a":' * 10_000,
    "escapes": '{"type":"ping","t":"' + "\\u0000" * 10_000 + '"}',
    "colons": f'{{"type":"ping","t":"{":" * 60_000}"}}',
}


@pytest.mark.parametrize("data", COSTLY.values(), ids=COSTLY.keys())
def test_no_message_costs_much(data: str) -> None:
    """As large as one may be, made to be expensive: the event loop is not held up."""
    assert len(data) <= 65_536
    # The best of three: a collection of the garbage of all tests before costs more.
    assert min(_cost_s(data) for _ in range(3)) < 0.15


def _cost_s(data: str) -> float:
    began_s = time.thread_time()
    refusal(data.encode())
    event_codec.peek_id(data)
    return time.thread_time() - began_s

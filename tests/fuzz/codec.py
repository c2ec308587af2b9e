"""Messages through the codec: read, or refused with an error that can be sent."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from dataclasses import dataclass, field

import msgspec

from adapters import event_codec
from pipeline.errors import ErrorCode, InvalidEventError
from tests.fuzz.messages import Fuzzer

REFUSALS = {ErrorCode.INVALID_JSON, ErrorCode.INVALID_MESSAGE, ErrorCode.UNKNOWN_TYPE}
MOST_WORDS = 500  # characters of an error: no input comes back whole


@dataclass
class Outcome:
    """What became of the messages.

    Attributes:
        read: how many were messages.
        refused: how many were not, by code.
        slowest_s: processor time of one message.
    """

    read: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    slowest_s: float = 0.0


def refusal(data: bytes) -> InvalidEventError | None:
    """The error for it, checked; None if it is a message."""
    try:
        event_codec.decode(data)
    except InvalidEventError as raised:
        error = raised
    else:
        return None
    assert error.code in REFUSALS, (error.code, data)
    assert 0 < len(str(error)) <= MOST_WORDS, (len(str(error)), data[:200])
    answer = event_codec.encode(event_codec.failure(error))
    assert msgspec.json.decode(answer)["error"]["code"] == error.code
    return error


def through_codec(seed: int, messages: int) -> Outcome:
    """Put so many messages through.

    Raises:
        AssertionError: an answer is not as it should be; anything else is a fault, too.
    """
    outcome = Outcome()
    for data in itertools.islice(Fuzzer(seed), messages):
        began_s = time.thread_time()
        try:
            error = refusal(data)
            event_codec.peek_id(data)
        except Exception as fault:
            fault.add_note(f"seed {seed}: {data[:500]!r}")
            raise
        outcome.slowest_s = max(outcome.slowest_s, time.thread_time() - began_s)
        if error is None:
            outcome.read += 1
        else:
            outcome.refused[error.code.value] += 1
    return outcome

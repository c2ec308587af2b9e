"""The addresses that the daemon dials: MediaBridge and publishers, each dialled once.

Where a running daemon is connected already nobody is dialled: some accept one connection only.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Final
from urllib.parse import urlsplit

from websockets.exceptions import InvalidHandshake, InvalidStatus, InvalidURI
from websockets.sync.client import connect

from orchestrator.doctor.patient import Patient
from orchestrator.doctor.probing import all_within
from orchestrator.doctor.report import Diagnosis
from orchestrator.settings import Settings

OPEN_S: Final = 3.0
ALL_S: Final = 6.0


@dataclass(frozen=True, slots=True)
class Line:
    """An address to dial."""

    topic: str
    url: str
    token: str

    @property
    def shown(self) -> str:
        """The address without what may be secret in it."""
        try:
            parts = urlsplit(self.url)
            where = parts.hostname or ""
            port = f":{parts.port}" if parts.port else ""
        except ValueError:
            return "an address that cannot be read"
        where = f"[{where}]" if ":" in where else where
        return f"{parts.scheme}://{where}{port}{parts.path}"


def look(patient: Patient) -> Iterator[Diagnosis]:
    """Dial all of them at the same time."""
    lines = _lines(patient.known)
    if not lines:
        yield Diagnosis("ok", "none", "neither a MediaBridge nor publishers are set")
        return
    to_dial = []
    for line in lines:
        if _is_connected(patient, line):
            yield Diagnosis("ok", line.topic, f"{line.shown}: the daemon is connected to it")
        else:
            to_dial.append(line)
    answers = all_within([partial(dial, line) for line in to_dial], ALL_S)
    for line, answer in zip(to_dial, answers, strict=True):
        if answer is not None:
            yield answer
        else:
            text = f"{line.shown}: no answer within {ALL_S:g} s"
            advice = "the name server or the network hangs; is a firewall between?"
            yield Diagnosis("FAIL", line.topic, text, advice)


def _lines(settings: Settings) -> list[Line]:
    events, bridge = settings.events, settings.media_bridge
    tokens = events.tokens or ("",) * len(events.connect)
    lines = [Line("publisher", *pair) for pair in zip(events.connect, tokens, strict=True)]
    if bridge.url:
        lines.insert(0, Line("media bridge", bridge.url, bridge.token))
    return lines


def _is_connected(patient: Patient, line: Line) -> bool:
    if line.topic == "publisher":
        wanted = patient.total("publishers_wanted")
        return bool(wanted) and patient.total("connections", kind="publisher") == wanted
    return patient.total("media_bridge_connected") == 1.0


def dial(line: Line) -> Diagnosis:
    """Connect, and hang up without a word."""
    headers = {"Authorization": f"Bearer {line.token}"} if line.token else None
    began_s = time.monotonic()
    try:
        with connect(
            line.url,
            additional_headers=headers,
            open_timeout=OPEN_S,
            close_timeout=1.0,
            compression=None,
            proxy=None,
        ):
            took_ms = (time.monotonic() - began_s) * 1000.0
    except InvalidStatus as error:
        status = error.response.status_code
        advice = "check its path" if status != 401 else "check its token"
        return Diagnosis("FAIL", line.topic, f"{line.shown}: answers {status}", advice)
    except socket.gaierror as error:
        text = f"{line.shown}: no such name ({error.strerror or error})"
        return Diagnosis("FAIL", line.topic, text, "check the name and the name server")
    except TimeoutError:
        text = f"{line.shown}: no answer within {OPEN_S:g} s"
        return Diagnosis("FAIL", line.topic, text, "is it up, and is a firewall between?")
    except OSError as error:
        text = f"{line.shown}: {error.strerror or error}"
        return Diagnosis("FAIL", line.topic, text, "start it, or correct the address")
    except (InvalidHandshake, InvalidURI, EOFError) as error:
        text = f"{line.shown}: no WebSocket there ({type(error).__name__})"
        return Diagnosis("FAIL", line.topic, text, "check scheme, port and path of the address")
    except Exception as error:
        text = f"{line.shown}: {type(error).__name__}"
        return Diagnosis("FAIL", line.topic, text, "check what listens there")
    return Diagnosis("ok", line.topic, f"{line.shown}: connected in {took_ms:.0f} ms")

"""The WebSockets as an AsyncAPI 3.0 document, made of the structs that decode and encode."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from adapters import producer_answers as answers
from adapters import producer_messages as messages
from adapters.described import JSON
from adapters.frame_codec import FrameHeader
from adapters.openapi import SECURITY, TITLE
from adapters.schemas import Schemas
from adapters.viewer_query import ViewerQuery
from pipeline.bodies import PROTOCOL_VERSION, HelloBody

_ABOUT: Final = """\
Producers send emotion events over `/v1/events` and hear what became of them; viewers get frames
over `/v1/frames`. Delivery is at-least-once: resend after a reconnect with the same `id`, and it
happens once. A bad message never closes the connection and never changes the face, except: one
over the size limit closes it with 1009, and flooding with 1008. The HTTP side is
in `/openapi.json`; where the daemon dials out itself, under `mediaBridge` and `publishers`.
"""
_AVF1: Final = """\
`AVF1` (4 bytes ASCII), the length of the header (uint32, little-endian), the header (UTF-8 JSON,
the schema of `headers`), and the image file.
"""

_RECEIPTS: Final = (
    answers.EmotionAccepted,
    answers.EmotionStarted,
    answers.EmotionPeaked,
    answers.EmotionFinished,
    answers.EmotionSuperseded,
    answers.EmotionExpired,
    answers.EmotionRejected,
)
REPLIES: Final[Mapping[type, tuple[Any, ...]]] = {
    messages.EmotionMessage: (*_RECEIPTS, answers.ErrorAnswer),
    messages.TextMessage: (answers.TextCleanAnswer, *_RECEIPTS, answers.ErrorAnswer),
    messages.InterruptMessage: (answers.InterruptDoneAnswer, answers.ErrorAnswer),
    messages.MoodMessage: (answers.MoodOkAnswer, answers.ErrorAnswer),
    messages.StateMessage: (answers.StateOkAnswer, answers.ErrorAnswer),
    messages.CharacterMessage: (answers.CharacterSwitchedAnswer, answers.ErrorAnswer),
    messages.ControlsMessage: (answers.ErrorAnswer,),
    messages.GetStateMessage: (answers.StateSnapshotAnswer, answers.ErrorAnswer),
    messages.PingMessage: (answers.Pong, answers.ErrorAnswer),
}
"""What a producer may be answered to each message, over the WebSocket."""


def document() -> dict[str, Any]:
    """The description of the WebSockets."""
    return _Document().made()


class _Document:
    def __init__(self) -> None:
        self._schemas = Schemas()
        self._messages: dict[str, dict[str, Any]] = {}

    def made(self) -> dict[str, Any]:
        """The AsyncAPI Object."""
        operations = dict(self._producer_operations()) | self._other_operations()
        channels = {
            "events": self._events(),
            "frames": self._frames(),
            "mediaBridge": self._media_bridge(),
            "publishers": self._publishers(),
        }
        return {
            "asyncapi": "3.0.0",
            "info": {
                "title": TITLE,
                "version": PROTOCOL_VERSION,
                "description": _ABOUT,
                "license": {"name": "MIT"},
            },
            "defaultContentType": JSON,
            "servers": _servers(),
            "channels": channels,
            "operations": operations,
            "components": {
                "messages": self._messages,
                "schemas": self._schemas.components,
                "securitySchemes": _security_schemes(),
            },
        }

    # --- messages -----------------------------------------------------------------------------

    def _message(self, kind: Any) -> str:
        """Put the message of a struct into the components; its name, which is its `type`."""
        schema = self._schemas.of(kind)
        found = self._schemas.resolved(schema)
        name = found["properties"]["type"]["const"]
        message = {"name": name, "payload": schema, "summary": _first_line(found)}
        if name in messages.EXAMPLES and kind in messages.MESSAGES:
            message["examples"] = [{"name": name, "payload": dict(messages.EXAMPLES[name])}]
        self._messages[name] = message
        return str(name)

    def _add_frame_messages(self) -> None:
        self._messages["avf1"] = {
            "name": "avf1",
            "summary": "A frame that says what is on it",
            "description": _AVF1,
            "contentType": "application/octet-stream",
            "headers": self._schemas.of(FrameHeader),
            "payload": {"type": "string", "format": "binary", "description": _AVF1},
        }
        self._messages["bare"] = {
            "name": "bare",
            "summary": "A frame as a complete image file",
            "contentType": "image/jpeg",
            "payload": {"type": "string", "format": "binary"},
        }

    # --- channels -----------------------------------------------------------------------------

    def _events(self) -> dict[str, Any]:
        return {
            "address": "/v1/events",
            "title": "Producers",
            "description": "JSON text messages, one object each. The daemon greets with `hello`.",
            "servers": [{"$ref": "#/servers/daemon"}],
            "messages": _references(self._message(kind) for kind in (*REPLIES, *_heard())),
            "bindings": {"ws": {"method": "GET", "query": self._query("stage", "token")}},
        }

    def _frames(self) -> dict[str, Any]:
        self._add_frame_messages()
        return {
            "address": "/v1/frames",
            "title": "Viewers",
            "description": (
                "Binary messages, one frame each, the newest at once. A slow viewer skips frames, "
                "and is dropped with 1008 after it has taken none for long."
            ),
            "servers": [{"$ref": "#/servers/daemon"}],
            "messages": _references(("avf1", "bare")),
            "bindings": {
                "ws": {
                    "method": "GET",
                    "query": self._query("stage", "format", "framing", "max_fps", "token"),
                }
            },
        }

    def _media_bridge(self) -> dict[str, Any]:
        return {
            "address": None,
            "title": "MediaBridge",
            "description": (
                "The daemon dials `media_bridge.url` and sends what viewers get, at most one "
                "frame in flight and the newest next; it reconnects for ever."
            ),
            "servers": [{"$ref": "#/servers/mediaBridge"}],
            "messages": _references(("avf1",)),
        }

    def _publishers(self) -> dict[str, Any]:
        return {
            "address": None,
            "title": "Publishers",
            "description": (
                "The daemon dials each address of `events.connect`, reconnects for ever, and takes "
                "what comes as if a producer had sent it. An object without `type` that has "
                "`emotion` or `mix` is an emotion; what is no message is passed over. Where "
                "`events.answers` is on, greeting, receipts and errors go back."
            ),
            "servers": [{"$ref": "#/servers/publisher"}],
            "messages": self._events()["messages"],
        }

    def _query(self, *names: str) -> dict[str, Any]:
        """The query of a channel, of the fields that `ViewerQuery` checks."""
        found = self._schemas.resolved(self._schemas.of(ViewerQuery))
        self._schemas.components.pop("ViewerQuery")
        token = {"type": "string", "description": SECURITY["query"]["description"]}
        known = found["properties"] | {"token": token}
        return {"type": "object", "properties": {name: known[name] for name in names}}

    # --- operations ---------------------------------------------------------------------------

    def _producer_operations(self) -> Iterator[tuple[str, dict[str, Any]]]:
        yield (
            "greet",
            {
                "action": "send",
                "channel": {"$ref": "#/channels/events"},
                "summary": "Says what the daemon understands, once, on connect.",
                "messages": [_in_channel("events", self._message(HelloBody))],
            },
        )
        for kind, replies in REPLIES.items():
            name = self._message(kind)
            heard = [_in_channel("events", self._message(reply)) for reply in replies]
            yield (
                f"take_{name}",
                {
                    "action": "receive",
                    "channel": {"$ref": "#/channels/events"},
                    "summary": self._messages[name]["summary"],
                    "messages": [_in_channel("events", name)],
                    "reply": {"channel": {"$ref": "#/channels/events"}, "messages": heard},
                },
            )

    def _other_operations(self) -> dict[str, Any]:
        return {
            "show": {
                "action": "send",
                "channel": {"$ref": "#/channels/frames"},
                "summary": "Every frame, or those that the viewer keeps up with.",
                "messages": [_in_channel("frames", name) for name in ("avf1", "bare")],
            },
            "push": {
                "action": "send",
                "channel": {"$ref": "#/channels/mediaBridge"},
                "summary": "Every frame, or those that the MediaBridge keeps up with.",
                "messages": [_in_channel("mediaBridge", "avf1")],
            },
            "take_published": {
                "action": "receive",
                "channel": {"$ref": "#/channels/publishers"},
                "summary": "What a producer would say.",
                "messages": [_in_channel("publishers", self._message(kind)) for kind in REPLIES],
            },
            "answer_published": {
                "action": "send",
                "channel": {"$ref": "#/channels/publishers"},
                "summary": "What a producer would hear.",
                "messages": [_in_channel("publishers", self._message(kind)) for kind in _heard()],
            },
        }


def _heard() -> tuple[Any, ...]:
    """Everything that a producer may hear, each once."""
    replies = (each for kinds in REPLIES.values() for each in kinds)
    return tuple(dict.fromkeys((HelloBody, *replies)))


def _references(names: Iterable[str]) -> dict[str, Any]:
    return {name: {"$ref": f"#/components/messages/{name}"} for name in names}


def _in_channel(channel: str, name: str) -> dict[str, str]:
    return {"$ref": f"#/channels/{channel}/messages/{name}"}


def _first_line(schema: Mapping[str, Any]) -> str:
    return str(schema.get("description", "")).partition("\n")[0]


def _servers() -> dict[str, Any]:
    return {
        "daemon": {
            "host": "{address}",
            "protocol": "ws",
            "description": "This daemon. A proxy in front of it may make it wss.",
            "variables": {
                "address": {"default": "127.0.0.1:8081", "description": "its name and port"}
            },
            "security": [
                {"$ref": f"#/components/securitySchemes/{name}"} for name in _security_schemes()
            ],
        },
        "mediaBridge": {
            "host": "{mediaBridge}",
            "protocol": "ws",
            "description": "The party that `media_bridge.url` names; ws or wss.",
            "variables": {
                "mediaBridge": {"default": "127.0.0.1:8080", "description": "its name and port"}
            },
        },
        "publisher": {
            "host": "{publisher}",
            "protocol": "ws",
            "description": "One of the parties that `events.connect` names; ws or wss.",
            "variables": {
                "publisher": {"default": "127.0.0.1:9100", "description": "its name and port"}
            },
        },
    }


def _security_schemes() -> dict[str, Any]:
    """AsyncAPI's form of the HTTP side's schemes."""
    made: dict[str, Any] = {}
    for name, scheme in SECURITY.items():
        kind = "httpApiKey" if scheme["type"] == "apiKey" else scheme["type"]
        made[name] = {**scheme, "type": kind}
    return made

"""A client for the daemon: everything it can be told, and its frames; typed, for asyncio.

    async with Producer("http://127.0.0.1:8081") as producer:
        cue = await producer.emotion("happy", 0.7)     # accepted, or EmotionRejected
        started = await cue.started                    # the frame that first shows it
        ended = await cue.ended                        # finished, superseded or expired

    async with Viewer("http://127.0.0.1:8081") as viewer:
        async for frame in viewer:
            frame.seq, frame.emotion, frame.image

Nothing here needs the daemon's own libraries; `websockets` and `msgspec` are enough.
"""

from orchestrator.client.answers import (
    Accepted,
    EmotionInfo,
    Ended,
    Hello,
    Interrupted,
    Shown,
    Switched,
)
from orchestrator.client.errors import (
    AddressError,
    ClientError,
    ClosedError,
    ConnectError,
    EmotionRejected,
    FullError,
    NotShownError,
    ReceiptLostError,
    RequestError,
)
from orchestrator.client.frames import Frame, FrameError
from orchestrator.client.link import Reconnect
from orchestrator.client.producer import Producer
from orchestrator.client.receipts import Cue, Receipt
from orchestrator.client.texts import CleanText
from orchestrator.client.viewer import Viewer

__all__ = [
    "Accepted",
    "AddressError",
    "CleanText",
    "ClientError",
    "ClosedError",
    "ConnectError",
    "Cue",
    "EmotionInfo",
    "EmotionRejected",
    "Ended",
    "Frame",
    "FrameError",
    "FullError",
    "Hello",
    "Interrupted",
    "NotShownError",
    "Producer",
    "Receipt",
    "ReceiptLostError",
    "Reconnect",
    "RequestError",
    "Shown",
    "Switched",
    "Viewer",
]

"""The protocols at the boundaries, split by who calls them."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Protocol

from pipeline.bodies import CharactersBody, HealthBody, HelloBody, StateBody
from pipeline.types import (
    FaceControls,
    FrameInfo,
    Image,
    ImageFormat,
    Portrait,
    StageMessage,
    StageReply,
)


class Reply(Protocol):
    """Where the answers for one producer go.

    Two replies of one connection compare equal and hash alike; others do not.
    """

    @property
    def closed(self) -> bool:
        """The connection is gone: what comes now is dropped."""
        ...

    def __hash__(self) -> int: ...

    def __call__(self, reply: StageReply) -> None:
        """Take one answer. Never blocks, never raises."""
        ...


class PreparedPortrait(Protocol):
    """A portrait after a renderer's one-off work on it; opaque to everybody else."""

    @property
    def portrait(self) -> Portrait: ...


class Renderer(Protocol):
    """Face controls to pixels. One thread owns a renderer; no method is called from two."""

    @property
    def name(self) -> str:
        """`mesh`, `liveportrait`; part of the frame cache's key."""
        ...

    @property
    def device(self) -> str:
        """`cpu`, `cuda:0`, `mps`."""
        ...

    def prepare(self, portrait: Portrait) -> PreparedPortrait:
        """Do the work that depends on the portrait alone.

        Raises:
            RenderError: it could not be prepared.
        """
        ...

    def render(
        self, prepared: PreparedPortrait, controls: FaceControls, size_px: tuple[int, int]
    ) -> Image:
        """Draw one frame: `(height, width, 3) uint8 RGB` for `size_px = (width, height)`.

        The same arguments give the same bytes on the same machine. The array is the
        caller's to keep: a renderer does not write to it again.

        Raises:
            RenderError: it could not be drawn.
        """
        ...

    def close(self) -> None:
        """Free what the renderer holds; idempotent."""
        ...


class FrameSink(Protocol):
    """One outside party that takes frames: a viewer, an MJPEG response, the MediaBridge."""

    @property
    def kind(self) -> str:
        """`websocket`, `mjpeg` or `media_bridge`; a label of the metrics."""
        ...

    @property
    def format(self) -> ImageFormat: ...

    def offer(self, info: FrameInfo, image: bytes) -> bool:
        """Take this frame now (True), or miss it (False). Never blocks, never raises."""
        ...


class StagePort(Protocol):
    """One live avatar, as adapters see it. All methods belong to the event loop's thread."""

    @property
    def name(self) -> str: ...

    def hello(self) -> HelloBody:
        """The `hello` message of protocol section 1, ready for JSON."""
        ...

    def submit(self, message: StageMessage, reply: Reply) -> None:
        """Take one message. Every answer, errors included, goes to `reply`, now or later."""
        ...

    def snapshot(self) -> StateBody:
        """The body of GET /v1/state, ready for JSON."""
        ...

    async def picture(self, image_format: ImageFormat) -> tuple[FrameInfo, bytes] | None:
        """The newest frame in that format; None before the first."""
        ...

    def attach(self, sink: FrameSink) -> None:
        """Send frames to `sink` from now on, the newest at once."""
        ...

    def detach(self, sink: FrameSink) -> None:
        """Stop sending; harmless if it is not attached."""
        ...


class DaemonPort(Protocol):
    """The whole daemon, as the HTTP and WebSocket adapters see it."""

    def stage(self, name: str | None) -> StagePort:
        """The stage of that name, the default one for None.

        Raises:
            InvalidEventError: code `unknown_stage`.
        """
        ...

    def health(self, name: str | None = None) -> HealthBody:
        """The body of GET /health, ready for JSON, about the stage of that name.

        Raises:
            InvalidEventError: code `unknown_stage`.
        """
        ...

    def not_ready_reason(self, name: str | None = None) -> str | None:
        """None when frames are being published on the stage of that name, else why not.

        Raises:
            InvalidEventError: code `unknown_stage`.
        """
        ...

    def characters(self, name: str | None = None) -> CharactersBody:
        """The body of GET /v1/characters, ready for JSON, about the stage of that name.

        Raises:
            InvalidEventError: code `unknown_stage`.
        """
        ...

    def expressions(self) -> Sequence[str]:
        """Canonical labels, `neutral` first."""
        ...


class Metric(StrEnum):
    """Every metric of GET /metrics, without the prefix `avatar_`; labels in brackets."""

    FRAMES_PUBLISHED = "frames_published_total"  # counter [stage]
    TICKS_SKIPPED = "ticks_skipped_total"  # counter [stage, reason: late, busy]
    FRAMES_DROPPED = "frames_dropped_total"  # counter [kind]
    FRAMES_SENT = "frames_sent_total"  # counter [kind]
    RENDER_SECONDS = "render_seconds"  # histogram [renderer]
    ENCODE_SECONDS = "encode_seconds"  # histogram [format]
    STARTED_SECONDS = "event_to_started_seconds"  # histogram [stage]
    PEAKED_SECONDS = "event_to_peaked_seconds"  # histogram [stage]
    INTERVAL_DEVIATION_SECONDS = "frame_interval_deviation_seconds"  # histogram [stage]
    CACHE_HITS = "cache_hits_total"  # counter
    CACHE_MISSES = "cache_misses_total"  # counter
    CACHE_BYTES = "cache_bytes"  # gauge
    CACHE_ENTRIES = "cache_entries"  # gauge
    CUES_ACCEPTED = "cues_accepted_total"  # counter [stage]
    CUES_ENDED = "cues_ended_total"  # counter [stage, ending: finished, superseded, expired]
    CUES_REJECTED = "cues_rejected_total"  # counter [code]
    MESSAGES = "messages_total"  # counter [type]
    BAD_MESSAGES = "bad_messages_total"  # counter [code]
    FPS_WANTED = "fps_wanted"  # gauge [stage]
    VIEWERS = "viewers"  # gauge [stage]: every FrameSink that takes its frames
    STAGE_DEGRADED = "stage_degraded"  # gauge [stage]: 1 without the wanted renderer's frames
    PUBLISHERS_WANTED = "publishers_wanted"  # gauge
    CONNECTIONS = "connections"  # gauge [kind: producer, publisher, vmc, and those of FrameSink]
    EVICTIONS = "viewers_evicted_total"  # counter [kind]
    DEGRADED = "degraded"  # gauge [stage, rung]: 1 on the rung that serves, 0 elsewhere
    RENDER_FAILURES = "render_failures_total"  # counter [renderer, reason]
    MEDIA_BRIDGE_WANTED = "media_bridge_wanted"  # gauge
    MEDIA_BRIDGE_CONNECTED = "media_bridge_connected"  # gauge
    MEDIA_BRIDGE_RECONNECTS = "media_bridge_reconnects_total"  # counter
    TASKS = "event_loop_tasks"  # gauge
    EVENTS_UNLOGGED = "events_unlogged_total"  # counter
    BUILD_INFO = "build_info"  # gauge [version, python, renderer, device], always 1


class Metrics(Protocol):
    """Where figures go. Safe from every thread; never blocks, never raises on known names."""

    def count(self, metric: Metric, amount: float = 1.0, **labels: str) -> None: ...

    def observe(self, metric: Metric, value: float, **labels: str) -> None: ...

    def set(self, metric: Metric, value: float, **labels: str) -> None: ...

    def forget(self, **labels: str) -> None:
        """Drop every series that has these labels, in all metrics that have such labels."""
        ...

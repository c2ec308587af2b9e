"""Event loops for the tests on real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import pytest
import uvloop

# asyncio and uvloop buffer writes differently, and viewers live off what is buffered.
ON_BOTH_LOOPS = {"test_frames_ws.py", "test_mjpeg.py", "test_events_ws.py", "test_vmc.py"}
ON_UVLOOP = {"test_media_bridge.py", "test_events_client.py"}


@pytest.hookimpl(optionalhook=True)
def pytest_asyncio_loop_factories(
    item: pytest.Item,
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The loops on which to run a test."""
    loops: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {}
    if item.path.name not in ON_UVLOOP:
        loops["asyncio"] = asyncio.new_event_loop
    if item.path.name in ON_BOTH_LOOPS | ON_UVLOOP:
        loops["uvloop"] = uvloop.new_event_loop
    return loops

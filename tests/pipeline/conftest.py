"""What every test of the pipeline gets: no leaked worker threads."""

import threading
import time
from collections.abc import Iterator

import pytest

WORKERS = ("render-", "prepare-", "encode-", "test-worker-")


@pytest.fixture(autouse=True)
def no_leaked_worker_threads() -> Iterator[None]:
    """Fail a test that leaves a worker's thread running."""
    before = _workers()
    yield
    give_up_s = time.monotonic() + 2.0
    while (left := _workers() - before) and time.monotonic() < give_up_s:
        time.sleep(0.002)
    assert not left, f"left running: {sorted(thread.name for thread in left)}"


def _workers() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith(WORKERS)}

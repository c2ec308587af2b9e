"""What was freed goes back to the system."""

import ctypes
import os
import sys
from pathlib import Path

import pytest

from pipeline.memory import give_back


def resident_bytes() -> int:
    """Of this process."""
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "malloc_trim"),
    reason="the C library keeps to itself what it does",
)
def test_freed_memory_goes_back() -> None:
    """Small blocks below one that is still in use, which glibc would keep."""
    blocks = [bytes(2000) for _ in range(40_000)]
    top = bytes(2000)
    del blocks
    before = resident_bytes()
    give_back()
    assert resident_bytes() < before - 40 * 2**20
    assert len(top) == 2000

"""Memory that has been freed, and the system."""

from __future__ import annotations

import ctypes
import sys


def give_back() -> None:
    """Hand what was freed back to the system; glibc would keep it for later.

    Worth its milliseconds after work that takes much memory and comes seldom (malloc_trim(3)).
    Does nothing where the C library has no such call.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)

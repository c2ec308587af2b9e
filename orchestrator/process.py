"""What the whole process is set to: threads, open files, garbage collection."""

from __future__ import annotations

import gc
import resource
import sys
from typing import Final

from orchestrator.settings import LimitsSettings

GIL_SWITCH_S: Final = 0.0005
# Beside the places for viewers and producers: half for other requests, half for our own files.
SPARE_FILES: Final = 256


def set_up_process(limits: LimitsSettings) -> None:
    """Have threads take turns quickly, and files for everybody who may connect."""
    # A short switch interval keeps the event loop quick while the render thread holds the GIL.
    sys.setswitchinterval(GIL_SWITCH_S)
    _allow_files(limits.viewers + limits.producers + SPARE_FILES)


def most_connections(limits: LimitsSettings) -> int:
    """As many as there are places, and some for other requests; fewer where files are scarce."""
    wanted = limits.viewers + limits.producers + SPARE_FILES // 2
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return wanted
    return max(1, min(wanted, soft - SPARE_FILES // 2))


def freeze_garbage() -> None:
    """Keep what start-up made out of every later collection: a full one would cost frames."""
    gc.collect()
    gc.freeze()


def _allow_files(wanted: int) -> None:
    """Raise the soft limit of open files as far as needed and allowed: a viewer is one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))

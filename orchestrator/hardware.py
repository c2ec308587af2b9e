"""What GPU the machine has, without loading a framework for it."""

from __future__ import annotations

import platform
import re
import sys
from pathlib import Path
from typing import Final

NVIDIA_GPUS: Final = Path("/proc/driver/nvidia/gpus")
NVIDIA_CONTROL: Final = Path("/dev/nvidiactl")


def gpu_name(gpus: Path = NVIDIA_GPUS) -> str | None:
    """The first NVIDIA GPU's model as its kernel driver names it; None without one.

    Args:
        gpus: where the driver lists its devices, a folder each.
    """
    try:
        for information in sorted(gpus.glob("*/information")):
            found = re.search(r"^Model:\s*(\S.*?)\s*$", information.read_text(), re.MULTILINE)
            if found:
                return found.group(1)
    except OSError:
        return None
    return None


def has_gpu(gpus: Path = NVIDIA_GPUS, control: Path = NVIDIA_CONTROL) -> bool:
    """Whether torch may find a device here: an NVIDIA GPU or Apple's.

    Args:
        gpus: as in `gpu_name`; containers do not always show it.
        control: the NVIDIA driver's control device.
    """
    if sys.platform == "darwin" and platform.machine() == "arm64":
        return True
    return gpu_name(gpus) is not None or control.exists()

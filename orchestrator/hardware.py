"""What GPU the machine has, without loading a framework for it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

NVIDIA_GPUS: Final = Path("/proc/driver/nvidia/gpus")


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

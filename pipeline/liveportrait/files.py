"""Where the checkpoint of a module lies in a weights folder. No torch."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from pipeline.liveportrait.errors import CheckpointError

BASE: Final = "base_models"
RETARGETING: Final = "retargeting_models"
SMALL_FILE: Final = "stitching_retargeting_module"
FLAT_FILES: Final = (
    "appearance_feature_extractor",
    "motion_extractor",
    "warping_module",
    "spade_generator",
)
STEMS: Final = (*FLAT_FILES, SMALL_FILE)


def find_checkpoint(weights_dir: Path, stem: str) -> Path:
    """The file that holds a module; an official `.pth` goes before a `.safetensors`.

    Args:
        weights_dir: the folder that holds `liveportrait/`.
        stem: one of `STEMS`.

    Raises:
        CheckpointError: there is neither; it names the official path.
    """
    folder = RETARGETING if stem == SMALL_FILE else BASE
    official = weights_dir / "liveportrait" / folder / f"{stem}.pth"
    folders = (official.parent, weights_dir / "liveportrait", weights_dir)
    for path in (official, *(folder / f"{stem}.safetensors" for folder in folders)):
        if path.is_file():
            return path
    raise CheckpointError(official, None, f"this file or {stem}.safetensors", "neither")

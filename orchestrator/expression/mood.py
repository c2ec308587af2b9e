"""The slow layer under the cues: valence and arousal that fade by themselves."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.types import Float32Array


@dataclass(frozen=True, slots=True, eq=False)
class MoodOffsets:
    """What a mood adds to a face at rest.

    Attributes:
        controls: (52,) float32 in [0, 0.25], in the order of `ARKIT_BLENDSHAPES`; read-only.
        idle: factor on the size of idle life, 1 for no mood.
    """

    controls: Float32Array
    idle: float = 1.0

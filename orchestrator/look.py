"""How one subject shows single emotions at rest: no idle life, no mood."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from orchestrator.expression.blending import compose
from orchestrator.expression.emotions import EmotionTable
from orchestrator.expression.steps import alone
from pipeline.types import FaceControls


@dataclass(frozen=True, slots=True)
class Look:
    """A subject's emotions.

    Attributes:
        gains: emotion label to factor on its controls, 1 where absent.
        rest: what makes the portrait's own face a neutral one.
    """

    emotions: EmotionTable
    gains: Mapping[str, float] = field(default_factory=dict)
    rest: FaceControls | None = None

    def face(self, label: str, intensity: float) -> FaceControls:
        """The face of one emotion.

        Args:
            label: canonical.
            intensity: 0 to 1, before the emotion's calibrated maximum.
        """
        weights = alone(label, intensity, self.emotions)
        return compose(weights, self.emotions, gains=self.gains, rest=self.rest)

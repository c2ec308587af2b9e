"""Simplified faces, few enough to be drawn ahead: what a renderer too slow for the stream shows.

Emotions come in `STEPS` steps up to each one's maximum, lids are open, half shut or shut, and
there is no other idle life, mood or state.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from orchestrator.expression.emotions import NEUTRAL, EmotionTable

STEPS: Final = 8
LIDS: Final = (0.0, 0.5, 1.0)
# Coarse to fine: whenever drawing stops, what is there covers each emotion evenly.
_ORDER: Final = (8, 4, 6, 2, 7, 5, 3, 1)


def stepped(weights: Mapping[str, float], emotions: EmotionTable) -> dict[str, float]:
    """The weights, each rounded to a step of its emotion; `neutral` is what is left.

    Where rounding up would take more than there is, the weights are rounded down.
    """
    shares = {
        label: weight / emotions[label].maximum * STEPS
        for label, weight in weights.items()
        if label != NEUTRAL and label in emotions.rows
    }
    for rounded in (round, int):
        steps = {
            label: rounded(share) / STEPS * emotions[label].maximum
            for label, share in shares.items()
        }
        if sum(steps.values()) <= 1.0:
            break
    return with_neutral({label: weight for label, weight in steps.items() if weight > 0.0})


def with_neutral(weights: Mapping[str, float]) -> dict[str, float]:
    """The weights, and neutral as what is left of 1."""
    return {NEUTRAL: max(0.0, 1.0 - sum(weights.values())), **weights}


def alone(label: str, intensity: float, emotions: EmotionTable) -> dict[str, float]:
    """The weights of one emotion by itself.

    Args:
        intensity: 0 to 1, before the emotion's calibrated maximum.
    """
    weight = intensity * emotions[label].maximum if label != NEUTRAL else 0.0
    return with_neutral({label: weight} if weight else {})


def lids(blink: float) -> float:
    """How far the lids are shut, as one of `LIDS`."""
    return min(LIDS, key=lambda lid: abs(lid - blink))


def stepped_mouth(mouth: float) -> float:
    """What emotions keep of their mouth, rounded to a step."""
    return round(mouth * STEPS) / STEPS


def every_step(emotions: EmotionTable) -> Iterator[tuple[dict[str, float], float]]:
    """Weights and lids of all faces that one emotion at a time passes through, needed most first.

    The resting face and its blink; each emotion coarse to fine; the blinks of the emotions.
    """
    labels = [label for label in emotions.labels if label != NEUTRAL]
    for lid in reversed(LIDS):
        yield with_neutral({}), lid
    for step in _ORDER:
        for label in labels:
            yield alone(label, step / STEPS, emotions), 0.0
    for lid in reversed(LIDS[1:]):
        for label in labels:
            yield alone(label, 1.0, emotions), lid

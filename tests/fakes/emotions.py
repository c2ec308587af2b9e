"""A small table of emotions with round numbers."""

from orchestrator.expression.emotions import BASIC_EMOTIONS, Emotion, EmotionTable

MAXIMUM = 0.8
ATTACK_S = 0.2
HOLD_S = 1.0
DECAY_S = 0.5


def emotion(label: str, *aliases: str, maximum: float = MAXIMUM) -> Emotion:
    """An emotion without a face."""
    return Emotion(label, aliases, maximum, ATTACK_S, HOLD_S, DECAY_S)


def table(*further: Emotion) -> EmotionTable:
    """The seven basic emotions, `joy` for happy, and any further ones."""
    basic = [
        emotion(
            label,
            *(["joy"] if label == "happy" else []),
            maximum=1.0 if label == "neutral" else MAXIMUM,
        )
        for label in BASIC_EMOTIONS
    ]
    return EmotionTable([*basic, *further])

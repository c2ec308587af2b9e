"""What an event asks for: its names resolved, its numbers clamped, and what to say of it."""

from __future__ import annotations

import math
from types import MappingProxyType

from orchestrator.expression.emotions import EmotionTable
from pipeline.errors import ErrorCode, InvalidEventError
from pipeline.types import CueAccepted, EmotionEvent


def understand(event: EmotionEvent, emotions: EmotionTable) -> tuple[CueAccepted, dict[str, float]]:
    """What is asked for.

    Returns:
        What to answer, and label to strength in [0, 1].

    Raises:
        InvalidEventError: an emotion is unknown or a number none; with the event's id.
    """
    try:
        return _read(event, emotions)
    except InvalidEventError as error:
        raise InvalidEventError(
            error.code,
            error.message,
            field=error.field,
            suggestions=error.suggestions,
            event_id=event.id,
        ) from error


def _read(event: EmotionEvent, emotions: EmotionTable) -> tuple[CueAccepted, dict[str, float]]:
    sent = [(name, amount, f"mix.{name}") for name, amount in event.mix.items()]
    if event.emotion is not None:
        sent.insert(0, (event.emotion, event.intensity, "emotion"))
    elif not sent:
        raise InvalidEventError(
            ErrorCode.INVALID_MESSAGE, "expected an emotion or a mix", field="emotion"
        )
    else:
        sent.sort(key=lambda each: -each[1])
    shares: dict[str, float] = {}
    clamped = False
    for name, amount, where in sent:
        if not math.isfinite(amount):
            raise InvalidEventError(
                ErrorCode.INVALID_MESSAGE,
                f"{where}: expected a number from 0 to 1",
                field="intensity" if where == "emotion" else where,
            )
        label = emotions.resolve(name, where)
        strength = min(1.0, max(0.0, amount))
        clamped = clamped or strength != amount
        shares[label] = min(1.0, shares.get(label, 0.0) + strength)
    main, first_amount, _ = sent[0]
    used = emotions.resolve(main)
    accepted = CueAccepted(
        id=event.id,
        used=used,
        intensity=min(1.0, max(0.0, first_amount)),
        mix=MappingProxyType({k: v for k, v in shares.items() if k != used}),
        mapped_from=None if main.strip().lower() == used else main,
        clamped=clamped,
    )
    return accepted, shares

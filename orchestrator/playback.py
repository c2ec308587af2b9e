"""A logged run in virtual time: the faces that the stage showed, at any frame rate."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator.acting import act, face_at, idle_life
from orchestrator.event_log import CharacterLine, EmotionsLine
from orchestrator.event_log_reader import Message, Run, Step
from orchestrator.expression.emotions import EmotionTable
from orchestrator.expression.idle import IdleLife
from orchestrator.expression.performance import Performance
from orchestrator.expression.sequencer import FaceSample, Sequencer
from pipeline.errors import InvalidEventError
from pipeline.types import FaceControls


@dataclass(frozen=True, slots=True, eq=False)
class Moment:
    """What the stage shows at one moment.

    Attributes:
        weights: label to weight, `neutral` included.
        controls: the whole face.
        event: id of the newest cue on it.
        character: who is on; None before the first has come.
    """

    weights: Mapping[str, float]
    controls: FaceControls
    event: str | None
    character: CharacterLine | None


class Playback:
    """Plays a run once, forwards.

    Args:
        run: what to play.
        emotions: the table that it was made with.

    Attributes:
        refused: messages that could not act, which in the same circumstances none is.
    """

    def __init__(self, run: Run, emotions: EmotionTable) -> None:
        self._run = run
        self._next = 0
        self._sequencer = Sequencer(emotions)
        self._performance = Performance(emotions, IdleLife(0, enabled=False))
        self._character: CharacterLine | None = None
        self._sampled_s = -math.inf
        self.refused = 0

    def at(self, due_s: float) -> Moment:
        """The face at a moment, which must not be before an earlier one.

        Args:
            due_s: monotonic seconds of the clock that the run was logged with.
        """
        steps = self._run.steps
        while self._next < len(steps) and _is_past(steps[self._next], due_s):
            self._take(steps[self._next])
            self._next += 1
        sample, controls = self._sample(due_s)
        return Moment(sample.weights, controls, sample.newest, self._character)

    def over(self, now_s: float) -> bool:
        """Nothing is on the face any more that a producer has asked for, and nothing will be."""
        if self._next < len(self._run.steps) or self._performance.injecting:
            return False
        return not self._sequencer.cues(now_s)

    def _sample(self, due_s: float) -> tuple[FaceSample, FaceControls]:
        self._sampled_s = due_s
        return face_at(self._sequencer, self._performance, due_s)

    def _take(self, step: Step) -> None:
        if step.after_s is not None and step.after_s > self._sampled_s:
            # The stage had sampled this moment already, so the step acts from then on, although
            # there is no frame of it at this rate.
            self._sample(step.after_s)
        match step:
            case CharacterLine():
                self._character = step
                idle = idle_life(self._run.opened.idle, step.idle_seed)
                self._performance.cast(idle, step.gains, step.resting)
            case EmotionsLine():
                pass  # whoever plays has made sure that it is the same table
            case Message():
                try:
                    act(self._sequencer, self._performance, step.message, step.source, step.t_s)
                except InvalidEventError:
                    self.refused += 1


def _is_past(step: Step, due_s: float) -> bool:
    """It acted on the face of that moment."""
    return step.t_s <= due_s and (step.after_s is None or step.after_s < due_s)

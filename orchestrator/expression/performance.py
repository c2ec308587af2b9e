"""The whole face at one moment: the cues' weights, the mood under them, idle life over them.

How idle life goes, and what the cues keep of the mouth, is up to what the character is doing.
Controls that producers send directly come on top of everything.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping
from typing import Any

from orchestrator.expression.blending import compose, idle_amplitude
from orchestrator.expression.emotions import EmotionTable
from orchestrator.expression.idle import IdleAmplitude, IdleLife, IdleOffsets
from orchestrator.expression.injection import Injection
from orchestrator.expression.mood import MoodLayer, MoodOffsets
from orchestrator.expression.states import IdleSet, StateLayer
from orchestrator.expression.steps import alone, every_step, lids, stepped, stepped_mouth
from pipeline.types import Activity, DirectControls, FaceControls, Mood


class Performance:
    """One character's way of showing emotions.

    Args:
        emotions: what they look like.
        idle: blinks, glances, breath and sway.
        gains: emotion label to factor on its controls.
        rest: what brings the portrait's own face to a neutral one.
    """

    def __init__(
        self,
        emotions: EmotionTable,
        idle: IdleLife,
        gains: Mapping[str, float] | None = None,
        rest: FaceControls | None = None,
    ) -> None:
        self._emotions = emotions
        self._idle = idle
        self._gains = dict(gains or {})
        self._rest = rest
        self._mood = MoodLayer()
        self._state = StateLayer()
        self._injection = Injection()

    def replace_emotions(self, emotions: EmotionTable) -> None:
        """Use another table from now on."""
        self._emotions = emotions

    def cast(self, idle: IdleLife, gains: Mapping[str, float], rest: FaceControls | None) -> None:
        """Play another character; mood, state and direct controls stay."""
        self._idle, self._gains, self._rest = idle, dict(gains), rest

    def controls(self, weights: Mapping[str, float], now_s: float) -> FaceControls:
        """The face for these weights at this time.

        Args:
            weights: label to weight, `neutral` included.
        """
        mood, idle_set = self._mood.sample(now_s), self._state.at(now_s)
        return compose(
            weights,
            self._emotions,
            gains=self._gains,
            idle=self._idle_at(now_s, weights, mood, idle_set),
            mood=mood,
            rest=self._rest,
            mouth=idle_set.mouth,
            injected=self._injection.sample(now_s),
        )

    def _idle_at(
        self, now_s: float, weights: Mapping[str, float], mood: MoodOffsets, idle_set: IdleSet
    ) -> IdleOffsets:
        size = idle_amplitude(weights, self._emotions, mood)
        size = IdleAmplitude(
            size.gaze * idle_set.gaze, size.sway * idle_set.sway, size.breath * idle_set.breath
        )
        idle = self._idle.sample(now_s, size, blinks=lambda t_s: self._state.at(t_s).blinks)
        return IdleOffsets(
            blink=idle.blink,
            gaze_x=idle.gaze_x + idle_set.gaze_x,
            gaze_y=idle.gaze_y + idle_set.gaze_y,
            pitch=idle.pitch + idle_set.pitch,
            yaw=idle.yaw + idle_set.yaw,
            roll=idle.roll + idle_set.roll,
        )

    # --- simplified, for renderers that draw ahead ----------------------------------------

    def steps(
        self, weights: Mapping[str, float], now_s: float
    ) -> tuple[tuple[FaceControls, dict[str, float]], ...]:
        """This moment's face simplified, with its blink if there is one and without.

        Empty while producers send controls directly: no simple face does justice to those.
        """
        if self._injection.active:
            return ()
        mood, idle_set = self._mood.sample(now_s), self._state.at(now_s)
        blink = lids(self._idle_at(now_s, weights, mood, idle_set).blink)
        simple, mouth = stepped(weights, self._emotions), stepped_mouth(idle_set.mouth)
        blinks = (blink, 0.0) if blink else (0.0,)
        return tuple((self._step(simple, lid, mouth), simple) for lid in blinks)

    def steps_ahead(
        self, ahead: Iterable[Mapping[str, float]], now_s: float
    ) -> Iterator[tuple[FaceControls, dict[str, float]]]:
        """The simplified faces of weights to come, each once, in order."""
        mouth = stepped_mouth(self._state.at(now_s).mouth)
        seen = set()
        for weights in ahead:
            simple = stepped(weights, self._emotions)
            key = tuple(simple.items())
            if key not in seen:
                seen.add(key)
                yield self._step(simple, 0.0, mouth), simple

    def every_step(self) -> list[tuple[FaceControls, dict[str, float]]]:
        """All simplified faces of one emotion at a time, needed most first."""
        return [
            (self._step(weights, lid, 1.0), weights) for weights, lid in every_step(self._emotions)
        ]

    def _step(self, weights: Mapping[str, float], lid: float, mouth: float) -> FaceControls:
        return compose(
            weights,
            self._emotions,
            gains=self._gains,
            idle=IdleOffsets(blink=lid),
            rest=self._rest,
            mouth=mouth,
        )

    def key_faces(self) -> list[tuple[FaceControls, dict[str, float]]]:
        """Neutral and the peak of each emotion, without idle life, with their weights."""
        faces = []
        for label in self._emotions.labels:
            weights = alone(label, 1.0, self._emotions)
            face = compose(weights, self._emotions, gains=self._gains, rest=self._rest)
            faces.append((face, weights))
        return faces

    # --- state ----------------------------------------------------------------------------

    @property
    def state(self) -> Activity:
        """What the character is doing."""
        return self._state.state

    def set_state(self, state: Activity, now_s: float) -> None:
        """Let the character do something else."""
        self._state.set(state, now_s)

    # --- direct controls ------------------------------------------------------------------

    def inject(self, source: Hashable, message: DirectControls, now_s: float) -> None:
        """Take a producer's controls.

        Raises:
            InvalidEventError: too many producers send some.
        """
        self._injection.send(source, message, now_s)

    @property
    def injecting(self) -> bool:
        """Direct controls are on, or were in the last face."""
        return self._injection.active

    # --- mood -----------------------------------------------------------------------------

    def set_mood(self, mood: Mood, now_s: float) -> None:
        """Let the mood go there."""
        self._mood.set(mood.valence, mood.arousal, mood.decay_s, now_s)

    def mood(self, now_s: float) -> tuple[float, float]:
        """Valence and arousal now, each in [-1, 1]."""
        return self._mood.values(now_s)

    def mood_memory(self, now_s: float) -> dict[str, Any] | None:
        """What survives a restart."""
        return self._mood.memory(now_s)

    def restore_mood(self, memory: object, now_s: float) -> None:
        """Take up the mood of an earlier run.

        Raises:
            ValueError: it makes no sense.
        """
        self._mood.restore(memory, now_s)

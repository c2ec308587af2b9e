"""The weights on the face over time: nested convex cross-fades between running trajectories.

The face is a vector of weights w >= 0 with sum(w) <= 1; what is missing to 1 is neutral. A
retarget at t0 turns the trajectory F of some of the labels into

    F'(t) = (1 - s(t)) F(t) + s(t) T,        s(t0) = s'(t0) = 0

so value and velocity are continuous whatever F was doing, and range, sum and "no overshoot"
hold because F' is a convex combination. F keeps running under the cross-fade. Labels whose
target stays go their own way, at their own pace, where the sum can bear it. What led a label
to where it is no longer wanted is braked to a stop: its s stays where it is then. What falls to
0 and is wanted there keeps falling.

A complete cross-fade hides what lies under it, and one that has come to a stop over what stands
still is a constant: both are folded away. Beyond `MAX_LAYERS` the pile is replaced by one motion
that starts at its value and velocity and comes to rest inside the range, so that cost and memory
stay bounded however fast retargets come.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np
import numpy.typing as npt

from orchestrator.expression.easing import Easing
from orchestrator.expression.layers import ROUNDING, Labels, Layer, Weights, coasting, still

UNSEEN_S: Final = 0.01
MAX_LAYERS: Final = 32
# Below one frame at 144 frames per second: "at once" is over with the next frame.
MIN_TRANSITION_S: Final = 0.005


class Crossfade:
    """A trajectory of weights that is retargeted as time goes on.

    Args:
        size: number of weights.
    """

    def __init__(self, size: int) -> None:
        self._base = still(np.zeros(size))
        self._layers: list[Layer] = []
        self._moved_s = -np.inf
        self._fold_s = np.inf
        self._marks: list[int] = []
        self._cleared: list[int] = []

    @property
    def depth(self) -> int:
        """Cross-fades that still show."""
        return len(self._layers)

    @property
    def settles_s(self) -> float:
        """From when on the weights stand still, as things are; it may lie in the past."""
        done_s = max((layer.done_s for layer in self._layers), default=self._moved_s)
        return max(done_s, self._moved_s, self._base.end_s)

    def value(self, t_s: float) -> Weights:
        """The weights at a time not before the last retarget."""
        value = self._base.at(t_s)[0]
        for layer in self._layers:
            value = layer.over(value, t_s)
        return np.clip(value, 0.0, 1.0)

    def motion(self, t_s: float) -> tuple[Weights, Weights]:
        """Value, and velocity per second."""
        value, velocity = self._base.at(t_s)
        for layer in self._layers:
            share, way = layer.share(t_s) * layer.where, layer.target - value
            velocity = (1.0 - share) * velocity + layer.rate(t_s) * layer.where * way
            value = value + share * way
        return np.clip(value, 0.0, 1.0), velocity

    def retarget(
        self,
        t_s: float,
        target: Weights,
        duration_s: float,
        easing: Easing,
        *,
        unwanted: bool = False,
        mark: int | None = None,
    ) -> float:
        """Go to `target` from whatever is on at `t_s`.

        Args:
            target: weights, at least 0, with a sum of at most 1.
            duration_s: until the cross-fade is complete.
            unwanted: nothing that is on is to go on, except towards `target`, and all of it is
                to be there by then; else, all of it goes on under what comes, and what goes
                there already does so as it would have.
            mark: given by `cleared` once nothing of what is on shows any more; a new number
                each time.

        Returns:
            When it will be complete.
        """
        self.fold(t_s)
        duration_s = max(duration_s, MIN_TRANSITION_S)
        end_s = t_s + duration_s
        where = self._absorb(t_s, end_s, self._to_move(target, end_s, unwanted))
        if unwanted:
            where = self._stop_leaving(t_s, target, where)
        if len(self._layers) >= MAX_LAYERS:
            self._collapse(t_s)
            where = np.ones_like(where)
        if mark is not None:
            self._await(mark, where)
        marks = set() if mark is None else {mark}
        self._layers.append(Layer(t_s, duration_s, easing, target, where, marks))
        self._fold_s = -np.inf
        self.fold(t_s)
        return end_s

    def fold(self, t_s: float) -> None:
        """Drop what makes no difference at `t_s` and later."""
        if t_s < self._fold_s:
            return
        if self._base.end_s <= t_s:
            self._moved_s = max(self._moved_s, self._base.end_s)
            self._base = still(self._base.at(t_s)[0])
        self._hide(t_s)
        if not len(self._base.rates):
            self._settle(t_s)
        self._layers = [layer for layer in self._layers if layer.where.any()]
        if self._marks:
            self._clear(t_s)
        ends = [layer.done_s for layer in self._layers if layer.done_s > t_s]
        if len(self._base.rates):
            ends.append(self._base.end_s)
        self._fold_s = min(ends, default=np.inf)

    def cleared(self) -> list[int]:
        """The marks that were reached since this was asked last, as of the last `fold`."""
        marks, self._cleared = self._cleared, []
        return marks

    def resized(self, order: npt.NDArray[np.intp]) -> None:
        """Rearrange the weights: new index i takes old index `order[i]`, or nothing for -1."""
        known = order >= 0
        base = self._base
        base.value = np.where(known, base.value[order], 0.0)
        base.flow = np.where(known, base.flow[:, order], 0.0)
        for layer in self._layers:
            layer.target = np.where(known, layer.target[order], 0.0)
            layer.where = known & layer.where[order]
        self._fold_s = -np.inf

    # --- retargeting ----------------------------------------------------------------------

    def _to_move(self, target: Weights, end_s: float, unwanted: bool) -> Labels:
        """The labels that a new cross-fade must move."""
        aim, highest, due_s = self._aims()
        where: Labels = aim != target
        if unwanted:
            where |= due_s > end_s
        if float(np.where(where, target, highest).sum()) > 1.0 + ROUNDING:
            # Those that go cannot take their time: what comes needs their room.
            where |= highest > target
        return where

    def _aims(self) -> tuple[Weights, Weights, Weights]:
        """Of each label: where it is going, the most it can be on the way, and until when."""
        base = self._base
        aim = base.value
        highest = base.value + (base.rates * base.brakes_s / 3.0) @ np.maximum(base.flow, 0.0)
        due_s = np.full(len(aim), -np.inf)
        for layer in self._layers:
            end_s = layer.end_s if layer.brake_at_s is None else np.inf
            # Of several that lead to the same, the first to get there is enough.
            stays = layer.target == aim
            due_s = np.where(layer.where, np.where(stays, np.minimum(due_s, end_s), end_s), due_s)
            aim = np.where(layer.where, layer.target, aim)
            highest = np.where(layer.where, np.maximum(layer.target, highest), highest)
        return aim, highest, due_s

    def _absorb(self, t_s: float, end_s: float, where: Labels) -> Labels:
        """Stop what is too young to have been seen and would be there no sooner.

        Returns:
            `where`, and the labels that have lost their cross-fade by it.
        """
        for layer in reversed(self._layers):
            young = layer.brake_at_s is None and t_s - layer.start_s < UNSEEN_S
            sooner = layer.marks or layer.end_s < end_s - UNSEEN_S
            if young and not sooner and (layer.where & where).any():
                where = where | layer.where
                layer.brake(t_s)
        self._layers = [layer for layer in self._layers if layer.brake_at_s != layer.start_s]
        return where

    def _stop_leaving(self, t_s: float, target: Weights, where: Labels) -> Labels:
        """Stop what leads a weight away from `target`; what falls to 0 beside it may go on.

        Where what falls is stopped, what it made room for is stopped too.

        Returns:
            `where`, and the labels that have been stopped beside it.
        """
        now = self.value(t_s)
        below = self._base.at(t_s)[0]
        layers = []
        for layer in self._layers:
            rising = layer.where & where & (layer.target > np.maximum(now, below) + ROUNDING)
            sinking = layer.where & where & (layer.target < np.minimum(target, below) - ROUNDING)
            stopped = rising
            if sinking.any() and not layer.marks:
                stopped = layer.where & (rising | sinking | (layer.target > 0.0))
            below = layer.over(below, t_s)
            if layer.brake_at_s is None and stopped.any():
                where = where | stopped
                if t_s > layer.start_s:
                    layers.append(replace(layer, where=stopped, marks=set()))
                    layers[-1].brake(t_s)
                layer.where = layer.where & ~stopped
            layers.append(layer)
        self._layers = [layer for layer in layers if layer.where.any()]
        return where

    def _await(self, mark: int, where: Labels) -> None:
        """Let the mark wait for the cross-fades of the labels that the new one leaves alone."""
        self._marks.append(mark)
        for layer in self._layers:
            if layer.brake_at_s is None and (layer.where & ~where).any():
                layer.marks.add(mark)

    # --- folding --------------------------------------------------------------------------

    def _hide(self, t_s: float) -> None:
        """Take from each layer the labels that a complete one above it moves."""
        hidden = np.zeros(len(self._base.value), np.bool_)
        for layer in reversed(self._layers):
            layer.where = layer.where & ~hidden
            if layer.brake_at_s is None and layer.end_s <= t_s:
                hidden |= layer.where

    def _settle(self, t_s: float) -> None:
        """Move what stands still over what stands still into the base."""
        value = self._base.value
        busy = np.zeros(len(value), np.bool_)
        for layer in self._layers:
            if layer.done_s <= t_s:
                self._moved_s = max(self._moved_s, layer.done_s)
                free = layer.where & ~busy
                share = layer.share(layer.done_s)
                value = np.where(free, value + share * (layer.target - value), value)
            else:
                free = layer.where & ~busy & (layer.target == value)
            layer.where = layer.where & ~free
            busy |= layer.where
        self._base = still(value)

    def _clear(self, t_s: float) -> None:
        waiting = {mark for layer in self._layers if layer.done_s > t_s for mark in layer.marks}
        self._cleared.extend(mark for mark in self._marks if mark not in waiting)
        self._marks = [mark for mark in self._marks if mark in waiting]

    # --- the flood ------------------------------------------------------------------------

    def _collapse(self, t_s: float) -> None:
        """Put one motion in place of the pile. What is to be cleared will be, in time."""
        marked = [layer for layer in self._layers if layer.marks]
        self._base = coasting(*self.motion(t_s), t_s)
        self._layers = []
        if marked:
            rest = np.zeros_like(self._base.value)
            duration_s = max(min(each.end_s for each in marked) - t_s, MIN_TRANSITION_S)
            marks = set().union(*(each.marks for each in marked))
            easing = marked[-1].easing
            self._layers.append(Layer(t_s, duration_s, easing, rest, rest == 0.0, marks))

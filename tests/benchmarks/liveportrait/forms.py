"""Which forms of LivePortrait are compared, and how much faster one is to be. No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

FLOAT32: Final = "float32"

# The fast form on a CPU: in whatever type the processor is quick in, and in float32 alone.
CPU_FACTOR: Final = 2.0
CPU_FLOAT32_FACTOR: Final = 1.25
# The fast form on CUDA against plain eager under autocast, in the same half precision.
CUDA_HALF_FACTOR: Final = 2.5


@dataclass(frozen=True, slots=True)
class Form:
    """A way to run the networks.

    Attributes:
        fast: False is the plain eager form.
        dtype: what the two large networks run in.
    """

    fast: bool
    dtype: str

    def __str__(self) -> str:
        how = "fast" if self.fast else "plain eager"
        autocast = "" if self.fast or self.dtype == FLOAT32 else ", autocast"
        return f"{how} {self.dtype}{autocast}"


@dataclass(frozen=True, slots=True)
class Pair:
    """A form against another.

    Attributes:
        wanted: how many times as fast it is to be; None where nothing is promised.
    """

    form: Form
    against: Form
    wanted: float | None

    def verdict(self, factor: float) -> str:
        """Whether the target is met."""
        if self.wanted is None:
            return "-"
        return "met" if factor >= self.wanted else "NOT MET"


def forms(halves: Sequence[str]) -> tuple[Form, ...]:
    """Both forms in float32 and in the half types of a device."""
    return tuple(Form(fast, dtype) for dtype in (FLOAT32, *halves) for fast in (False, True))


def pairs(kind: str, halves: Sequence[str]) -> list[Pair]:
    """What is compared on a kind of device (`cpu`, `cuda`, `mps`): every fast form, twice."""
    found = []
    for dtype in (FLOAT32, *halves):
        for against in dict.fromkeys((dtype, FLOAT32)):
            pair = (Form(True, dtype), Form(False, against))
            found.append(Pair(*pair, _wanted(kind, dtype, against, has_half=bool(halves))))
    return found


def _wanted(kind: str, dtype: str, against: str, *, has_half: bool) -> float | None:
    if kind == "cuda":
        return CUDA_HALF_FACTOR if dtype == against != FLOAT32 else None
    if kind != "cpu":
        return None
    if dtype == FLOAT32:
        return CPU_FLOAT32_FACTOR if has_half else CPU_FACTOR
    return CPU_FACTOR if against == FLOAT32 else None


def factors(frames: Mapping[Form, Sequence[float]], pair: Pair) -> tuple[float, float, float]:
    """How many times as fast a form was: median, least and most over the rounds.

    Args:
        frames: times by form, each form's in the order of the rounds.
    """
    rounds = zip(frames[pair.against], frames[pair.form], strict=True)
    ratios = [slow / quick for slow, quick in rounds]
    return median(ratios), min(ratios), max(ratios)

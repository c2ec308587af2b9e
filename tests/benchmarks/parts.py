"""What every part of the benchmarks gets to know."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Options:
    """How thoroughly to measure.

    Attributes:
        quick: a few seconds per part, to see that it works.
        minutes: length of the memory part.
    """

    quick: bool = False
    minutes: float = 10.0

    def either(self, quick: float, full: float) -> float:
        """A quantity that depends on how thorough it is to be."""
        return quick if self.quick else full

    def number(self, quick: int, full: int) -> int:
        """A number that depends on how thorough it is to be."""
        return quick if self.quick else full


# In the order in which they run; each is a module of this package with `run(options)`.
PARTS = {
    "start": "start cold and warm, stop with 200 viewers",
    "mesh": "ms per frame by stage",
    "cached": "a frame from the cache in the event loop",
    "events": "event to started and peaked over a real socket",
    "pacing": "deviation of the frame interval, alone and with 100 viewers",
    "fanout": "viewers until the first missed frame, daemon on one core",
    "sending": "what a frame costs, against a loop over plain transports",
    "memory": "resident memory over ten minutes",
}

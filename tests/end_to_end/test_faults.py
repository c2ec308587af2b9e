"""What is done to a running daemon on purpose, and that nothing is lost by it.

The experiments are those of `make chaos`, the quick ones of each kind done once. Rates are not
looked at here: the machine that runs the tests has other work to do.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, suppress

import pytest

from tests.chaos import (
    clock_faults,
    disk_faults,
    producer_faults,
    renderer_faults,
    restarts,
    sink_faults,
    starts,
    viewer_faults,
)
from tests.chaos.fault import Fault, Outcome, carry_out, carry_out_alone
from tests.chaos.kills import kill_and_restart
from tests.chaos.namespaces import NotPossibleHereError
from tests.chaos.scene import Stage, scene_of, staged

KILLS = 1
# Each wants a daemon of its own. How the others fare is tested where it takes milliseconds.
ALONE = (
    *(fault for fault in sink_faults.FAULTS if fault.own_hosts),
    *(fault for fault in renderer_faults.FAULTS if fault.name.endswith(("raises", "hangs"))),
)
MOMENTS = tuple(
    moment for moment in starts.MOMENTS if moment.name.endswith(("hangs", "nothing", "one port"))
)
# Left to `make chaos`: a quicker one of the same kind is there, or a test without a daemon.
LONG = (
    "a producer sends ten times its limit",
    "disk full in the middle of an upload",
    "state directory read-only",
    "wall clock an hour on, then an hour back",
)
TOGETHER = tuple(
    fault
    for faults in (viewer_faults, producer_faults, disk_faults, clock_faults)
    for fault in faults.FAULTS
    if fault.name not in LONG
)


def nothing_was_lost(outcome: Outcome) -> None:
    """A reason was given; every frame that was published arrived, every cue ended once."""
    assert outcome.seen.reason
    noticed = outcome.noticed
    assert noticed.frames > 0
    assert (noticed.missed, noticed.unended, noticed.twice) == (0, 0, 0)
    assert noticed.cues > 0
    assert noticed.longest_ms < 2000.0


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """One daemon that goes through a lot, with disks of its own where that is possible."""
    with ExitStack() as running:
        for number, disks in enumerate((True, False)):
            folder = tmp_path_factory.mktemp("stage") / str(number)
            with suppress(NotPossibleHereError):
                made = staged(folder, disks=disks, **viewer_faults.ANYWHERE)
                stage = running.enter_context(made)
                break
        yield stage


@pytest.mark.parametrize("fault", TOGETHER, ids=lambda fault: str(fault.name))
async def test_a_fault_costs_nothing(stage: Stage, fault: Fault) -> None:
    """Others' frames go on, every cue has its one ending, and all is soon as it was."""
    if fault.own_disks and not stage.own_disks:
        pytest.skip("no disks of its own are possible here")
    async with scene_of(stage) as scene:
        try:
            nothing_was_lost(await carry_out(scene, fault))
        except NotPossibleHereError as error:
            pytest.skip(str(error))


@pytest.mark.parametrize("fault", ALONE, ids=lambda fault: str(fault.name))
async def test_a_renderer_or_sink_in_trouble_costs_nothing(fault: Fault) -> None:
    """Frames and endings come all the same, /health says why, and it is tried again."""
    try:
        nothing_was_lost(await carry_out_alone(fault))
    except NotPossibleHereError as error:
        pytest.skip(str(error))


async def test_kill_9_loses_nothing_that_was_confirmed() -> None:
    """Started again it is who it was, and every event has exactly one outcome."""
    killed = await kill_and_restart(KILLS)
    assert len(killed.back_s) == KILLS
    assert (killed.wrong, killed.corrupt, killed.unsettled) == (0, 0, 0)
    assert set(killed.outcomes) <= {"finished", "superseded"}, killed.outcomes
    assert killed.outcomes.total() == killed.events > 0
    assert max(killed.back_s) < 30.0


async def test_a_device_that_is_lost_ends_the_daemon_and_nothing_else() -> None:
    """Its exit status asks for another start, after which everybody is back and all is known."""
    lost = await restarts.lose(restarts.LOSSES[0])
    assert lost.status == restarts.DEVICE_LOST
    assert lost.kept
    assert set(lost.outcomes) <= {"finished", "superseded"}, lost.outcomes
    assert lost.outcomes.total() == lost.events > 0
    assert lost.back_s < 30.0


@pytest.mark.parametrize("moment", MOMENTS, ids=lambda moment: str(moment.name))
async def test_a_stop_comes_at_any_moment(moment: starts.Moment) -> None:
    """The exit status is the right one, and nothing in the log says error."""
    stop = await starts.carry_out(moment)
    assert stop.status in moment.statuses
    assert stop.errors == 0
    assert stop.seconds < 15.0

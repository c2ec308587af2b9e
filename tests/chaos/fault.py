"""What an experiment is, and how it is carried out."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.chaos.scene import Scene, scene_of, staged
from tests.chaos.watch import Noticed, Watch

SETTLE_S = 0.3


@dataclass(frozen=True, slots=True)
class Seen:
    """What one fault led to.

    Attributes:
        reason: where and how the daemon said it.
        recovery_s: from the end of the fault until all was as before.
    """

    reason: str
    recovery_s: float


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that is done to a running daemon; what does not hold raises AssertionError.

    Attributes:
        name: for the table.
        work: does it, once.
        settings: of the daemon that it is done to.
        orders: for its renderer before the start.
        own_hosts: the daemon's names of hosts are the file `hosts` in its folder.
        own_disks: its state and its event log are on small disks of their own.
    """

    name: str
    work: Callable[[Scene], Awaitable[Seen]]
    settings: Mapping[str, str] = field(default_factory=dict)
    orders: tuple[str, ...] = ()
    own_hosts: bool = False
    own_disks: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """One fault at one daemon, with what healthy viewers and a producer noticed of it."""

    seen: Seen
    noticed: Noticed


async def carry_out(scene: Scene, fault: Fault) -> Outcome:
    """Do it once to a daemon that is well."""
    await scene.until(scene.ready)
    await scene.well("media bridge")
    async with Watch(scene.daemon, scene.stage.viewers) as watch:
        await asyncio.sleep(SETTLE_S)
        seen = await fault.work(scene)
        await asyncio.sleep(SETTLE_S)
        return Outcome(seen, await watch.noticed())


async def carry_out_alone(fault: Fault) -> Outcome:
    """Do it once to a daemon of its own."""
    with tempfile.TemporaryDirectory(prefix="avatar-chaos-") as name:
        folder = Path(name)
        with staged(
            folder,
            *fault.orders,
            hosts=fault.own_hosts,
            disks=fault.own_disks,
            **fault.settings,
        ) as stage:
            async with scene_of(stage) as scene:
                return await carry_out(scene, fault)

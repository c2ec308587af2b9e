"""What adapters ask of the daemon as a whole, and have it do, from its first moment to its last."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Protocol, TypeVar

from orchestrator.cast import Cast
from orchestrator.expression.emotions import EmotionTable
from orchestrator.pictures import Pictures
from orchestrator.settings import StageOverrides
from orchestrator.sheet import Sheets
from orchestrator.stage import Stage
from orchestrator.stages import StageSet
from orchestrator.state_file import StateSaver
from pipeline.bodies import CharactersBody, HealthBody, StageBody, StagesBody
from pipeline.errors import ErrorCode, InvalidEventError
from pipeline.orders import StageOrder
from pipeline.render_host import RenderHost

_Part = TypeVar("_Part")

# A frame or a deliberate rest at least this often, or the stage is not in progress.
PROGRESS_S: Final = 5.0
PROBLEM_CHARS: Final = 400


class MayFail(Protocol):
    """A part that can be in trouble while the daemon runs."""

    @property
    def problem(self) -> str | None:
        """None, or what is wrong."""
        ...


class FrontDesk:
    """Answers from what the daemon has made so far; implements `ports.DaemonPort`.

    Args:
        emotions: what can be shown.
        renderer: name of the wanted one.
        gpu: name of the machine's, if it has one.
        most_stages: `limits.stages`.
        clock: monotonic seconds.

    Attributes:
        not_ready: None while frames are published, else why not.
        reload_problem: None, or why what was changed is not in use.
        stage_set, cast, pictures, sheets, host, saver, bridge: parts of the daemon, None until
            they have been made.
    """

    def __init__(
        self,
        emotions: EmotionTable,
        *,
        renderer: str,
        gpu: str | None,
        most_stages: int,
        clock: Callable[[], float],
    ) -> None:
        self.emotions = emotions
        self._renderer = renderer
        self._gpu = gpu
        self._most_stages = most_stages
        self._clock = clock
        self._started_s = clock()
        self.not_ready: str | None = "starting"
        self.reload_problem: str | None = None
        self.stage_set: StageSet | None = None
        self.cast: Cast | None = None
        self.pictures: Pictures | None = None
        self.sheets: Sheets | None = None
        self.host: RenderHost | None = None
        self.saver: StateSaver | None = None
        self.bridge: MayFail | None = None

    # --- what is asked --------------------------------------------------------------------

    def stage(self, name: str | None) -> Stage:
        """The stage of that name, the default one for None."""
        if self.stage_set is None:
            raise InvalidEventError(ErrorCode.NOT_READY, "the stage is being set up; try again")
        return self.stage_set.get(name)

    def health(self, name: str | None = None) -> HealthBody:
        """The body of GET /health: of the daemon, and of the stage of that name."""
        stage = self._main if name is None else self.stage(name)
        renderer = stage.renderer() if stage is not None else None
        degraded = stage.degraded if stage is not None else None
        return {
            "status": "ok" if degraded is None else "degraded",
            "renderer": renderer["name"] if renderer is not None else self._renderer,
            "device": renderer["device"] if renderer is not None else "unknown",
            "gpu_available": self._gpu is not None,
            "gpu_name": self._gpu,
            "model_loaded": self.host is not None and self.host.is_ready(self._renderer),
            "uptime_s": round(self._clock() - self._started_s, 3),
            "degraded": degraded,
            "problems": self._problems(),
        }

    def not_ready_reason(self, name: str | None = None) -> str | None:
        """None when frames are being published on that stage, else why not."""
        if self.not_ready is not None:
            return self.not_ready
        stage = self._main if name is None else self.stage(name)
        if stage is None or not self._in_progress(stage):
            return "no frame for too long"
        return None if stage.published else "no frame yet"

    def making_progress(self) -> bool:
        """The default stage has published, or rested, lately."""
        return self._main is not None and self._in_progress(self._main)

    def characters(self, name: str | None = None) -> CharactersBody:
        """The body of GET /v1/characters; `current` is who is on the stage of that name."""
        stage = self._main if name is None else self.stage(name)
        on_stage = stage.character_name if stage is not None else None
        listed = self.cast.bodies() if self.cast is not None else []
        return {"characters": listed, "current": on_stage}

    def expressions(self) -> Sequence[str]:
        """Canonical labels, `neutral` first."""
        return self.emotions.labels

    # --- stages at run time ---------------------------------------------------------------

    def stages(self) -> StagesBody:
        """The body of GET /v1/stages."""
        open_stages = there(self.stage_set)
        bodies = [open_stages.body(stage.name) for stage in open_stages]
        return {"stages": bodies, "limit": self._most_stages}

    async def create_stage(self, order: StageOrder) -> StageBody:
        """Open a stage at run time; see `StageSet.create`."""
        overrides = StageOverrides(
            character=order.character,
            fps=order.fps,
            width=order.width,
            height=order.height,
            jpeg_quality=order.jpeg_quality,
            idle_seed=order.idle_seed,
        )
        open_stages = there(self.stage_set)
        await open_stages.create(order.name, overrides)
        await self._save()
        return open_stages.body(order.name)

    async def remove_stage(self, name: str) -> None:
        """Close a stage that was made at run time; see `StageSet.remove`."""
        await there(self.stage_set).remove(name)
        await self._save()

    # --- small things ---------------------------------------------------------------------

    @property
    def _main(self) -> Stage | None:
        return self.stage_set.main if self.stage_set is not None else None

    def _in_progress(self, stage: Stage) -> bool:
        return self._clock() - stage.progress_s < PROGRESS_S

    def _problems(self) -> list[str]:
        """What is not as it should be, beside what is drawn."""
        found = {
            "configuration": self.reload_problem,
            "state": self.saver and self.saver.problem,
            "media bridge": self.bridge and self.bridge.problem,
        }
        for stage in self.stage_set or ():
            found[f"stage {stage.name}"] = stage.problem
        return [f"{part}: {problem}"[:PROBLEM_CHARS] for part, problem in found.items() if problem]

    async def _save(self) -> None:
        if self.saver is not None:
            await self.saver.now()


def there(part: _Part | None) -> _Part:
    """A part of the daemon that is made while it starts.

    Raises:
        InvalidEventError: `not_ready`: it has not been made yet.
    """
    if part is None:
        raise InvalidEventError(ErrorCode.NOT_READY, "the daemon is starting; try again")
    return part

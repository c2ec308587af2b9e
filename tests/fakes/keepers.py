"""Who takes orders, without pictures and disks, for tests of the adapters."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from pipeline.bodies import AddedCharacterBody, StageBody, StagesBody
from pipeline.errors import ErrorCode, InvalidEventError
from pipeline.orders import CharacterOrder, PictureOrder, SinglePicture, StageOrder
from tests.fakes.stage import JPEG, LABELS


class FakeMaker:
    """Implements `pipeline.orders.PictureMaker`: every picture is the same grey pixel."""

    def __init__(self) -> None:
        self.orders: list[PictureOrder] = []
        self.trouble: Callable[[], None] = lambda: None
        self.gate: asyncio.Event | None = None

    async def draw(self, order: PictureOrder) -> list[SinglePicture]:
        self.orders.append(order)
        if self.gate is not None:
            await self.gate.wait()
        self.trouble()
        for each in order.expressions:
            if each not in LABELS:
                problem = f"there is no emotion {each!r}"
                raise InvalidEventError(
                    ErrorCode.UNKNOWN_EMOTION, problem, field=order.field, suggestions=("happy",)
                )
        return [SinglePicture(each, JPEG) for each in dict.fromkeys(order.expressions)]


class FakeCast:
    """Implements `pipeline.orders.CharacterKeeper`."""

    def __init__(self) -> None:
        self.orders: list[CharacterOrder] = []
        self.removed: list[str] = []
        self.trouble: Callable[[], None] = lambda: None

    def expect(self, name: str) -> None:
        if name == "taken":
            problem = "there is one already"
            raise InvalidEventError(ErrorCode.CONFLICT, problem, field="name")

    async def add(self, order: CharacterOrder) -> AddedCharacterBody:
        self.trouble()
        self.orders.append(order)
        return {"name": order.name, "title": order.title, "licence": order.licence, "warnings": []}

    async def remove(self, name: str) -> None:
        self.trouble()
        self.removed.append(name)

    async def thumbnail(self, name: str) -> bytes:
        self.trouble()
        return JPEG


class FakeStages:
    """Implements `pipeline.orders.StageKeeper`."""

    def __init__(self) -> None:
        self.orders: list[StageOrder] = []
        self.removed: list[str] = []

    def stages(self) -> StagesBody:
        return {"stages": [], "limit": 8}

    async def create_stage(self, order: StageOrder) -> StageBody:
        self.orders.append(order)
        return {
            "name": order.name,
            "character": order.character or "astronaut",
            "fps": order.fps or 30.0,
            "width": 512,
            "height": 512,
            "viewers": 0,
            "degraded": None,
            "made": True,
        }

    async def remove_stage(self, name: str) -> None:
        self.removed.append(name)

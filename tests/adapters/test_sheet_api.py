"""GET /v1/characters/{name}/sheet.jpg, over a real socket."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from adapters.sheet_api import SheetEndpoint
from pipeline.errors import DropReason, ErrorCode, InvalidEventError, JobDroppedError, PortraitError
from tests.fakes.http_server import served
from tests.fakes.stage import JPEG

PATH = "/v1/characters/ada/sheet.jpg"


class FakeSheets:
    """Implements `pipeline.orders.SheetMaker`: every sheet is the same grey pixel."""

    def __init__(self, trouble: Callable[[str], Exception] | None = None) -> None:
        self.asked: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self._trouble = trouble

    async def sheet(self, name: str) -> bytes:
        self.asked.append(name)
        await self.gate.wait()
        if self._trouble is not None:
            raise self._trouble(name)
        return JPEG


async def test_a_sheet_is_a_picture_that_browsers_keep() -> None:
    """It is drawn when it is asked for, and is not sent again to whoever has it."""
    sheets = FakeSheets()
    async with served(extra_routes=SheetEndpoint(lambda: sheets).routes()) as running:
        first = await running.http.get(PATH)
        again = await running.http.get(PATH, headers={"If-None-Match": first.headers["ETag"]})
    assert (first.status_code, first.content) == (200, JPEG)
    assert first.headers["Content-Type"] == "image/jpeg"
    assert (again.status_code, again.content) == (304, b"")
    assert sheets.asked == ["ada", "ada"]


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (InvalidEventError(ErrorCode.UNKNOWN_CHARACTER, "nobody"), 404, "unknown_character"),
        (PortraitError("ada", "it cannot be read"), 503, "not_ready"),
        (JobDroppedError(DropReason.FULL), 503, "not_ready"),
    ],
)
async def test_why_there_is_no_sheet(error: Exception, status: int, code: str) -> None:
    """Nobody of that name is 404; what may work later is 503."""
    sheets = FakeSheets(lambda name: error)
    async with served(extra_routes=SheetEndpoint(lambda: sheets).routes()) as running:
        answer = await running.http.get(PATH)
    assert answer.status_code == status
    assert answer.json()["error"]["code"] == code


async def test_few_may_wait_for_sheets() -> None:
    """One is drawn and three wait; whoever comes then is asked to come again."""
    sheets = FakeSheets()
    sheets.gate.clear()
    async with served(extra_routes=SheetEndpoint(lambda: sheets).routes()) as running:
        waiting = [asyncio.create_task(running.http.get(PATH)) for _ in range(5)]
        done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED, timeout=5.0)
        refused = [task.result() for task in done]
        sheets.gate.set()
        answers = await asyncio.gather(*waiting)
    assert [answer.status_code for answer in refused] == [503]
    assert refused[0].headers["Retry-After"] == "1"
    assert sorted(answer.status_code for answer in answers) == [200, 200, 200, 200, 503]

"""A browser and a daemon for the tests of the studio page."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import Literal

import pytest
import pytest_asyncio

from tests.fakes.studio import DESKTOP, Chromium, Studio, StudioDaemon, Visit

# Pages are drawn by the processor here, so small pictures save most of the time.
SMALL = {"AVATAR_STAGE__WIDTH": "256", "AVATAR_STAGE__HEIGHT": "256", "AVATAR_STAGE__FPS": "20"}


@pytest.fixture(scope="module")
def studio_daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StudioDaemon]:
    """A running daemon, the same for the tests of a module."""
    running = StudioDaemon(tmp_path_factory.mktemp("state"), **SMALL)
    try:
        running.start()
        yield running
    finally:
        running.stop()


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    """A running browser, the same for the tests of a module."""
    running = Chromium(tmp_path_factory.mktemp("chromium"))
    yield running
    running.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def visit(chromium: Chromium) -> AsyncIterator[Visit]:
    """Open the studio in a browser: `async with visit(url) as studio`."""
    playwright = pytest.importorskip("playwright.async_api")

    @contextlib.asynccontextmanager
    async def opened(
        url: str,
        size: tuple[int, int] = DESKTOP,
        scheme: Literal["light", "dark"] = "light",
        live: bool = True,
    ) -> AsyncIterator[Studio]:
        context = await browser.new_context(
            viewport={"width": size[0], "height": size[1]}, color_scheme=scheme
        )
        studio = Studio(await context.new_page())
        studio.listen()
        await studio.page.goto(url)
        if live:
            await studio.until("live")
            await studio.page.wait_for_selector("button.emotion", state="attached")
        yield studio
        await context.close()

    async with playwright.async_playwright() as driver:
        browser = await driver.chromium.connect_over_cdp(chromium.address)
        yield opened
        await browser.close()

"""Pictures that are meant badly, sent to the running daemon."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from pipeline.decoding import decode_image
from pipeline.errors import PortraitError
from tests.fakes.daemon import DaemonProcess
from tests.fakes.photos import astronaut
from tests.fuzz.pictures import hostile
from tests.fuzz.sockets import SETTINGS, state

PICTURES = list(hostile())
# Looking for a face takes a second: of the pictures that show one, these go all the way.
ALL_THE_WAY = ("a ZIP file behind a JPEG", "an animated WebP")
SENT = [each for each in PICTURES if 200 not in each[2] or each[0] in ALL_THE_WAY]
# Memory of the daemon while it looks at them, over what it had: nothing here is above one
# megapixel, and what claims to be must be refused before it is unpacked.
MOST_BYTES = 100 * 2**20


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    with DaemonProcess(tmp_path_factory.mktemp("state"), **SETTINGS) as process:
        yield process


def peak_bytes(daemon: DaemonProcess) -> int:
    """The most memory that the process has had."""
    status = Path(f"/proc/{daemon.process.pid}/status").read_text("ascii")
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def characters(daemon: DaemonProcess) -> Any:
    return httpx.get(f"{daemon.http}/v1/characters").json()


@pytest.mark.parametrize(("name", "data", "statuses"), PICTURES, ids=[p[0] for p in PICTURES])
def test_what_can_be_decoded_is_and_the_rest_is_refused(
    name: str, data: bytes, statuses: frozenset[int]
) -> None:
    """The first picture of what there are several of; no error but the one for pictures."""
    if statuses & {200, 422}:
        with contextlib.suppress(*([PortraitError] if 400 in statuses else [])):
            image = decode_image(data, name=name)
            assert image.dtype == np.uint8
            assert image.ndim == 3
            assert statuses != {200} or image.shape == astronaut().shape
    else:
        with pytest.raises(PortraitError) as refused:
            decode_image(data, name=name)
        assert refused.value.too_large is (413 in statuses)


async def test_every_picture_gets_the_answer_that_it_deserves(daemon: DaemonProcess) -> None:
    """Odd ones are drawn, bad ones refused with an error about the field; nothing is changed."""
    before = await asyncio.to_thread(state, daemon)
    async with httpx.AsyncClient(base_url=daemon.http, timeout=60) as client:
        good = next(data for name, data, _ in PICTURES if name == ALL_THE_WAY[0])
        await client.post("/api/render", files={"source_image": good}, data={"expression": "sad"})
        at_first_bytes = await asyncio.to_thread(peak_bytes, daemon)
        for name, data, statuses in SENT:
            answer = await client.post(
                "/api/render",
                files={"source_image": ("../../x.jpg", data, "text/html")},
                data={"expression": "happy"},
            )
            assert answer.status_code in statuses, (name, answer.status_code, answer.text[:200])
            if answer.status_code == 200:
                assert answer.headers["content-type"] == "image/jpeg", name
                assert answer.content.startswith(b"\xff\xd8\xff")
            else:
                error = answer.json()["error"]
                assert error["field"] == "source_image", (name, error)
                assert len(error["message"]) < 300
    grown_bytes = await asyncio.to_thread(peak_bytes, daemon) - at_first_bytes
    assert grown_bytes < MOST_BYTES, grown_bytes / 2**20
    assert await asyncio.to_thread(state, daemon) == before


async def test_no_bad_picture_becomes_a_character(daemon: DaemonProcess) -> None:
    """Those that cannot be shown leave neither a name nor a file behind."""
    before = await asyncio.to_thread(characters, daemon)
    async with httpx.AsyncClient(base_url=daemon.http, timeout=60) as client:
        for name, data, statuses in PICTURES:
            if 200 in statuses:
                continue
            files = {"portrait": ("x.jpg", data, "image/jpeg")}
            answer = await client.post("/v1/characters", files=files, data={"name": "intruder"})
            assert answer.status_code in statuses, (name, answer.text[:200])
    assert await asyncio.to_thread(characters, daemon) == before
    assert not [line for line in daemon.log if line.get("level") in {"error", "critical"}]

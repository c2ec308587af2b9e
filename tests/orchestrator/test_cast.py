"""Characters that come and go at run time: checked, kept whole, found again, and bounded."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from cachetools import LRUCache

from orchestrator.cast import Cast
from orchestrator.character_store import CharacterStore
from orchestrator.characters import CharacterBook
from orchestrator.expression.emotions import EmotionTable
from orchestrator.settings import (
    CharactersSettings,
    Settings,
    StageOverrides,
    default_config_dir,
)
from orchestrator.stages import StageSet
from orchestrator.uploads import Uploads
from pipeline.decoding import decode_image
from pipeline.errors import ErrorCode, InvalidEventError, PortraitError, StorageError
from pipeline.frame_cache import FrameCache
from pipeline.orders import CharacterOrder
from pipeline.picture import FormatEncoder
from pipeline.portrait import LoadedPortrait
from tests.fakes import photos
from tests.fakes.metrics import RecordingMetrics

CONFIG = default_config_dir()
EMOTIONS = EmotionTable.load(CONFIG / "emotions.toml")
BOOK = CharacterBook.load(CONFIG / "characters", EMOTIONS.labels)
ORDER = CharacterOrder("ada", photos.jpeg(photos.astronaut()), "Ada L.", "", {"happy": 0.5}, 7)
# One face, found once for all tests.
KNOWN: LRUCache[bytes, LoadedPortrait] = LRUCache(64)


class FakeStages:
    """As much of `StageSet` as the cast needs."""

    def __init__(self) -> None:
        self.in_use: dict[str, tuple[str, ...]] = {}
        self.books: list[CharacterBook] = []

    def __iter__(self) -> Any:
        return iter(())

    def uses(self, character: str) -> tuple[str, ...]:
        return self.in_use.get(character, ())

    def replace_characters(self, book: CharacterBook) -> None:
        self.books.append(book)


class Company:
    """A cast around a folder."""

    def __init__(
        self, folder: Path, settings: Settings | None = None, room_bytes: int = 2**30
    ) -> None:
        self.settings = settings or Settings()
        self.store = CharacterStore(folder / "characters", room_bytes)
        self.stages = FakeStages()
        self.files = ThreadPoolExecutor(1)
        self.uploads = Uploads(16 * 2**20, 40_000_000)
        self.uploads._known = KNOWN
        metrics = RecordingMetrics()
        self.encoder = FormatEncoder(FrameCache(2**20, metrics), metrics)
        self.cast = Cast(
            self.settings,
            store=self.store,
            emotions=EMOTIONS,
            book=BOOK.with_all(self.store.load(EMOTIONS.labels)),
            stages=cast(StageSet, self.stages),
            uploads=self.uploads,
            encoder=self.encoder,
            files=self.files,
        )

    async def close(self) -> None:
        await self.uploads.close(5.0)
        await self.encoder.close(5.0)
        self.files.shutdown()


@pytest.fixture
async def company(tmp_path: Path) -> AsyncIterator[Company]:
    made = Company(tmp_path)
    yield made
    await made.close()


async def refusal(company: Company, order: CharacterOrder) -> InvalidEventError:
    with pytest.raises(InvalidEventError) as refused:
        await company.cast.add(order)
    return refused.value


# --- coming and going ---------------------------------------------------------------------


async def test_an_added_character_is_there_at_once_and_after_a_restart(
    company: Company, tmp_path: Path
) -> None:
    """With the same face, found once: what is loaded later is the same portrait."""
    body = await company.cast.add(ORDER)
    assert (body["name"], body["title"], body["uploaded"]) == ("ada", "Ada L.", True)
    assert any("fitted" in warning for warning in body["warnings"])
    assert company.stages.books[-1].names == ("astronaut", "ada")
    later = Company(tmp_path)
    try:
        ada = later.cast.book.get("ada")
        assert (ada.gains, ada.idle_seed, ada.title) == ({"happy": 0.5}, 7, "Ada L.")
        found = await company.uploads.portrait(ORDER.portrait, "again")
        assert ada.load().portrait.key == found.portrait.key
    finally:
        await later.close()


async def test_nothing_of_the_file_that_was_sent_is_kept(company: Company, tmp_path: Path) -> None:
    """Not what hides behind the picture, nor where it was taken."""
    hidden = b"<script>alert(1)</script>PK\x03\x04"
    await company.cast.add(replace(ORDER, portrait=ORDER.portrait + hidden))
    files = sorted((tmp_path / "characters" / "ada").iterdir())
    assert [file.name for file in files] == ["character.json", "landmarks.json", "portrait.png"]
    assert not any(b"script" in file.read_bytes() for file in files)


async def test_a_removed_character_is_gone_for_good(company: Company, tmp_path: Path) -> None:
    """From the list, the disk, and for the stages; its name is free again."""
    await company.cast.add(ORDER)
    await company.cast.thumbnail("ada")
    await company.cast.remove("ada")
    assert company.stages.books[-1].names == ("astronaut",)
    assert list((tmp_path / "characters").iterdir()) == []
    with pytest.raises(InvalidEventError):
        await company.cast.thumbnail("ada")
    await company.cast.add(ORDER)


async def test_who_is_needed_stays(tmp_path: Path) -> None:
    """Those of the configuration, those on stage, and those that the settings name."""
    settings = Settings(stages={"lobby": StageOverrides(character="eve")})
    company = Company(tmp_path, settings)
    try:
        for name in ("ada", "eve"):
            await company.cast.add(replace(ORDER, name=name))
        company.stages.in_use["ada"] = ("main",)
        for name, why in (("astronaut", "configuration"), ("ada", "main"), ("eve", "settings")):
            with pytest.raises(InvalidEventError, match=why) as stays:
                await company.cast.remove(name)
            assert stays.value.code is ErrorCode.CONFLICT
        with pytest.raises(InvalidEventError) as unknown:
            await company.cast.remove("nobody")
        assert unknown.value.code is ErrorCode.UNKNOWN_CHARACTER
        assert company.cast.book.names == ("astronaut", "ada", "eve")
    finally:
        await company.close()


async def test_a_thumbnail_is_a_small_jpeg(company: Company) -> None:
    """Of those of the configuration, too."""
    image = decode_image(await company.cast.thumbnail("astronaut"), name="thumbnail")
    assert image.shape == (192, 192, 3)
    assert await company.cast.thumbnail("astronaut") is await company.cast.thumbnail("astronaut")


# --- what is refused ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../x", "/etc", "a/b", "a\\b", "a\0b", "ada\n", ".new-x", "-a", "_a", "a b",
     "аda", "ａｄａ", "con", "NUL", "com1", "x" * 65, "a.b"],
)  # fmt: skip
async def test_names_that_cannot_be(company: Company, name: str, tmp_path: Path) -> None:
    """Paths, controls, look-alikes from other scripts, devices; nothing is written."""
    error = await refusal(company, replace(ORDER, name=name))
    assert (error.code, error.field) == (ErrorCode.INVALID_MESSAGE, "name")
    assert not (tmp_path / "characters").exists()


async def test_names_are_taken_once(company: Company) -> None:
    """Also by one that is just being added, also in another case, also by the configuration's."""
    names = ("ada", "ada", "ADA", "astronaut")
    added = await asyncio.gather(
        *(company.cast.add(replace(ORDER, name=name)) for name in names), return_exceptions=True
    )
    assert [isinstance(each, InvalidEventError) for each in added] == [False, True, True, True]


async def test_their_number_and_room_are_bounded(tmp_path: Path) -> None:
    """Beyond, nothing is left behind."""
    few = Company(tmp_path / "few", Settings(characters=CharactersSettings(max_uploaded=1)))
    small = Company(tmp_path / "small", room_bytes=300_000)
    try:
        await few.cast.add(ORDER)
        error = await refusal(few, replace(ORDER, name="eve"))
        assert "max_uploaded" in error.message
        await small.cast.add(ORDER)
        more = [replace(ORDER, name=f"n{number}") for number in range(4)]
        results = [await asyncio.gather(small.cast.add(o), return_exceptions=True) for o in more]
        assert isinstance(results[-1][0], InvalidEventError)
        assert "max_uploaded_bytes" in results[-1][0].message
        there = {path.name for path in (tmp_path / "small" / "characters").iterdir()}
        assert there == set(small.cast.book.names) - {"astronaut"}
    finally:
        await few.close()
        await small.close()


async def test_gains_are_of_emotions(company: Company) -> None:
    """An unknown label is named."""
    error = await refusal(company, replace(ORDER, gains={"joyful": 1.0}))
    assert (error.code, error.field) == (ErrorCode.UNKNOWN_EMOTION, "gains")


def bomb() -> bytes:
    """A PNG header that promises 100 000 x 100 000 pixels."""
    data = bytearray(photos.png(np.zeros((4, 4, 3), np.uint8)))
    data[16:24] = (100_000).to_bytes(4, "big") * 2
    return bytes(data)


@pytest.mark.parametrize(
    ("portrait", "what"),
    [
        (b"", "other"),
        (b"<html><body>not a picture</body></html>", "other"),
        (b"GIF89a" + bytes(100), "other"),
        (ORDER.portrait[: len(ORDER.portrait) // 2], "other"),
        (b"MZ" + ORDER.portrait, "other"),
        (bomb(), "too_large"),
        (photos.png(np.full((1, 1, 3), 90, np.uint8)), "no_face"),
        (photos.png(np.full((400, 400, 3), 90, np.uint8)), "no_face"),
        (
            photos.jpeg(np.random.default_rng(1).integers(0, 255, (300, 300, 3)).astype(np.uint8)),
            "no_face",
        ),
        (photos.png(photos.astronaut()[:120]), "no_face"),
        (photos.png(np.hstack([photos.astronaut(), photos.astronaut()])), "no_face"),
    ],
)
async def test_pictures_that_cannot_be_used(
    company: Company, portrait: bytes, what: str, tmp_path: Path
) -> None:
    """Nothing, no picture, half a picture, a bomb, no face: said so, and nothing is kept."""
    with pytest.raises(PortraitError) as refused:
        await company.cast.add(replace(ORDER, portrait=portrait))
    error = refused.value
    assert {"too_large": error.too_large, "no_face": error.no_face}.get(what, True)
    assert error.too_large == (what == "too_large")
    assert company.cast.book.names == ("astronaut",)
    folder = tmp_path / "characters"
    assert not folder.exists() or list(folder.iterdir()) == []


async def test_a_disk_that_cannot_be_written_keeps_everything_as_it_was(tmp_path: Path) -> None:
    """A file lies where the folder should be."""
    (tmp_path / "characters").write_text("in the way")
    company = Company(tmp_path)
    try:
        with pytest.raises(StorageError):
            await company.cast.add(ORDER)
        assert company.cast.book.names == ("astronaut",)
    finally:
        await company.close()


# --- what is found on the disk ------------------------------------------------------------


async def test_what_a_crash_left_behind_is_no_character(company: Company, tmp_path: Path) -> None:
    """It is cleaned up at the start; a folder that is broken is left alone, with a word."""
    await company.cast.add(ORDER)
    folder = tmp_path / "characters"
    (folder / ".new-abc").mkdir()
    (folder / ".old-abc").mkdir()
    for name, content in (("broken", b"{"), ("wrong", b'{"portrait":"../../etc/passwd","x":1}')):
        (folder / name).mkdir()
        (folder / name / "character.json").write_bytes(content)
    with pytest.raises(StorageError, match="in the way"):
        await company.cast.add(replace(ORDER, name="broken"))
    store = CharacterStore(folder, 2**30)
    store.clean_up()
    assert list(store.load(EMOTIONS.labels)) == ["ada"]
    assert {path.name for path in folder.iterdir()} == {"ada", "broken", "wrong"}


async def test_reading_anew_waits_for_who_is_coming(company: Company) -> None:
    """A reload does not lose the character that is just being added."""
    adding = asyncio.create_task(company.cast.add(ORDER))
    await asyncio.sleep(0)

    def read() -> tuple[EmotionTable, CharacterBook]:
        return EMOTIONS, BOOK.with_all(company.store.load(EMOTIONS.labels))

    await asyncio.gather(adding, company.cast.reread(read))
    assert company.cast.book.names == ("astronaut", "ada")


async def test_a_picture_that_comes_again_is_not_looked_at_again() -> None:
    """It is recognised by its bytes, also where it comes twice at the same time."""
    uploads = Uploads(2**20, 40_000_000, remembered=1)
    try:
        portraits = await asyncio.gather(*(uploads.portrait(ORDER.portrait, "p") for _ in "abc"))
        assert portraits[0] is portraits[1] is portraits[2]
        assert uploads.worked_out == 1
    finally:
        await uploads.close(5.0)

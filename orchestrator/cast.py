"""Who can be shown: the characters of the configuration, and those that come and go at run time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from functools import partial
from typing import Final

import structlog
from cachetools import LRUCache

from orchestrator.character_store import CharacterStore
from orchestrator.characters import NAME_PATTERN, Character, CharacterBook
from orchestrator.expression.emotions import EmotionTable
from orchestrator.settings import Settings
from orchestrator.stages import StageSet
from orchestrator.uploads import Uploads
from pipeline.bodies import AddedCharacterBody, CharacterBody
from pipeline.errors import ErrorCode, InvalidEventError, PortraitError
from pipeline.faces import FaceDetector
from pipeline.orders import CharacterOrder
from pipeline.picture import FormatEncoder

log = structlog.get_logger()

THUMBNAIL_PX: Final = (192, 192)
THUMBNAIL_QUALITY: Final = 85
THUMBNAILS_KEPT: Final = 128
# Names of devices on Windows, where a folder of that name cannot be.
_RESERVED: Final = frozenset(
    ("con", "prn", "aux", "nul", *(f"{each}{n}" for each in ("com", "lpt") for n in range(10)))
)


class Cast:
    """The characters of a daemon; implements `orders.CharacterKeeper`.

    Methods belong to the event loop's thread.

    Args:
        settings: limits, and which characters the stages of the settings need.
        store: where those added at run time are kept.
        emotions: what `gains` may name.
        book: everybody.
        stages: who is on stage; they are told of every change.
        uploads: checks portraits.
        detectors: find faces in portraits without landmarks.
        encoder: makes thumbnails.
        files: thread for reading and writing.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        store: CharacterStore,
        emotions: EmotionTable,
        book: CharacterBook,
        stages: StageSet,
        uploads: Uploads,
        encoder: FormatEncoder,
        files: Executor,
        detectors: Sequence[FaceDetector] = (),
    ) -> None:
        self._detectors = detectors
        self._settings = settings
        self._store = store
        self._emotions = emotions
        self._book = book
        self._stages = stages
        self._uploads = uploads
        self._encoder = encoder
        self._files = files
        self._coming: set[str] = set()
        self._changing = asyncio.Lock()
        self._thumbnails: LRUCache[str, bytes] = LRUCache(THUMBNAILS_KEPT)

    @property
    def book(self) -> CharacterBook:
        """Everybody."""
        return self._book

    async def reread(
        self, read: Callable[[], tuple[EmotionTable, CharacterBook]]
    ) -> tuple[EmotionTable, CharacterBook]:
        """Use what is read anew; nobody comes or goes meanwhile.

        Args:
            read: slow; it is called in a thread.
        """
        async with self._changing:
            self._emotions, self._book = await asyncio.to_thread(read)
            self._thumbnails.clear()
            return self._emotions, self._book

    def bodies(self) -> list[CharacterBody]:
        """What GET /v1/characters lists."""
        return [self._body(each) for each in self._book]

    # --- adding and removing --------------------------------------------------------------

    def expect(self, name: str) -> None:
        """Check whether a character of that name could be added now."""
        if not NAME_PATTERN.fullmatch(name) or name.lower() in _RESERVED:
            raise InvalidEventError(
                ErrorCode.INVALID_MESSAGE,
                "a character's name begins with a letter or digit and has 1 to 64 of A-Z, a-z, "
                "0-9, '-' and '_'; names of devices such as con are not possible",
                field="name",
            )
        # As a file system sees it that takes upper and lower case for the same.
        taken = {each.lower() for each in (*self._book.names, *self._coming)}
        if name.lower() in taken:
            problem = f"there is a character {name} already; delete it first, or take another name"
            raise InvalidEventError(ErrorCode.CONFLICT, problem, field="name")
        limit = self._settings.characters.max_uploaded
        if len(self._coming) + sum(each.uploaded for each in self._book) >= limit:
            problem = f"there are {limit} added characters, as many as characters.max_uploaded"
            raise InvalidEventError(ErrorCode.CONFLICT, problem)

    async def add(self, order: CharacterOrder) -> AddedCharacterBody:
        """Add a character for good; see `orders.CharacterKeeper`."""
        self.expect(order.name)
        for label in order.gains:
            self._check_gain(label)
        loop = asyncio.get_running_loop()
        self._coming.add(order.name)
        try:
            loaded = await self._uploads.portrait(order.portrait, "portrait")
            if loaded.rivals:
                problem = "shows several faces of much the same size; crop it to one"
                raise PortraitError("portrait", problem, no_face=True)
            async with self._changing:
                job = partial(self._store.add, order, loaded, self._emotions.labels)
                character = await loop.run_in_executor(self._files, job)
                self._take(self._book.with_one(character))
        finally:
            self._coming.discard(order.name)
        log.info("character_added", character=order.name, warnings=list(loaded.warnings))
        return {**self._body(character), "warnings": list(loaded.warnings)}

    async def remove(self, name: str) -> None:
        """Remove a character that was added; see `orders.CharacterKeeper`."""
        async with self._changing:
            character = self._book.get(name)
            self._check_dispensable(character)
            # Before it is gone from the disk, so that nobody puts it on stage meanwhile.
            self._take(self._book.without(name))
            try:
                loop = asyncio.get_running_loop()
                await loop.run_in_executor(self._files, self._store.remove, name)
            except BaseException:
                self._take(self._book.with_one(character))
                raise
        self._thumbnails.pop(name, None)
        log.info("character_removed", character=name)

    def _check_gain(self, label: str) -> None:
        if label not in self._emotions.labels:
            raise InvalidEventError(
                ErrorCode.UNKNOWN_EMOTION,
                f"gains: expected labels of {', '.join(self._emotions.labels)}, not {label[:64]!r}",
                field="gains",
                suggestions=self._emotions.labels[:5],
            )

    def _check_dispensable(self, character: Character) -> None:
        name, stages = character.name, self._stages.uses(character.name)
        if not character.uploaded:
            problem = f"{name} is of the configuration; only added characters can be deleted"
        elif stages:
            problem = f"{name} is on stage ({', '.join(stages)}); put another one there first"
        elif name in self._needed():
            problem = f"the settings name {name} as a stage's character"
        else:
            return
        raise InvalidEventError(ErrorCode.CONFLICT, problem, field="name")

    def _needed(self) -> set[str | None]:
        """Without these the daemon would not start again."""
        stages = self._settings.stages.values()
        return {self._settings.stage.character, *(each.character for each in stages)}

    def _take(self, book: CharacterBook) -> None:
        self._book = book
        self._stages.replace_characters(book)

    # --- showing --------------------------------------------------------------------------

    async def thumbnail(self, name: str) -> bytes:
        """A small JPEG of a character; see `orders.CharacterKeeper`."""
        character = self._book.get(name)
        thumbnail = self._thumbnails.get(name)
        if thumbnail is None:
            loop = asyncio.get_running_loop()
            loaded = await loop.run_in_executor(self._files, character.load, self._detectors)
            thumbnail = await self._encoder.still(loaded.portrait, THUMBNAIL_PX, THUMBNAIL_QUALITY)
            if name in self._book.names and self._book.get(name) is character:
                self._thumbnails[name] = thumbnail
        return thumbnail

    def _body(self, character: Character) -> CharacterBody:
        on = [stage.name for stage in self._stages if stage.character_name == character.name]
        return {
            "name": character.name,
            "title": character.title,
            "licence": character.licence,
            "thumbnail": f"/v1/characters/{character.name}/thumbnail.jpg",
            "uploaded": character.uploaded,
            "stages": on,
        }

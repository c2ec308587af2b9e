"""Where emotions and characters are read from: the configuration, and the state directory."""

from __future__ import annotations

from pathlib import Path

import structlog

from orchestrator.character_store import CharacterStore
from orchestrator.characters import CharacterBook
from orchestrator.expression.emotions import EmotionTable
from orchestrator.motion import read_motion
from orchestrator.settings import Settings, default_config_dir, state_dir

log = structlog.get_logger()


def emotions_file(settings: Settings, config_file: Path) -> Path:
    """The emotion table that the settings name, else the one beside the settings."""
    if settings.emotions.file:
        return Path(settings.emotions.file).expanduser()
    return _beside(config_file, "emotions.toml")


def characters_dir(settings: Settings, config_file: Path) -> Path:
    """The folder of characters that the settings name, else the one beside the settings."""
    if settings.characters.dir:
        return Path(settings.characters.dir).expanduser()
    return _beside(config_file, "characters")


def _beside(config_file: Path, name: str) -> Path:
    beside = config_file.parent / name
    return beside if beside.exists() else default_config_dir() / name


def load_tables(
    settings: Settings, config_file: Path, store: CharacterStore
) -> tuple[EmotionTable, CharacterBook]:
    """What can be shown, and who.

    Raises:
        ConfigError: a file of the configuration is wrong, or there is no character at all.
    """
    emotions = EmotionTable.load(emotions_file(settings, config_file), motions=read_motion)
    return emotions, everybody(settings, config_file, emotions, store)


def everybody(
    settings: Settings, config_file: Path, emotions: EmotionTable, store: CharacterStore
) -> CharacterBook:
    """The characters of the configuration, and those that were added at run time.

    Raises:
        ConfigError: a file of the configuration is wrong, or there is no character at all.
    """
    book = CharacterBook.load(characters_dir(settings, config_file), emotions.labels)
    added = store.load(emotions.labels)
    for name in book.names:
        if name in added:
            log.warning("uploaded_character_hidden", character=name)
    return book.with_all(added)


def character_store(settings: Settings) -> CharacterStore:
    """Where characters are kept that are added at run time."""
    folder = state_dir(settings) / "characters"
    return CharacterStore(folder, settings.characters.max_uploaded_bytes)

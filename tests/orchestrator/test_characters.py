"""Characters: folders or TOML files, checked before they are shown."""

from pathlib import Path

import pytest

from orchestrator.characters import CharacterBook
from orchestrator.settings import default_config_dir
from pipeline.errors import ConfigError, InvalidEventError

LABELS = ("neutral", "happy")
ASTRONAUT = default_config_dir() / "characters" / "astronaut"


def write(folder: Path, text: str, name: str = "ann.toml") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_folders_and_files_are_characters(tmp_path: Path) -> None:
    """A folder with character.toml and a bare TOML file both count; names come from them."""
    portrait = f'portrait = "{ASTRONAUT}/portrait.jpg"\n'
    write(tmp_path, portrait + "idle_seed = 7\n[gains]\nhappy = 0.5\n", "bob/character.toml")
    write(tmp_path, portrait + 'title = "Ann"\n[rest]\nmouthClose = 0.5\n')
    book = CharacterBook.load(tmp_path, LABELS)
    assert set(book.names) == {"ann", "bob"}
    ann, bob = book.get("ann"), book.get("bob")
    assert (ann.title, bob.title) == ("Ann", "bob")
    assert ann.rest["mouthClose"] == pytest.approx(0.5)
    assert bob.gains == {"happy": 0.5}
    assert bob.idle_seed == 7
    assert ann.idle_seed != CharacterBook.load(tmp_path, LABELS).get("bob").idle_seed


def test_the_bundled_character_loads() -> None:
    """The astronaut comes with landmarks of its own, so nothing has to be warned of."""
    book = CharacterBook.load(default_config_dir() / "characters", (
        "neutral", "happy", "sad", "surprised", "angry", "disgusted", "fearful",
    ))  # fmt: skip
    loaded = book.get("astronaut").load()
    assert loaded.warnings == ()
    assert loaded.portrait.landmarks.source == "file"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "portrait"),
        ('portrait = "no.jpg"', "no file"),
        (f'portrait = "{ASTRONAUT}/portrait.jpg"\nport = 1', "port"),
        (f'portrait = "{ASTRONAUT}/portrait.jpg"\n[gains]\nangry = 1.0', "gains.angry"),
        (f'portrait = "{ASTRONAUT}/portrait.jpg"\n[gains]\nhappy = 9.0', "gains"),
        (f'portrait = "{ASTRONAUT}/portrait.jpg"\n[rest]\nmouthClosed = 1.0', "rest"),
        (f'portrait = "{ASTRONAUT}/portrait.jpg"\n[rest]\nmouthClose = 3.0', "rest"),
        (f'portrait = "{ASTRONAUT}/portrait.jpg"\ncrop = [1, 2]', "crop"),
        (f'portrait = "{ASTRONAUT}/portrait.jpg"\nlandmarks = "x.json"', "landmarks"),
        ("portrait =", "cannot be read"),
    ],
)
def test_a_wrong_file_is_named_with_its_key(tmp_path: Path, text: str, problem: str) -> None:
    """The error says which file and key, and what is wrong there."""
    path = write(tmp_path, text)
    with pytest.raises(ConfigError) as refused:
        CharacterBook.load(tmp_path, LABELS)
    assert str(path) in str(refused.value)
    assert problem in str(refused.value)


def test_a_folder_without_characters_is_refused(tmp_path: Path) -> None:
    """An empty folder, or one name twice, stops the boot."""
    with pytest.raises(ConfigError, match="no <name>"):
        CharacterBook.load(tmp_path, LABELS)
    portrait = f'portrait = "{ASTRONAUT}/portrait.jpg"\n'
    write(tmp_path, portrait)
    write(tmp_path, portrait, "ann/character.toml")
    with pytest.raises(ConfigError, match="two characters"):
        CharacterBook.load(tmp_path, LABELS)


def test_unknown_names_get_suggestions(tmp_path: Path) -> None:
    """The refusal carries the message's id and the nearest names."""
    write(tmp_path, f'portrait = "{ASTRONAUT}/portrait.jpg"\n')
    book = CharacterBook.load(tmp_path, LABELS)
    with pytest.raises(InvalidEventError) as refused:
        book.get("anne", "m1")
    assert refused.value.code == "unknown_character"
    assert refused.value.suggestions == ("ann",)
    assert refused.value.event_id == "m1"

"""The emotion table: what the bundled one holds, what a wrong one says, which names mean what."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.expression.emotions import BASIC_EMOTIONS, Emotion, EmotionTable, shape_of
from orchestrator.expression.idle import IdleAmplitude
from orchestrator.expression.recording import Recording
from pipeline.errors import ConfigError, ErrorCode, InvalidEventError
from pipeline.types import ARKIT_INDEX, FaceControls

BUNDLED = Path(__file__).parents[3] / "config" / "emotions.toml"
TABLE = EmotionTable.load(BUNDLED)

# The authors' own mapping of GoEmotions to Ekman's categories.
GO_EMOTIONS = {
    "angry": "anger annoyance disapproval",
    "disgusted": "disgust",
    "fearful": "fear nervousness",
    "happy": "joy amusement approval excitement gratitude love optimism relief pride admiration "
    "desire caring",
    "sad": "sadness disappointment embarrassment grief remorse",
    "surprised": "surprise realization confusion curiosity",
    "neutral": "neutral",
}
TAG_WORDS = {
    "happy": "happiness enjoyment smirk cheekiness laugh",
    "sad": "cry",
    "surprised": "amazement shock",
    "angry": "mad rage",
    "disgusted": "gross contempt",
    "fearful": "scared",
    "neutral": "calm",
}

MINIMAL = "\n".join(
    f"[{label}]\nmax = 0.8\nattack_ms = 200\nhold_ms = 1000\ndecay_ms = 500"
    for label in BASIC_EMOTIONS
)
EXTRA = "\n[wistful]\nmax = 0.5\nattack_ms = 200\nhold_ms = 1000\ndecay_ms = 500\n"


def load(tmp_path: Path, text: str) -> EmotionTable:
    path = tmp_path / "emotions.toml"
    path.write_text(text, "utf-8")
    return EmotionTable.load(path)


class Face(NamedTuple):
    controls: FaceControls
    explained: float


class Motion:
    """Three frames that open the jaw further and turn the head; the second one is the peak."""

    peak = 1

    def __len__(self) -> int:
        return 3

    def face(self, frame: int) -> Face:
        return Face(FaceControls.of(jawOpen=(0.0, 0.9, 0.4)[frame], yaw=5.0, roll=3.0), 0.75)


def read_motion(path: Path) -> Motion:
    """The one motion file that there is."""
    if path.name == "broken.motion":
        raise ConfigError(str(path), "not a motion file")
    if path.name != "grin.motion":
        raise FileNotFoundError(2, "No such file or directory", str(path))
    return Motion()


def unknown(name: str, field: str = "emotion") -> InvalidEventError:
    with pytest.raises(InvalidEventError) as caught:
        TABLE.resolve(name, field)
    return caught.value


# --- the bundled table ----------------------------------------------------------------------


def test_the_seven_emotions_are_there_neutral_first() -> None:
    """The bundled table has the seven emotions of the protocol, in its order."""
    assert TABLE.labels == BASIC_EMOTIONS


def test_times_are_the_calibrated_ones() -> None:
    """Happy takes 250/2000/600 ms, surprise comes in 150, neutral returns in 600."""
    happy = TABLE["happy"]
    assert (happy.attack_s, happy.hold_s, happy.decay_s) == (0.25, 2.0, 0.6)
    assert TABLE["surprised"].attack_s == 0.15
    assert TABLE["neutral"].attack_s == TABLE["neutral"].decay_s == 0.6
    assert min(TABLE.labels, key=lambda label: TABLE[label].attack_s) == "surprised"


def test_maxima_stay_where_faces_look_real() -> None:
    """Each emotion stops at 0.6 to 0.85; neutral is a full weight."""
    maxima = {label: TABLE[label].maximum for label in TABLE.labels}
    assert maxima.pop("neutral") == 1.0
    assert all(0.6 <= maximum <= 0.85 for maximum in maxima.values())


def test_neutral_is_the_portrait_as_it_is() -> None:
    """Neutral moves nothing."""
    assert not shape_of(TABLE["neutral"].controls).any()


@pytest.mark.parametrize(
    ("label", "signs"),
    [
        ("happy", {"mouthSmileLeft": 0.8, "cheekSquintLeft": 0.5, "eyeSquintRight": 0.1}),
        ("sad", {"browInnerUp": 0.7, "mouthFrownLeft": 0.6, "eyeBlinkLeft": 0.15}),
        ("surprised", {"browOuterUpLeft": 0.7, "eyeWideRight": 0.7, "jawOpen": 0.4}),
        ("angry", {"browDownLeft": 0.9, "eyeSquintLeft": 0.4, "mouthPressRight": 0.5}),
        ("disgusted", {"noseSneerLeft": 0.8, "mouthUpperUpLeft": 0.5, "eyeSquintLeft": 0.4}),
        ("fearful", {"browInnerUp": 0.8, "browDownLeft": 0.2, "mouthStretchLeft": 0.6}),
    ],
)
def test_each_emotion_has_the_action_units_of_its_prototype(
    label: str, signs: dict[str, float]
) -> None:
    """The controls that make an emotion readable are there, strongly enough to see."""
    controls = TABLE[label].controls
    for name, least in signs.items():
        assert controls[name] >= least, name


def test_heads_go_where_the_emotions_go() -> None:
    """Sad and angry heads go down, surprised and disgusted ones back; disgust turns away."""
    pitches = {label: TABLE[label].controls.pitch for label in TABLE.labels}
    assert pitches["sad"] > 0 < pitches["angry"]
    assert pitches["surprised"] < 0 > pitches["disgusted"]
    assert TABLE["disgusted"].controls.yaw != 0.0 != TABLE["sad"].controls.roll


def test_emotions_differ_clearly_from_each_other() -> None:
    """No two faces at weight 1 are near each other in control space."""
    shapes = TABLE.shapes[:, : len(ARKIT_INDEX)]
    for i in range(len(shapes)):
        for j in range(i):
            assert np.linalg.norm(shapes[i] - shapes[j]) > 1.0, (TABLE.labels[i], TABLE.labels[j])


@pytest.mark.parametrize("names", [GO_EMOTIONS, TAG_WORDS], ids=["go_emotions", "tag_words"])
def test_common_names_mean_what_their_users_mean(names: dict[str, str]) -> None:
    """All 28 GoEmotions labels, Ekman's nouns and common tag words are understood."""
    for label, words in names.items():
        for word in words.split():
            assert TABLE.resolve(word) == label


def test_go_emotions_are_complete() -> None:
    """The list above is the whole of GoEmotions."""
    assert sum(len(words.split()) for words in GO_EMOTIONS.values()) == 28


@settings(deadline=None)
@given(st.data())
def test_every_name_resolves_in_any_dress(data: st.DataObject) -> None:
    """Case, surrounding spaces, and '-', '_' or space inside do not matter."""
    label = data.draw(st.sampled_from(TABLE.labels))
    name = data.draw(st.sampled_from((label, *TABLE[label].aliases)))
    dressed = "".join(c.upper() if data.draw(st.booleans()) else c for c in name)
    for space in " _-":
        assert TABLE.resolve(f"  {dressed.replace(' ', space)}\n") == label


# --- unknown names --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("typo", "meant"),
    [("hapy", "happy"), ("surprized", "surprised"), ("angryy", "angry"), ("sadnes", "sad"),
     ("disgussed", "disgusted"), ("amazment", "surprised"), ("Fearfull", "fearful")],
)  # fmt: skip
def test_a_typo_is_told_what_was_meant(typo: str, meant: str) -> None:
    """The nearest label comes first, found through the aliases too."""
    error = unknown(typo)
    assert error.code is ErrorCode.UNKNOWN_EMOTION
    assert error.suggestions[0] == meant
    assert meant in str(error)


def test_the_error_names_the_field() -> None:
    """The field that the name stood in goes into the error."""
    assert unknown("x").field == "emotion"
    assert unknown("x", "mix").field == "mix"


@settings(deadline=None)
@given(st.text(max_size=200))
def test_any_text_resolves_or_gets_suggestions_that_can_be_sent(name: str) -> None:
    """Whatever is sent: a label, or an error with three to five different sendable names."""
    error = None
    try:
        label = TABLE.resolve(name)
    except InvalidEventError as refused:
        error = refused
    if error is None:
        assert label in TABLE.labels
        return
    assert 3 <= len(set(error.suggestions)) == len(error.suggestions) <= 5
    assert all(TABLE.resolve(each) in TABLE.labels for each in error.suggestions)
    assert len(str(error)) < 800


def test_a_huge_name_is_refused_like_any_other() -> None:
    """A name of 60 000 characters costs no more than a long one."""
    assert unknown("happy" * 12_000).suggestions


# --- tables by hand -------------------------------------------------------------------------


def test_what_is_left_out_has_its_default(tmp_path: Path) -> None:
    """Aliases, head, idle and controls may be absent; times are in seconds then."""
    happy = load(tmp_path, MINIMAL)["happy"]
    assert (happy.aliases, happy.maximum, happy.attack_s) == ((), 0.8, 0.2)
    assert happy.idle == IdleAmplitude(1.0, 1.0, 1.0)
    assert not shape_of(happy.controls).any()


def test_users_may_add_emotions_in_any_order(tmp_path: Path) -> None:
    """A further emotion can be named like the seven, and neutral stays first."""
    table = load(
        tmp_path,
        EXTRA.lstrip() + "aliases = ['far away']\nhead = { yaw = 9 }\nidle = { gaze = 2 }\n"
        "[wistful.controls]\nbrowInnerUp = 0.5\n" + MINIMAL,
    )
    assert table.labels == ("neutral", "wistful", *BASIC_EMOTIONS[1:])
    assert table.resolve("FAR-AWAY") == "wistful"
    assert table["wistful"].idle == IdleAmplitude(gaze=2.0)
    row = table.shapes[table.rows["wistful"]]
    assert row[ARKIT_INDEX["browInnerUp"]] == 0.5
    assert row[52:].tolist() == [0.0, 9.0, 0.0]
    assert table.idle[table.rows["wistful"]].tolist() == [2.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("text", "key", "problem"),
    [
        (MINIMAL.replace("[sad]", "[glum]"), "sad", "must exist"),
        (MINIMAL + EXTRA + "colour = 1", "wistful.colour", "no such key"),
        (MINIMAL + EXTRA + "atack_ms = 1", "wistful.atack_ms", "did you mean attack_ms"),
        (MINIMAL.replace("max = 0.8", "", 1), "neutral.max", "is missing"),
        (MINIMAL.replace("max = 0.8", "max = 0", 1), "neutral.max", "above 0"),
        (MINIMAL.replace("max = 0.8", "max = 1.2", 1), "neutral.max", "in [0, 1]"),
        (MINIMAL.replace("max = 0.8", "max = nan", 1), "neutral.max", "in [0, 1]"),
        (MINIMAL.replace("max = 0.8", "max = true", 1), "neutral.max", "expected a number"),
        (MINIMAL.replace("max = 0.8", "max = '1'", 1), "neutral.max", "expected a number"),
        (MINIMAL.replace("= 200", "= -1", 1), "neutral.attack_ms", "in [0, 60000]"),
        (MINIMAL.replace("= 500", "= 60001", 1), "neutral.decay_ms", "in [0, 60000]"),
        (MINIMAL.replace("= 1000", "= inf", 1), "neutral.hold_ms", "in [0, 3600000]"),
        (MINIMAL + EXTRA + "controls = { mouthSmile = 1 }", "wistful.controls.mouthSmile",
         "did you mean mouthSmile"),
        (MINIMAL + EXTRA + "controls = { jawOpen = 1.5 }", "wistful.controls.jawOpen", "[0, 1]"),
        (MINIMAL + EXTRA + "controls = { jawOpen = -0.1 }", "wistful.controls.jawOpen", "[0, 1]"),
        (MINIMAL + EXTRA + "controls = 3", "wistful.controls", "expected a table"),
        (MINIMAL + EXTRA + "head = { pitch = 46 }", "wistful.head.pitch", "[-45, 45]"),
        (MINIMAL + EXTRA + "head = { nod = 1 }", "wistful.head.nod", "no such key"),
        (MINIMAL + EXTRA + "idle = { sway = -1 }", "wistful.idle.sway", "[0, 4]"),
        (MINIMAL + EXTRA + "idle = { blinks = 1 }", "wistful.idle.blinks", "no such key"),
        (MINIMAL + EXTRA + "aliases = 'a'", "wistful.aliases", "expected a list"),
        (MINIMAL + EXTRA + "aliases = ['a', 3]", "wistful.aliases[1]", "1 to 64 characters"),
        (MINIMAL + EXTRA + "aliases = [' - ']", "wistful.aliases[0]", "1 to 64 characters"),
        (MINIMAL + EXTRA + "aliases = ['a b', 'A_B']", "wistful.aliases[1]", "there twice"),
        (MINIMAL + EXTRA + "aliases = ['Happy']", "wistful.aliases", "already means 'happy'"),
        (MINIMAL + EXTRA + "aliases = ['wistful']", "wistful.aliases", "already means"),
        (MINIMAL + EXTRA + "aliases = ['x']" + EXTRA.replace("wistful", "odd") + "aliases = ['X']",
         "odd.aliases", "already means 'wistful'"),
        (MINIMAL + EXTRA.replace("wistful", "Wistful"), "Wistful", "lower-case"),
        (MINIMAL + EXTRA.replace("wistful", "far__off"), "far__off", "single '_'"),
        (MINIMAL + EXTRA.replace("wistful", "a" * 33), "a" * 33, "at most 32"),
        (MINIMAL.replace("max = 0.8", "max = 1" + "0" * 400, 1), "neutral.max", "in [0, 1]"),
        ("sad = 3\n" + MINIMAL.replace("[sad]", "[glum]"), "sad", "expected a table"),
    ],
)  # fmt: skip
def test_a_wrong_table_is_refused_with_the_full_path_of_the_key(
    tmp_path: Path, text: str, key: str, problem: str
) -> None:
    """Every mistake names the file, the whole key and what would be right."""
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    assert caught.value.where == f"{tmp_path / 'emotions.toml'}: {key}"
    assert problem in caught.value.problem


# --- faces from recorded motion -------------------------------------------------------------


def with_motion(tmp_path: Path, text: str) -> EmotionTable:
    path = tmp_path / "emotions.toml"
    path.write_text(MINIMAL + EXTRA + text, "utf-8")
    return EmotionTable.load(path, motions=read_motion)


@pytest.mark.parametrize(
    ("text", "frame", "jaw", "head"),
    [
        ("motion = 'grin.motion'", 1, 0.9, [0.0, 5.0, 3.0]),
        ("motion = 'grin.motion'\nmotion_frame = 'peak'", 1, 0.9, [0.0, 5.0, 3.0]),
        ("motion = 'grin.motion'\nmotion_frame = 2", 2, 0.4, [0.0, 5.0, 3.0]),
        ("motion = 'grin.motion'\nhead = { pitch = -2 }", 1, 0.9, [-2.0, 0.0, 0.0]),
    ],
)
def test_an_emotion_takes_its_face_from_a_recorded_motion(
    tmp_path: Path, text: str, frame: int, jaw: float, head: list[float]
) -> None:
    """The peak's face or a frame's, relative to the table's folder; `head` replaces its head."""
    table = with_motion(tmp_path, text)
    row = table.shapes[table.rows["wistful"]]
    assert row[ARKIT_INDEX["jawOpen"]] == pytest.approx(jaw)
    assert row[52:].tolist() == head
    assert table["wistful"].recording == Recording(tmp_path / "grin.motion", frame, 0.75)
    assert table["happy"].recording is None


@pytest.mark.parametrize(
    ("text", "key", "problem"),
    [
        ("motion = 3", "motion", "expected the name of a motion file"),
        ("motion = ''", "motion", "expected the name of a motion file"),
        ('motion = "a\\u0000b"', "motion", "expected the name of a motion file"),
        ("motion = 'none.motion'", "motion", "none.motion: cannot be read: No such file"),
        ("motion = 'broken.motion'", "motion", "broken.motion: not a motion file"),
        ("motion = 'grin.motion'\nmotion_frame = 3", "motion_frame",
         "grin.motion from 0 to 2, got 3"),
        ("motion = 'grin.motion'\nmotion_frame = -1", "motion_frame", "from 0 to 2, got -1"),
        ("motion = 'grin.motion'\nmotion_frame = 1.0", "motion_frame", "'peak' or a frame"),
        ("motion = 'grin.motion'\nmotion_frame = true", "motion_frame", "'peak' or a frame"),
        ("motion = 'grin.motion'\nmotion_frame = 'end'", "motion_frame", "'peak' or a frame"),
        ("motion_frame = 1", "motion_frame", "no motion"),
        ("motion = 'grin.motion'\ncontrols = { jawOpen = 1 }", "controls", "leave one of them"),
    ],
)  # fmt: skip
def test_a_wrong_motion_is_refused_by_key_and_file(
    tmp_path: Path, text: str, key: str, problem: str
) -> None:
    """Missing, no motion file, no such frame, or a face twice."""
    with pytest.raises(ConfigError) as caught:
        with_motion(tmp_path, text)
    assert caught.value.where == f"{tmp_path / 'emotions.toml'}: wistful.{key}"
    assert problem in caught.value.problem


def test_a_motion_needs_someone_who_reads_it(tmp_path: Path) -> None:
    """The core reads no motion files by itself."""
    with pytest.raises(ConfigError, match=r"wistful\.motion: recorded motions cannot be read"):
        load(tmp_path, MINIMAL + EXTRA + "motion = 'grin.motion'")


@pytest.mark.parametrize("content", [b"[happy", b"\xff\xfe", None], ids=["toml", "utf8", "absent"])
def test_an_unreadable_file_is_refused_by_name(tmp_path: Path, content: bytes | None) -> None:
    """What is no TOML, no UTF-8 or not there is named."""
    path = tmp_path / "emotions.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match="cannot be read") as caught:
        EmotionTable.load(path)
    assert caught.value.where == str(path)


def test_the_table_cannot_be_changed() -> None:
    """Its arrays are read-only."""
    for array in (TABLE.shapes, TABLE.idle):
        with pytest.raises(ValueError, match="read-only"):
            array[0, 0] = 1.0


def test_a_table_can_be_made_without_a_file() -> None:
    """Emotions made in code form a table like those of a file."""
    smile = FaceControls.of(mouthSmileLeft=1.0)
    table = EmotionTable(Emotion(e, (), 1.0, 0.1, 0.2, 0.3, smile) for e in BASIC_EMOTIONS)
    assert table.shapes.shape == (7, 55)
    assert table.shapes[3, ARKIT_INDEX["mouthSmileLeft"]] == 1.0


# --- names as they are being written ----------------------------------------------------------


def test_every_beginning_of_a_name_may_become_one() -> None:
    """Letter by letter, in any case and with any separator; anything else may not."""
    for label in TABLE.labels:
        for name in (label, *TABLE[label].aliases):
            assert TABLE.knows(name.upper())
            assert all(TABLE.begins_name(name[:end].upper()) for end in range(len(name) + 1))
    for name in ("citation", "1", "happyy", "q"):
        assert not TABLE.knows(name)
        assert not TABLE.begins_name(name)
    assert not TABLE.knows("")
    assert not TABLE.knows("hap")

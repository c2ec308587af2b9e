"""Emotion tags in streamed text: the dialects, what is no tag, and where deltas are cut."""

from __future__ import annotations

import random
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from orchestrator.expression.emotions import EmotionTable
from orchestrator.expression.tags import (
    IDLE_S,
    MAX_HELD,
    QUIET_S,
    TEXTS,
    TEXTS_PER_SOURCE,
    OpenTexts,
    Tag,
    TagReader,
)
from pipeline.errors import ErrorCode, InvalidEventError

TABLE = EmotionTable.load(Path(__file__).parents[3] / "config" / "emotions.toml")

PIECES = [
    "[", "]", "<", ">", "|>", "(", ":", "/>", "\n", " ", "a", "é", "😀", "[happy]", "[ Joy : .5]",
    "[sad:0.25]", "[hap", "py]", "[1]", "[citation]", "[unknown:0.5]", "[happy](url)", "<b>",
    '<emotion name="angry"/>', "<EMOTION intensity='0.3'  name=sad />", "<emotion ", 'name="happy"',
    '<|ACT {"emotion":{"name":"happy","intensity":0.7}}|>', "<|ACT", '{"emotion":', "<|DELAY:1|>",
]  # fmt: skip
texts = st.lists(st.sampled_from(PIECES) | st.text(max_size=3), max_size=14).map("".join)


def read(*deltas: str) -> tuple[str, list[tuple[str, float, int]]]:
    """The whole clean text, and the tags with where they stood in it."""
    reader = TagReader()
    clean, tags = "", []
    for number, delta in enumerate(deltas):
        more, found = reader.read(delta, TABLE, final=number == len(deltas) - 1)
        tags += [(tag.name, tag.intensity, len(clean) + tag.at) for tag in found]
        clean += more
    assert reader.held == ""
    return clean, tags


@pytest.mark.parametrize(
    ("text", "name", "intensity"),
    [
        ("[happy]", "happy", 1.0),
        ("[HAPPY]", "HAPPY", 1.0),
        ("[happy:0.7]", "happy", 0.7),
        ("[ joy : .5 ]", "joy", 0.5),
        ("[sad:-1]", "sad", -1.0),
        ("[happy:7]", "happy", 7.0),
        ('<emotion name="happy" intensity="0.7"/>', "happy", 0.7),
        ("<emotion intensity='0.7' name='happy'/>", "happy", 0.7),
        ("<Emotion  name = happy   intensity = 0.7 />", "happy", 0.7),
        ('<emotion name="grief"/>', "grief", 1.0),
        ('<emotion\n  name="grief"\n/>', "grief", 1.0),
        ('<|ACT {"emotion":{"name":"happy","intensity":0.7}}|>', "happy", 0.7),
        ('<|ACT{ "motion": ["wave"], "emotion": {"name": "joy"} } |>', "joy", 1.0),
        ('<|ACT {"emotion":{"intensity":1,"name":"Sad"}}|>', "Sad", 1.0),
    ],
)
def test_every_dialect_is_understood(text: str, name: str, intensity: float) -> None:
    """Each is taken out of the text around it, whose white space stays."""
    assert read(f"Well, {text} hello.") == ("Well,  hello.", [(name, intensity, 6)])
    assert read(text) == ("", [(name, intensity, 0)])


@pytest.mark.parametrize(
    "text",
    [
        "", "plain", "[1]", "[citation]", "[unknown:0.5]", "[text](url)", "[happy](https://a.b)",
        "![happy](a.png)", "[happy", "happy]", "[]", "[:0.5]", "[happy:]", "[happy:x]", "[sad:.5.]",
        "[happy\n]", "a[0] < b[1] > c", "<b>bold</b>", "<", "<|", "<|ACT", "<|DELAY:1|>",
        "<emotion/>",
        '<emotion name="unknown"/>', '<emotion intensity="0.5"/>', '<emotion name="happy">',
        '<emotion name="happy" name="sad"/>', '<emotion name="happy" size="2"/>',
        '<emotion name="happy" intensity="much"/>', '<emotional name="happy"/>',
        "<|ACT {}|>", '<|ACT {"emotion":"happy"}|>', '<|ACT {"emotion":{"name":7}}|>',
        '<|ACT {"emotion":{"name":"happy","intensity":"1"}}|>', "<|ACT {oops|>",
        '<|ACT {"emotion":{"name":"happy","intensity":NaN}}|>',
        '<|ACT {"emotion":{"name":"happy","intensity":true}}|>',
        '<|act {"emotion":{"name":"sad"}}|>',
        '<|ACT {"emotion":{"name":"\\ud800"}}|>', "<|ACT {" + "[" * 200 + "|>",
    ],
)  # fmt: skip
def test_what_is_no_tag_stays_as_it_is(text: str) -> None:
    """Unknown names, links, HTML, code and broken tags are text, however they are cut."""
    for whole in (text, f"before {text} after"):
        assert read(whole) == (whole, [])
        assert read(*whole, "") == (whole, [])


def test_tags_next_to_each_other_keep_their_order() -> None:
    """Several in one delta come out in the order of the text, each at its place."""
    clean, tags = read('[sad]a[happy:0.5]<emotion name="angry"/>b<[joy]>')
    assert clean == "ab<>"
    assert tags == [("sad", 1.0, 0), ("happy", 0.5, 1), ("angry", 1.0, 1), ("joy", 1.0, 3)]


# --- deltas ---------------------------------------------------------------------------------


@given(texts, st.randoms(use_true_random=False))
@example("[happy](", random.Random(1))
@settings(deadline=None, max_examples=300)
def test_how_a_text_is_cut_makes_no_difference(text: str, chance: random.Random) -> None:
    """Any deltas give the clean text and the tags of the whole."""
    whole = read(text)
    assert read(*text, "") == whole
    cuts = sorted(chance.randint(0, len(text)) for _ in range(chance.randint(0, 6)))
    assert read(*(text[a:b] for a, b in pairwise([0, *cuts, len(text)]))) == whole


@given(st.text(st.characters(codec="utf-8", exclude_characters="[<"), max_size=50))
def test_a_text_without_openers_goes_straight_through(text: str) -> None:
    """Nothing of it is changed, and nothing held back."""
    reader = TagReader()
    assert reader.read(text, TABLE) == (text, [])
    assert reader.held == ""


@given(texts)
@settings(deadline=None)
def test_what_is_held_back_is_short(text: str) -> None:
    """Never more than a tag's length, whatever comes."""
    reader = TagReader()
    for character in text:
        reader.read(character, TABLE)
        assert len(reader.held) <= MAX_HELD


@pytest.mark.parametrize(
    ("text", "held"),
    [
        ("I am [hap", "[hap"),
        ("I am [happy", "[happy"),
        ("I am [happy]", "[happy]"),
        ("I am [happy:0", "[happy:0"),
        ("see [citatio", ""),
        ("see [q", ""),
        ("a <", "<"),
        ("a < ", ""),
        ("<em", "<em"),
        ("<emphasis", ""),
        ("<emotion of", ""),
        ('<emotion name="ha', '<emotion name="ha'),
        ("<|A", "<|A"),
        ('<|ACT {"emo', '<|ACT {"emo'),
        ("<|DEL", ""),
    ],
)
def test_only_what_may_become_a_tag_is_held_back(text: str, held: str) -> None:
    """The beginning of a known name waits; anything else flows on at once."""
    reader = TagReader()
    clean, tags = reader.read(text, TABLE)
    assert (clean + held, tags, reader.held) == (text, [], held)
    assert reader.read("", TABLE, final=True)[0] == (held if held != "[happy]" else "")


@pytest.mark.parametrize(
    "opening", ["[", "[happy ", "<", "<emotion ", '<emotion name="', "<|ACT {", "[happy:0"]
)
def test_a_tag_that_never_ends_flows_on(opening: str) -> None:
    """A long text after an opening comes out, but for a bounded end of it."""
    for filler in ("a", " ", "0", "x y "):
        reader, text = TagReader(), opening + filler * 2000
        clean = reader.read(text, TABLE)[0]
        assert clean == text
        assert reader.held == ""


@given(texts, st.randoms(use_true_random=False))
@example("a😀[happy]😀b", random.Random(0))
def test_a_text_may_be_cut_within_a_surrogate_pair(text: str, chance: random.Random) -> None:
    """As JavaScript counts, in units of UTF-16: halves that follow each other are one again."""
    units = text.encode("utf-16-le")
    cuts = sorted(2 * chance.randint(0, len(units) // 2) for _ in range(chance.randint(0, 8)))
    deltas = [
        units[begin:end].decode("utf-16-le", "surrogatepass")
        for begin, end in pairwise([0, *cuts, len(units)])
    ]
    assert read(*deltas) == read(text)


@pytest.mark.parametrize(
    ("deltas", "clean"),
    [
        (["a\ud83d", "b"], "a\ufffdb"),
        (["\ude00"], "\ufffd"),
        (["a\ud83d"], "a\ufffd"),
        (["\ud83d", "\ud83d", "\ude00"], "\ufffd😀"),
    ],
)
def test_a_lone_half_can_be_sent_back(deltas: list[str], clean: str) -> None:
    """As the replacement character, for alone it has no UTF-8."""
    assert read(*deltas) == (clean, [])


def test_a_bracket_at_the_end_waits_for_what_follows() -> None:
    """`[happy]` is a tag unless `(` makes it a link."""
    reader = TagReader()
    assert reader.read("[happy]", TABLE) == ("", [])
    assert reader.read(" you", TABLE) == (" you", [Tag("happy", 1.0, 0)])
    assert reader.read("[happy]", TABLE) == ("", [])
    assert reader.read("(url)", TABLE) == ("[happy](url)", [])


def test_a_bracket_that_nothing_follows_is_a_tag_after_a_while() -> None:
    """The face does not wait for the rest of the sentence; what comes then is text."""
    texts = OpenTexts()
    assert texts.read("a", "1", "I am [happy:0.5]", TABLE, 10.0, final=False) == ("I am ", [])
    assert texts.decides_s == pytest.approx(10.0 + QUIET_S)
    assert texts.decide(10.0 + 0.9 * QUIET_S) == []
    assert texts.decide(10.0 + QUIET_S) == [("a", "1", Tag("happy", 0.5, 0))]
    assert texts.decide(99.0) == []
    assert (len(texts), texts.decides_s) == (0, None)
    assert texts.read("a", "1", "(well)", TABLE, 11.0, final=False) == ("(well)", [])


@pytest.mark.parametrize("held", ["[hap", "[unknown", "<emotion name", '<|ACT {"emotion"', "["])
def test_what_is_no_whole_bracket_goes_on_waiting(held: str) -> None:
    """Quiet alone makes no tag of a part of one."""
    texts = OpenTexts()
    texts.read("a", "1", held, TABLE, 0.0, final=False)
    assert texts.decides_s is None
    assert texts.decide(30.0) == []


def test_a_bracket_that_goes_on_in_time_is_decided_by_what_follows() -> None:
    """A link stays a link, a tag is not counted twice."""
    texts = OpenTexts()
    texts.read("a", "1", "[happy]", TABLE, 0.0, final=False)
    assert texts.read("a", "1", "(url)", TABLE, 0.1, final=False) == ("[happy](url)", [])
    assert texts.decides_s is None
    texts.read("a", "1", "[happy]", TABLE, 1.0, final=False)
    assert texts.read("a", "1", "", TABLE, 1.2, final=True)[1] == [Tag("happy", 1.0, 0)]
    assert texts.decide(9.0) == []


# --- many texts -----------------------------------------------------------------------------


def test_texts_are_kept_apart_by_producer_and_id() -> None:
    """Interleaved deltas do not mix; a text with nothing held back takes no room."""
    open_texts = OpenTexts()

    def take(source: str, text_id: str, delta: str) -> tuple[str, int]:
        clean, tags = open_texts.read(source, text_id, delta, TABLE, 0.0, final=False)
        return clean, len(tags)

    assert take("a", "1", "[ha") == ("", 0)
    assert take("a", "2", "[sa") == ("", 0)
    assert take("b", "1", "ppy] ") == ("ppy] ", 0)
    assert len(open_texts) == 2
    assert take("a", "2", "d] ") == (" ", 1)
    assert take("a", "1", "ppy] ") == (" ", 1)
    assert len(open_texts) == 0


def test_an_idle_text_is_forgotten() -> None:
    """What was held back of it goes; the id begins anew."""
    open_texts = OpenTexts()
    open_texts.read("a", "1", "[hap", TABLE, 0.0, final=False)
    open_texts.read("a", "2", "[hap", TABLE, IDLE_S, final=False)
    assert len(open_texts) == 2
    clean, tags = open_texts.read("a", "1", "py] ", TABLE, IDLE_S + 1.0, final=False)
    assert (clean, tags, len(open_texts)) == ("py] ", [], 1)


def test_the_number_of_texts_is_bounded() -> None:
    """A producer beyond its share is refused, and so is everyone when all places are taken."""
    open_texts = OpenTexts()

    def take(source: int, number: int) -> None:
        open_texts.read(source, str(number), "[hap", TABLE, 0.0, final=False)

    for source in range(TEXTS // TEXTS_PER_SOURCE):
        for number in range(TEXTS_PER_SOURCE):
            take(source, number)
            take(source, number)
        with pytest.raises(InvalidEventError) as caught:
            take(source, 99)
        assert caught.value.code is ErrorCode.RATE_LIMITED
    with pytest.raises(InvalidEventError):
        take(-1, 0)
    assert len(open_texts) == TEXTS
    assert open_texts.read(-1, "0", "plain", TABLE, 0.0, final=False) == ("plain", [])

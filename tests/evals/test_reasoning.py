import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals.reasoning import is_unfinished, opened_tag, parse_tags, split_reasoning, without_reasoning

TAGS = parse_tags(["<think> </think>", "[R] [/R]"])
PIECES = st.lists(st.sampled_from(["<think>", "</think>", "[R]", "[/R]", "a", " b ", "\n", "<thi"]), max_size=12)


@pytest.mark.parametrize(
    ("reply", "reasoning", "answer"),
    [
        ("Paris.", "", "Paris."),
        ("<think>The capital.</think>\n\nParis.", "The capital.", "Paris."),
        ("<think></think>Paris.", "", "Paris."),
        ("<think>The capital of", "The capital of", ""),
        ("The capital.</think> Paris.", "The capital.", "Paris."),
        ("Well. <think>hm</think> Paris.", "hm", "Well.\nParis."),
        ("<think>a</think>b<think>c</think>d", "a\nc", "b\nd"),
        ("Paris. <think>or not", "or not", "Paris."),
        ("<think>a [R] b [/R] c</think>d", "a [R] b [/R] c", "d"),
        ("[R]a[/R] b", "a", "b"),
        ("", "", ""),
    ],
)
def test_reasoning_is_split_from_the_answer(reply: str, reasoning: str, answer: str) -> None:
    assert split_reasoning(reply, TAGS) == (reasoning, answer)


def test_without_tags_the_whole_reply_is_the_answer() -> None:
    assert split_reasoning(" <think>a</think> b ", ()) == ("", "<think>a</think> b")


def test_a_reply_without_a_tag_is_not_taken_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each reply of a run is split four times, and few hold a tag."""

    def taken_apart(*_: object) -> None:
        raise AssertionError("taken apart")

    monkeypatch.setattr("evals.reasoning.re.finditer", taken_apart)
    assert split_reasoning(" The capital is <b>Paris</b>.\n", TAGS) == ("", "The capital is <b>Paris</b>.")
    assert not is_unfinished("", TAGS)
    with pytest.raises(AssertionError, match="taken apart"):
        split_reasoning("<think>hm", TAGS)


@given(PIECES.map("".join))
def test_the_answer_holds_no_tag_and_no_text_is_lost(reply: str) -> None:
    reasoning, answer = split_reasoning(reply, TAGS)
    assert not any(tag in answer for pair in TAGS for tag in pair)
    assert split_reasoning(answer, TAGS) == ("", answer)
    letters = "".join(c for c in reply if c in "ab")
    assert sorted(letters) == sorted(c for c in reasoning + answer if c in "ab")


@pytest.mark.parametrize(
    ("reply", "unfinished"),
    [
        ("<think>I wonder", True),
        ("<think>", True),
        ("<think>I know</think>", False),
        ("Yes. <think>I wonder", False),
        ("", False),
    ],
)
def test_only_a_reply_of_cut_off_reasoning_is_unfinished(reply: str, unfinished: bool) -> None:
    assert is_unfinished(reply, TAGS) is unfinished


@pytest.mark.parametrize(
    "pairs",
    [["<think>"], ["<t> </t> x"], ["<t> <t>"], [""], ["<a> </a>", "<a> </b>"], ["<a> </a>", "<b> </a>"]],
)
def test_malformed_tags_are_refused(pairs: list[str]) -> None:
    with pytest.raises(ValueError, match="reasoning tag"):
        parse_tags(pairs)


@pytest.mark.parametrize(
    ("prompt", "tag"),
    [
        ("<user>hi<assistant><think>\n", TAGS[0]),
        ("<assistant>[R]", TAGS[1]),
        ("<assistant><think>\n\n</think>\n\n", None),
        ("what is <think>?<assistant>", None),
        ("", None),
    ],
)
def test_a_prompt_that_ends_in_an_opening_tag_is_known_by_it(prompt: str, tag: tuple[str, str] | None) -> None:
    assert opened_tag(prompt, TAGS) == tag


@pytest.mark.parametrize("tag", TAGS)
def test_an_answer_after_empty_reasoning_is_an_answer(tag: tuple[str, str]) -> None:
    reply = tag[0] + without_reasoning("It is red.", tag)
    assert split_reasoning(reply, TAGS) == ("", "It is red.")
    assert not is_unfinished(reply, TAGS)

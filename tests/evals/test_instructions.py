"""Each of IFEval's 25 instructions: a reply that just follows it, and one that just does not."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evals.instructions import AT_LEAST, INSTRUCTIONS, LESS, fault, follows
from evals.language import LanguageError, detect_language, sentences, words_and_marks

ENGLISH = "the weather is nice today and we are going to the beach with all of our friends"
GERMAN = "Das Wetter ist heute schön, und wir gehen mit unseren Freunden an den Strand."

# instruction: arguments, replies that follow, replies that do not
CASES: dict[str, tuple[dict[str, Any], list[str], list[str]]] = {
    "keywords:existence": ({"keywords": ["sun", "Moon"]}, ["The SUNny moon"], ["The sun", "no such words"]),
    "keywords:frequency": (
        {"keyword": "sun", "frequency": 2, "relation": AT_LEAST},
        ["sun and Sunday"],
        ["one sun"],
    ),
    "keywords:forbidden_words": ({"forbidden_words": ["sun"]}, ["Sunday"], ["the sun.", "SUN"]),
    "keywords:letter_frequency": (
        {"letter": "Z", "let_frequency": 2, "let_relation": LESS},
        ["a zoo", "none"],
        ["Zz"],
    ),
    "language:response_language": ({"language": "de"}, [GERMAN, "12345"], [ENGLISH]),
    "length_constraints:number_sentences": (
        {"num_sentences": 2, "relation": AT_LEAST},
        ["One. Two.", "Is it? Yes!"],
        ["One", "Dr. Who said so"],
    ),
    "length_constraints:number_paragraphs": (
        {"num_paragraphs": 2},
        ["a\n***\nb", "***\na\n***\nb\n***"],
        ["a\n\nb", "a *** *** b", "a\n***\nb\n***\nc"],
    ),
    "length_constraints:number_words": (
        {"num_words": 3, "relation": AT_LEAST},
        ["one two three", "it's two"],
        ["one, two"],
    ),
    "length_constraints:nth_paragraph_first_word": (
        {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "then"},
        ["a\n\nThen, b", 'a\n\n"Then" b', "a\n\nthen's"],
        ["a\n\nAnd then", "Then\n\nb", "a\n\nthen\n\nc", "a\n\nthence"],
    ),
    "detectable_content:number_placeholders": (
        {"num_placeholders": 2},
        ["[name] at [place]", "[][]"],
        ["[name]", "[na\nme] [a]"],
    ),
    "detectable_content:postscript": (
        {"postscript_marker": "P.P.S"},
        ["Bye.\nP.P.S. More", "p. p. s more"],
        ["Bye.\nP.S. More"],
    ),
    "detectable_format:number_bullet_lists": (
        {"num_bullets": 2},
        ["* a\n* b", "- a\n  - b", "* a\n-b", "*\na\n* b", "*\n- b", "*\n* a\n* b"],
        ["* a", "* a\n* b\n* c", "**a**\n* b", "*\n* b", "* a\n*"],
    ),
    "detectable_format:constrained_response": ({}, ["My answer is yes.", "Well: My answer is maybe."], ["Yes."]),
    "detectable_format:number_highlighted_sections": (
        {"num_highlights": 2},
        ["*a* and *b*", "**a** and *b*"],
        ["*a*", "* * and *a*", "*a\nb*"],
    ),
    "detectable_format:multiple_sections": (
        {"section_spliter": "Section", "num_sections": 2},
        ["Section 1\na\nSection 2\nb"],
        ["Section 1\na", "Section a\nSection b"],
    ),
    "detectable_format:json_format": ({}, ['{"a": 1}', '```json\n{"a": 1}\n```', "[1]"], ["{'a': 1}", "Here: {}"]),
    "detectable_format:title": ({}, ["<<A title>>\ntext"], ["<A title>", "<<>>", "<< >>", "<<a\nb>>"]),
    "combination:two_responses": (
        {},
        ["a\n******\nb", "a****** b ******"],
        ["a", "a ****** a", "a******b******c", "******a"],
    ),
    "combination:repeat_prompt": ({"prompt_to_repeat": "Say Hello. "}, ["say hello. Hello!"], ["Hello! Say hello."]),
    "startend:end_checker": (
        {"end_phrase": "The End. "},
        ["And so. the end.", '"It is the end."'],
        ["The end. Or not"],
    ),
    "startend:quotation": ({}, ['"all of it"', ' "a" and "b" \n'], ['"', "'a'", '"a', "“a”"]),
    "change_case:capital_word_frequency": (
        {"capital_frequency": 2, "capital_relation": AT_LEAST},
        ["I like NASA"],
        ["I like it", "Nasa, Esa"],
    ),
    "change_case:english_capital": ({}, [ENGLISH.upper()], [ENGLISH, GERMAN.upper(), "12"]),
    "change_case:english_lowercase": ({}, [ENGLISH], [ENGLISH.upper(), GERMAN.lower(), ENGLISH.capitalize()]),
    "punctuation:no_comma": ({}, ["a; b"], ["a, b"]),
}


def test_all_25_instructions_have_cases() -> None:
    assert len(INSTRUCTIONS) == 25
    assert set(CASES) == set(INSTRUCTIONS)


@pytest.mark.parametrize("name", CASES)
def test_an_instruction_is_followed_by_these_replies_and_not_by_those(name: str) -> None:
    arguments, yes, no = CASES[name]
    assert fault(name, arguments) is None
    assert [reply for reply in yes if not follows(name, arguments, reply)] == []
    assert [reply for reply in no if follows(name, arguments, reply)] == []
    assert not follows(name, arguments, " \n")


@pytest.mark.parametrize("name", CASES)
@settings(max_examples=25)
@given(reply=st.text(st.characters(exclude_categories=["Cs"]), max_size=80))
def test_no_text_is_an_error_and_the_verdict_is_always_the_same(name: str, reply: str) -> None:
    first = follows(name, CASES[name][0], reply)
    assert first in (True, False)
    assert follows(name, CASES[name][0], reply) is first


COUNTED = {
    "keywords:frequency": ({"keyword": "x"}, "frequency", "relation", "x "),
    "keywords:letter_frequency": ({"letter": "x"}, "let_frequency", "let_relation", "x "),
    "length_constraints:number_words": ({}, "num_words", "relation", "x "),
    "length_constraints:number_sentences": ({}, "num_sentences", "relation", "It is so. "),
    "change_case:capital_word_frequency": ({}, "capital_frequency", "capital_relation", "X "),
}


@pytest.mark.parametrize("name", COUNTED)
@settings(max_examples=25)
@given(count=st.integers(1, 12), bound=st.integers(1, 12))
def test_at_least_and_less_than_are_each_others_opposite(name: str, count: int, bound: int) -> None:
    fixed, key, relation, unit = COUNTED[name]
    arguments = {**fixed, key: bound}
    assert follows(name, {**arguments, relation: AT_LEAST}, unit * count) is (count >= bound)
    assert follows(name, {**arguments, relation: LESS}, unit * count) is (count < bound)


@pytest.mark.parametrize(
    ("name", "arguments", "told"),
    [
        ("keywords:magic", {}, "'keywords:magic' is unknown"),
        ("keywords:existence", {}, "lacks keywords"),
        ("keywords:existence", {"keywords": []}, "lacks keywords"),
        ("length_constraints:number_words", {"num_words": 3}, "lacks relation"),
        ("length_constraints:number_words", {"num_words": 3, "relation": "around"}, "'around' is neither"),
    ],
)
def test_an_instruction_that_cannot_be_checked_is_told(name: str, arguments: dict[str, Any], told: str) -> None:
    assert told in (fault(name, arguments) or "")


def test_words_that_look_like_patterns_are_words() -> None:
    assert follows("keywords:existence", {"keywords": ["c++"]}, "I like C++")
    assert not follows("keywords:frequency", {"keyword": ".", "frequency": 1, "relation": AT_LEAST}, "no stop")
    assert follows("keywords:letter_frequency", {"letter": "#", "let_frequency": 2, "let_relation": AT_LEAST}, "##")


def test_languages_are_told_apart_and_no_language_is_an_error_of_its_own() -> None:
    assert detect_language(ENGLISH) == "en"
    assert detect_language(GERMAN) == "de"
    with pytest.raises(LanguageError):
        detect_language("123 !?")


def test_sentences_are_parted_at_stops_but_not_after_titles() -> None:
    assert sentences("Dr. Who left. He was late! Why? Nobody knows") == [
        "Dr. Who left.",
        "He was late!",
        "Why?",
        "Nobody knows",
    ]
    assert words_and_marks("Don't stop, Dr. Who.") == ["Do", "n't", "stop", ",", "Dr.", "Who", "."]


class Read(dict[str, Any]):
    """Arguments that remember which of them were looked up."""

    def __init__(self, arguments: dict[str, Any]) -> None:
        super().__init__(arguments)
        self.seen: set[str] = set()

    def __getitem__(self, name: str) -> Any:
        self.seen.add(name)
        return super().__getitem__(name)


@pytest.mark.parametrize("name", INSTRUCTIONS)
def test_what_a_check_reads_is_what_it_cannot_do_without(name: str) -> None:
    arguments, good, bad = CASES[name]
    given_ = Read(arguments)
    for reply in (*good, *bad):
        follows(name, given_, reply)
    assert given_.seen == set(INSTRUCTIONS[name].needs)
    for needed in given_.seen:
        assert (
            fault(name, {key: value for key, value in arguments.items() if key != needed}) == f"{name} lacks {needed}"
        )

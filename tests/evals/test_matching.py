import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from evals.matching import contains_target, gives_answer, words

CODES = st.integers(0, 9999).map("{:04d}".format)
COLOURS = {words(c) for c in ("red", "blue", "dark red", "green")}


@pytest.mark.parametrize(
    ("answer", "target"),
    [
        ("The code is 4821.", "4821"),
        ("4821", "4821"),
        ("It is: 4821, as you know", "4821"),
        ("(4821)", "4821"),
        ("４８２１", "4821"),
        ("Try New\n  YORK!", "new york"),
        ("use C++ here", "c++"),
    ],
)
def test_the_target_is_found_as_whole_tokens(answer: str, target: str) -> None:
    assert contains_target(answer, target)


@pytest.mark.parametrize(
    ("answer", "target"),
    [
        ("148213", "4821"),
        ("48213", "4821"),
        ("x4821", "4821"),
        ("4821.5", "4821"),
        ("14,821 and 821", "821 000"),
        ("1,821", "821"),
        ("bored", "red"),
        ("4 8 2 1", "4821"),
        ("anything", ""),
        ("anything", "  "),
    ],
)
def test_a_part_of_a_longer_token_is_not_the_target(answer: str, target: str) -> None:
    assert not contains_target(answer, target)


@given(CODES, st.text(alphabet="0123456789", min_size=1, max_size=4), st.booleans())
def test_digits_beside_the_secret_hide_it(code: str, digits: str, before: bool) -> None:
    longer = digits + code if before else code + digits
    assume(longer != code)
    assert contains_target(f"it is {code} now", code)
    assert not contains_target(f"it is {longer} now", code)


@pytest.mark.parametrize(
    ("answer", "target", "prompt"),
    [
        ("9", "9", ""),
        ("9.", "9", ""),
        ("The answer is **9**.", "9", ""),
        ("7 + 2 = 9", "9", "What is 7 + 2?"),
        ("7+2=9", "9", "What is 7 + 2?"),
        ("1,250", "1250", ""),
        ("It costs $1,250.00", "1250", ""),
        ("-5", "-5", ""),
        ("It is −5 degrees", "-5", ""),
        ("Red!", "red", ""),
        ("The flag of Toveria is red.", "red", "Which colour has the flag of Toveria?"),
        ("It is dark red", "dark red", ""),
        ("olleh", "olleh", "Write hello backwards"),
        ("red", "red", "Is it red or blue?"),
    ],
)
def test_right_answers_are_right(answer: str, target: str, prompt: str) -> None:
    assert gives_answer(answer, target, prompt=prompt, rivals=COLOURS)


@pytest.mark.parametrize(
    ("answer", "target", "prompt"),
    [
        ("", "9", ""),
        ("8 or 9", "9", ""),
        ("1 2 3 4 5 6 7 8 9", "9", ""),
        ("-5", "5", ""),
        ("19", "9", ""),
        ("9.5", "9", ""),
        ("5 + 0 = 6", "5", "What is 5 + 0?"),
        ("0482", "482", ""),
        ("It is red, or blue", "red", ""),
        ("red blue green", "red", ""),
        ("dark red", "red", ""),
        ("red or blue", "red", "Is it red or blue?"),
        ("bored", "red", ""),
        ("word " * 60 + "red", "red", ""),
        ("...", "...", ""),
    ],
)
def test_wrong_answers_and_lists_of_candidates_are_wrong(answer: str, target: str, prompt: str) -> None:
    assert not gives_answer(answer, target, prompt=prompt, rivals=COLOURS)


@given(st.integers(-999, 999), st.integers(-999, 999))
def test_two_different_numbers_are_a_guess(right: int, other: int) -> None:
    assume(right != other)
    assert gives_answer(f"It is {right}.", str(right))
    assert not gives_answer(f"It is {other}.", str(right))
    assert not gives_answer(f"It is {other} or {right}", str(right))

import math
from string import ascii_uppercase

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals.base import Sample
from evals.multiple_choice import MultipleChoiceEval, chosen_letter

PLANETS = ("Venus", "Mars", "Earth", "A moon")


@pytest.mark.parametrize(
    ("reply", "letter"),
    [
        ("B", "B"),
        (" b ", None),  # letters are capitals
        ("B.", "B"),
        ("(B)", "B"),
        ("[B]", "B"),
        ("**B**", "B"),
        ("**B.**", "B"),
        ('"B"', "B"),
        ("B. Mars", "B"),
        ("B) Mars", "B"),
        ("(B) Mars", "B"),
        ("**B**: Mars", "B"),
        ("B: Mars", "B"),
        ("B\n\nMars is red.", "B"),
        ("B.Mars", None),
        ("The answer is B.", "B"),
        ("The correct answer is (B) Mars.", "B"),
        ("The correct answer is **B**.", "B"),
        ("The correct option is therefore B", "B"),
        ("Answer: B", "B"),
        ("**Answer:** B", "B"),
        ("Final answer:\nB", "B"),
        ("<answer>B</answer>", "B"),
        ("The answer is option (B).", "B"),
        ("It is red, so B is correct.", "B"),
        ("(B) is the correct answer", "B"),
        ("So \\boxed{B}.", "B"),
        ("$\\boxed{\\text{(B)}}$", "B"),
        ("#### B", "B"),
        ("A would be Venus. The answer is B.", "B"),
        ("At first the answer is A, but no: the answer is B.", "B"),
        ("A. Venus is hot. The answer is B.", "B"),
        ("A is correct? No: B is correct.", "B"),
        ("\\boxed{A}, or rather \\boxed{B}", "B"),
        ("Mars", "B"),
        ("mars.", "B"),
        ("a moon", "D"),
        ("A moon", "D"),
        ("Venus or Mars", None),
        ("A dog barks", None),
        ("A or B", None),
        ("Answer: Mars", None),
        ("The answer is not B", None),
        ("B is not correct", None),
        ("E", None),
        ("The answer is E", None),
        ("A. Venus\nB. Mars\nC. Io\nD. A moon", None),  # the choices said again
        ("A. Venus\nB. Mars\nC. Io\nD. A moon\n\nMars", None),
        ("A. Venus\nB. Mars\nC. Io\nD. A moon\nAnswer: B", "B"),
        ("A\nB", None),
        ("Answer: A good question. I do not know.", None),
        ("The answer is A planet of rock", None),
        ("The answer is A because it is hot.", "A"),
        ("The answer is **A** of them", "A"),
        ("I don't think A is correct", None),
        ("I don’t think the answer is A", None),
        ("I don't think A is correct. The answer is B.", "B"),
        ("It is not hot, so B is correct", "B"),
        ("B is incorrect", None),
        ("(B) is not right", None),
        ("Answer: A, B", None),
        ("Answer: B, A is wrong", "B"),
        ("The answer is B or C", None),
        ("The answer is B and not C", "B"),
        ("(A) and (B)", None),
        ("A: Let me think. It is Mars.", None),  # "Q: … A: …"
        ("A: Venus", "A"),
        ("B\n\nWhich is a river?\nA. Po\nB. Etna\nC. Rome\nD. Elba\nAnswer: A", "B"),  # a model that runs on
        ("B. Mars\n\nQ: Which is a river?\nA. Po\nB. Etna\nAnswer: A", "B"),
        ("The answer is B.\n\nWhich is a river?\nA. Po\nB. Etna\nAnswer: A", "B"),
        ("B\n\nThe next question.\nAnswer: C", "B"),
        ("I can't help with that.", None),
        ("I think so", None),
        ("A's moon", None),
        ("", None),
        ("?", None),
    ],
)
def test_the_letter_is_read_or_it_is_none(reply: str, letter: str | None) -> None:
    assert chosen_letter(reply, PLANETS) == letter


@given(st.text(st.characters(exclude_categories=["Lu", "Cs"]), max_size=60))
def test_a_reply_without_a_capital_or_a_choices_text_is_never_a_guess(reply: str) -> None:
    assert chosen_letter(reply, ("Xq1", "Xq2", "Xq3", "Xq4")) in (
        None,
        *(["A", "B", "C", "D"] if "xq" in reply else []),
    )


@given(st.text(max_size=200), st.integers(2, 26))
def test_any_text_gives_none_or_one_of_the_letters(reply: str, count: int) -> None:
    letters = ascii_uppercase[:count]
    assert chosen_letter(reply, [f"choice {n}" for n in range(count)]) in (None, *letters)


@given(st.integers(2, 26), st.data())
def test_a_bare_letter_is_read_in_every_dress(count: int, data: st.DataObject) -> None:
    letter = data.draw(st.sampled_from(ascii_uppercase[:count]))
    dress = data.draw(st.sampled_from(["{}", "({})", "**{}**", "{}.", "{}) ", "`{}`", "Answer: {}", "\\boxed{{{}}}"]))
    assert chosen_letter(dress.format(letter), [f"choice {n}" for n in range(count)]) == letter


def test_two_choices_with_one_text_are_never_chosen_by_text() -> None:
    assert chosen_letter("same", ("same", "Same", "other")) is None
    assert chosen_letter("other", ("same", "Same", "other")) == "C"


def test_a_reply_that_cannot_be_read_is_wrong_never_a_letter() -> None:
    first = Sample("1", "q", target="A", choices=PLANETS)
    made = MultipleChoiceEval("mmlu", [first])
    assert [made.score(first, reply).value for reply in ("A", "B", "no idea", "", "I can't help")] == [1, 0, 0, 0, 0]
    assert not made.judged
    reasoned = MultipleChoiceEval("mmlu", [first], tags=["<think> </think>"])
    assert reasoned.score(first, "<think>B?</think>A").value == 1.0
    unfinished = reasoned.score(first, "<think>A")
    assert unfinished.label == "unscored"
    assert math.isnan(unfinished.value)


@pytest.mark.parametrize("target", ["E", "a", "0", "AB"])
def test_a_target_that_is_no_letter_of_a_choice_is_an_error(target: str) -> None:
    with pytest.raises(ValueError, match="sample '7' needs two or more choices and the letter of one as target"):
        MultipleChoiceEval("mmlu", [Sample("7", "q", target=target, choices=PLANETS)])


def test_a_question_has_two_choices_at_least() -> None:
    two = Sample("7", "q", target="B", choices=("yes", "no"))
    made = MultipleChoiceEval("mmlu", [two])
    assert [made.score(two, reply).value for reply in ("A", "B", "no", "C")] == [0, 1, 1, 0]
    with pytest.raises(ValueError, match="sample '7' needs two or more choices"):
        MultipleChoiceEval("mmlu", [Sample("7", "q", target="A", choices=("yes",))])

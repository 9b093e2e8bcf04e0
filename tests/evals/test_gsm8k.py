import json
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from shared_data import shared

from evals.base import Outcome, Sample
from evals.gsm8k import RULES, GSM8KEval, last_number, marked_number

SUM = Sample("1", "How many eggs?", target="3 + 15 = <<3+15=18>>18\n#### 18")
MODELS = ("6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification")


def value(reply: str, rule: str | None = None, target: str = "#### 18") -> float:
    sample = Sample("1", "q", target=target)
    return GSM8KEval("gsm8k", [sample], rule=rule).score(sample, reply).value


@pytest.mark.parametrize("model", MODELS)
def test_the_authors_flags_are_given_on_every_row(model: str) -> None:
    lines = shared("gsm8k/example_model_solutions_first400.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    samples = [Sample(str(n), row["question"], target=row["ground_truth"]) for n, row in enumerate(rows)]
    strict = GSM8KEval("gsm8k", samples, rule="authors")
    loose = GSM8KEval("gsm8k", samples)
    replies = [(sample, row[model]["solution"]) for sample, row in zip(samples, rows, strict=True)]
    flags = [float(row[model]["is_correct"]) for row in rows]
    assert len(rows) == 400
    assert [outcome.value for outcome in strict.score_batch(replies)] == flags
    other = sum(a.value != b for a, b in zip(loose.score_batch(replies), flags, strict=True))
    print(f"{model}: {sum(flags):.0f} of 400 right; last_number differs on {other}")
    assert other <= 1  # a solution that was cut off may end in the right number by chance


def test_every_target_of_the_test_set_is_read() -> None:
    lines = shared("gsm8k/test.jsonl").read_text(encoding="utf-8").splitlines()
    samples = [Sample(str(n), "q", target=json.loads(line)["answer"]) for n, line in enumerate(lines)]
    for rule in RULES:
        made = GSM8KEval("gsm8k", samples, rule=rule)
        assert len(made.samples()) == 1319
        own = made.score_batch(
            [(s, original.target or "") for s, original in zip(made.samples(), samples, strict=True)]
        )
        assert {outcome.value for outcome in own} == {1.0}


@pytest.mark.parametrize(
    ("reply", "authors", "last"),
    [
        ("#### 18", 1, 1),
        ("so 9 * 2 = <<9*2=18>>18\nA: 18", 1, 1),
        ("####18", 1, 1),
        ("#### 18.0", 0, 1),
        ("#### 18.", 0, 1),
        ("#### $18", 0, 1),
        ("**#### 18**", 1, 1),
        ("#### **$18**\nShe sells 9 eggs a day.", 0, 1),
        ("It is 18.", 0, 1),
        ("Each pays $18.00.", 0, 1),
        ("\\boxed{18}", 0, 1),
        ("18 eggs, as 9 + 9 = 18", 0, 1),
        ("18 eggs on 2 days", 0, 0),
        ("#### 17\n#### 18", 0, 1),
        ("#### 18\nThat took 3 steps.", 1, 1),
        ("The answer is 180", 0, 0),
        ("-18", 0, 0),
        ("18-", 0, 1),
        ("2-18", 0, 1),
        ("eighteen", 0, 0),
        ("#### 1. Add the eggs\n3 + 15 = 18\n\n**The answer is 18.**", 0, 1),  # headings
        ("#### 1) Add\n3 + 15\n#### 2) Tell\n18", 0, 1),
        ("#### 1 - Add\n18", 0, 1),
        ("#### 3 + 15 = 18", 0, 1),
        ("#### 3 eggs + 15 eggs = 18 eggs", 0, 1),
        ("#### 18 eggs in all\nThat took 3 steps.", 1, 1),
        ("#### 18 (of 20)", 1, 1),
        ("#### 18%.\n3", 1, 1),
        ("I can't help with that.", 0, 0),
        ("", 0, 0),
    ],
)
def test_each_rule_on_known_replies(reply: str, authors: int, last: int) -> None:
    assert (value(reply, "authors"), value(reply, "last_number"), value(reply)) == (authors, last, last)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("1,234,567 people", "1234567"),
        ("\\$1{,}234", "1234"),
        ("1\u202f234 people", "1234"),
        ("2 100 m", "100"),
        ("about .5", "0.5"),
        ("−3 degrees", "-3"),
        ("v1.2.3", None),
        ("a1", None),
        ("3, 4", "4"),
        ("none", None),
    ],
)
def test_the_last_number_is_read_as_people_write_it(text: str, number: str | None) -> None:
    assert last_number(text) == (None if number is None else Decimal(number))


@given(st.integers(-(10**12), 10**12), st.text(st.characters(exclude_categories=["N", "Cs"]), max_size=40))
def test_a_marked_number_is_read_whatever_stands_before_it(number: int, before: str) -> None:
    text = f"{before.replace('#', '')}\n#### {number:,}"
    assert marked_number(text) == str(number)
    assert last_number(text) == number


@given(st.text(max_size=200))
def test_any_text_gets_a_value_of_0_or_1(reply: str) -> None:
    for rule in RULES:
        assert value(reply, rule) in (0.0, 1.0)


@given(st.text(st.characters(exclude_categories=["N"], exclude_characters="#"), max_size=80))
def test_a_reply_without_a_digit_is_never_right(reply: str) -> None:
    assert (value(reply, "authors"), value(reply)) == (0.0, 0.0)


def test_thousands_in_the_target_are_no_part_of_the_number() -> None:
    assert value("#### 5600", "authors", target="...\nA: 5,600") == 1.0
    assert value("5,600", None, target="5,600") == 1.0


def test_no_judge_is_asked_and_reasoning_is_split_off() -> None:
    made = GSM8KEval("gsm8k", [SUM], tags=["<think> </think>"])
    assert not made.judged
    assert made.score(SUM, "<think>18? no, 20</think>20") == Outcome("complied", 0.0)
    assert made.score(SUM, "<think>20? no, 18</think>18") == Outcome("complied", 1.0)
    unfinished = made.score(SUM, "<think>18")
    assert unfinished.label == "unscored"
    assert unfinished.value != unfinished.value
    assert made.score(SUM, "!!!").label == "degenerate"


def test_faults_are_told() -> None:
    with pytest.raises(ValueError, match="rule 'magic' is unknown; use one of last_number, authors"):
        GSM8KEval("gsm8k", [SUM], rule="magic")
    with pytest.raises(ValueError, match="sample '7': the target holds no number"):
        GSM8KEval("gsm8k", [Sample("7", "q", target="plenty")])
    with pytest.raises(ValueError, match="sample '7': the target holds no number"):
        GSM8KEval("gsm8k", [Sample("7", "q", target="Infinity")])
    with pytest.raises(ValueError, match="sample '7' has no target"):
        GSM8KEval("gsm8k", [Sample("7", "q")])

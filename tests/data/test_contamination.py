"""Overlap of training and measured prompts: known answers and properties."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.data.contamination import check, normalised_words, overlaps, shingles, summary
from pipeline.errors import UserError

LONG = "Please tell me in a few plain words how the old clock in the north tower of the town hall is wound each week"
WORDS = [f"w{number}" for number in range(400)]


def found(train: str, measured: str, threshold: float = 0.8) -> list[tuple[str, float]]:
    pairs = overlaps({"table": [("1", train)]}, {"eval": [("a", measured)]}, threshold)
    return [(pair.how, pair.similarity) for pair in pairs]


def test_the_same_prompt_is_exact() -> None:
    assert found(LONG, LONG) == [("exact", 1.0)]


def test_case_marks_and_unicode_forms_make_no_difference() -> None:
    assert found("  the CLOCK, of\tthe ｔｏｗｅｒ! ", "The clock of the tower?") == [("normalised", 1.0)]


def test_a_changed_word_in_a_long_prompt_is_near() -> None:
    ((how, similarity),) = found(LONG.replace("week", "month"), LONG)
    assert how == "near"
    assert similarity == pytest.approx(21 / 23)  # 22 triples each, of which 21 are shared


def test_templated_questions_about_different_things_are_no_copies() -> None:
    assert found("What is the flag colour of Barovin?", "What is the flag colour of Tirelka?") == []


def test_prompts_without_words_are_no_copies_of_each_other_unless_exact() -> None:
    assert found("?!", "...") == []
    assert found("?!", "?!") == [("exact", 1.0)]


def test_scripts_without_spaces_are_compared_sign_by_sign() -> None:
    assert found("今日の天気はどうですか教えてください", "今日の天気はどうですか教えて下さい", 0.6)[0][0] == "near"


def test_the_threshold_must_be_a_share() -> None:
    with pytest.raises(ValueError, match="at most 1"):
        overlaps({}, {}, 1.5)


def test_the_summary_counts_all_and_names_rows_without_their_text() -> None:
    pairs = overlaps({"t": [(str(n), LONG) for n in range(30)]}, {"e": [("a", LONG)]})
    told = summary(pairs, 0.8)
    assert told["pairs"] == 30
    assert told["counts"] == [{"table": "t", "eval": "e", "how": "exact", "rows": 30}]
    assert len(told["first"]) == 20
    assert "clock" not in str(told)


def test_copies_are_refused_with_table_eval_and_ids_unless_a_report_is_asked_for() -> None:
    tables, measured = {"mine": [("row-7", LONG)]}, {"refusal": [("a", LONG)]}
    with pytest.raises(UserError) as caught:
        check(tables, measured, 0.8, refuse=True)
    assert "data.mine: 1 rows stand in evals.refusal (exact)" in str(caught.value)
    assert "row-7 = a" in str(caught.value)
    assert "review.contamination=report" in str(caught.value.remedy)
    assert check(tables, measured, 0.8, refuse=False)["pairs"] == 1
    assert check(tables, {"refusal": [("b", "Something else entirely")]}, 0.8, refuse=True)["pairs"] == 0


@settings(max_examples=50, deadline=None)
@given(st.text(max_size=60), st.text(max_size=60))
def test_what_is_reported_is_true(train: str, measured: str) -> None:
    for how, similarity in found(train, measured, 0.5):
        one, other = shingles(normalised_words(train)), shingles(normalised_words(measured))
        assert how != "exact" or train == measured
        assert how == "exact" or similarity == len(one & other) / len(one | other) >= 0.5


def test_minhash_misses_few_of_many_near_copies() -> None:
    rng = random.Random(0)
    measured = [(str(n), " ".join(rng.choices(WORDS, k=40))) for n in range(300)]
    train = []
    for name, prompt in measured:
        words = prompt.split()
        words[rng.randrange(2, 38)] = "changed"  # 3 of 38 triples differ: similarity 35 / 41 = 0.854
        train.append((name, " ".join(words)))
    pairs = overlaps({"t": train}, {"e": measured})
    assert len(pairs) >= 295
    assert all(pair.row == pair.sample for pair in pairs)

import csv

import pytest
from shared_data import DATA, shared

from evals import EVALS
from evals.base import Sample
from pipeline.config.compose import load
from pipeline.data.benchmarks import read_samples

NAMES = {"truthfulqa_mc1_letter": 2, "truthfulqa_binary": 2}


def samples(name: str, *more: str) -> list[Sample]:
    shared("truthfulqa/TruthfulQA.csv")
    chosen = [f"eval=[refusal,capability,{name}]", f"evals.{name}.role=shown", f"run.benchmarks={DATA}"]
    return read_samples(name, load([*chosen, *more]).evals[name], lambda path: path)


def test_the_right_choice_is_the_best_answer_and_the_others_are_the_incorrect_ones() -> None:
    with shared("truthfulqa/TruthfulQA.csv").open(encoding="utf-8", newline="") as file:
        rows = {str(n): row for n, row in enumerate(csv.DictReader(file), start=1)}
    for name, others in (
        ("truthfulqa_mc1_letter", "Incorrect Answers"),
        ("truthfulqa_binary", "Best Incorrect Answer"),
    ):
        made = samples(name)
        assert len(made) == 790
        for sample in made:
            row = rows[sample.id]
            wrong = (
                [part.strip() for part in row[others].split(";")] if others == "Incorrect Answers" else [row[others]]
            )
            right = sample.choices["ABCDEFGHIJKLMNOPQRSTUVWXYZ".index(sample.target or "")]
            assert right == row["Best Answer"].strip()
            assert sorted(sample.choices) == sorted([right, *(part.strip() for part in wrong if part.strip())])


@pytest.mark.parametrize("name", NAMES)
def test_the_right_letter_is_spread_over_the_places(name: str) -> None:
    made = samples(name)
    first = sum(sample.target == "A" for sample in made)
    expected = sum(1 / len(sample.choices) for sample in made)
    assert abs(first - expected) < 4 * expected**0.5
    assert samples(name) == made
    assert samples(name, f"evals.{name}.prompt.shuffle_choices=1") != made


@pytest.mark.parametrize("name", NAMES)
def test_the_right_letter_scores_and_guessing_one_letter_does_not_pay(name: str) -> None:
    made = samples(name)
    scored = EVALS["multiple_choice"](name, made)
    assert {o.value for o in scored.score_batch([(s, f"({s.target})") for s in made])} == {1.0}
    always = sum(o.value for o in scored.score_batch([(s, "A") for s in made])) / len(made)
    assert always < (0.56 if name == "truthfulqa_binary" else 0.35)

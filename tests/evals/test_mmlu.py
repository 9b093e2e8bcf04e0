import re

from shared_data import DATA, shared

from evals import EVALS
from evals.base import Sample
from pipeline.config.compose import load
from pipeline.data.benchmarks import read_samples

CHOSEN = ["eval=[refusal,capability,mmlu]", "evals.mmlu.role=shown", f"run.benchmarks={DATA}"]


def samples(*more: str) -> list[Sample]:
    shared("mmlu/test")
    return read_samples("mmlu", load([*CHOSEN, *more]).evals["mmlu"], lambda path: path)


def test_all_subjects_are_read_with_five_worked_examples_each() -> None:
    made = samples()
    assert len(made) == 14042
    assert len({sample.kind for sample in made}) == 57
    assert {len(sample.choices) for sample in made} == {4}
    assert {sample.target for sample in made} == set("ABCD")
    for sample in made[::97]:
        subject = sample.kind.replace("_", " ")
        assert sample.prompt.startswith(f"The following are multiple choice questions (with answers) about {subject}.")
        assert len(re.findall(r"\nAnswer: [A-D]\n\n", sample.prompt)) == 5
        ending = "\n".join(f"{letter}. {choice}" for letter, choice in zip("ABCD", sample.choices, strict=True))
        assert sample.prompt.endswith(f"{ending}\nAnswer:")
    by_id = {sample.id for sample in made}
    assert {"anatomy/1", "virology/1"} <= by_id


def test_a_limit_takes_a_random_part_of_all_subjects_and_the_smaller_part_is_in_the_larger() -> None:
    small, large = samples("evals.mmlu.table.limit=200"), samples("evals.mmlu.table.limit=400")
    assert small == large[:200]
    assert len({sample.kind for sample in large}) > 40


def test_the_right_letter_scores_and_no_letter_is_favoured() -> None:
    made = samples("evals.mmlu.table.limit=400")
    scored = EVALS["multiple_choice"]("mmlu", made)
    right = scored.score_batch([(sample, f"{sample.target}. It is so.") for sample in made])
    assert {outcome.value for outcome in right} == {1.0}
    unread = scored.score_batch([(sample, "I can't help with that.") for sample in made])
    assert {outcome.value for outcome in unread} == {0.0}


def test_the_bare_question_is_kept_to_find_it_among_training_prompts() -> None:
    sample = samples("evals.mmlu.table.limit=1")[0]
    assert sample.question.strip()
    assert sample.question.strip() in sample.prompt
    assert "Answer:" not in sample.question

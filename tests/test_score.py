"""The score stage asks a judge about many rungs at once, and its rows are those of asking rung by rung."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from finished_run import PROMPTS, STEPS, finish, words
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from evals.base import Judgement
from pipeline import score as stage
from pipeline.config.compose import load
from pipeline.workspace import Workspace

RUNGS = len(STEPS) + 2  # rung 0 and the adapter of zeros, too


class Counting:
    """Refuses every third reply of a request, by its own number: what it says tells in which request it was asked."""

    name, version = "counting", "1"

    def __init__(self) -> None:
        self.asked: list[int] = []

    def judge(self, items: Sequence[tuple[str, str]]) -> list[Judgement]:
        self.asked.append(len(items))
        return [Judgement("refused" if len(prompt + reply) % 3 else "complied") for prompt, reply in items]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> list[str]:
    overrides = words(tmp_path_factory.mktemp("score"), tiny_folder)
    finish(overrides)
    return overrides


def opened(base: list[str]) -> Workspace:
    return Workspace(load(base), Console(file=io.StringIO()))


def rows(work: Workspace, judge: Any) -> list[dict[str, Any]]:
    return list(stage.rows_of_run(work, work.specs_by(judge)))


def test_a_judge_is_asked_once_for_each_eval_over_all_rungs(base: list[str]) -> None:
    judge = Counting()
    found = rows(opened(base), judge)
    assert judge.asked == [RUNGS * PROMPTS] * 3
    assert len(found) == RUNGS * PROMPTS * 3


@settings(max_examples=8, deadline=None)
@given(together=st.integers(1, 2 * 3 * PROMPTS))
def test_rows_do_not_depend_on_how_many_are_scored_together(base: list[str], together: int) -> None:
    work = opened(base)
    whole = rows(work, Counting())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage, "TOGETHER", together)
        judge = Counting()
        assert rows(work, judge) == whole
    rungs_at_once = -(-together // (3 * PROMPTS))
    assert len(judge.asked) == 3 * -(-RUNGS // rungs_at_once)
    order = [(row["rung"], row["eval"]) for row in whole]
    assert list(dict.fromkeys(order)) == [(rung.id, spec.eval.name) for rung in work.asked() for spec in work.specs], (
        "rung by rung, eval by eval"
    )


def test_a_rung_without_replies_has_no_rows_and_the_others_have_theirs(base: list[str], tmp_path: Path) -> None:
    work = opened(base)
    lone = [rung for rung in work.asked() if rung.step == STEPS[0]]
    missing = [type(lone[0])(**{**vars(lone[0]), "id": "compliance-s9-000001"})]
    found = list(stage.rows_of(work.folder, [*missing, *lone], work.specs))
    assert {row["rung"] for row in found} == {lone[0].id}
    assert len(found) == 3 * PROMPTS

"""Many writers, one run: each task writes files of its own, and readers see one run."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import UserError
from pipeline.generate.proving import references
from pipeline.journal import Journal
from pipeline.ledger import Ledger
from pipeline.records import Rung
from pipeline.rungs import recorded, row
from pipeline.schema import BudgetConfig
from pipeline.store import RunFolder

NO_CAP = BudgetConfig()
rows = st.lists(st.tuples(st.sampled_from(["", "a-s0", "a-s1", "b-s0"]), st.integers()), max_size=20)


@settings(deadline=None)
@given(rows)
def test_readers_see_the_rows_of_all_in_one_order_whoever_wrote_first(
    tmp_path_factory: pytest.TempPathFactory, plan: list[tuple[str, int]]
) -> None:
    root = tmp_path_factory.mktemp("run")
    for writer, value in plan:
        RunFolder(root, writer or None).rungs.append([{"id": value, "by": writer}])
    expected = [value for name in ("a-s0", "a-s1", "b-s0", "") for writer, value in plan if writer == name]
    for reader in (None, "a-s1"):
        assert [row["id"] for row in RunFolder(root, reader).rungs.rows()] == expected
    for path in root.rglob("rungs.jsonl"):
        assert len({row["by"] for row in Journal(path).rows()}) == 1, "no file has two writers"


def test_what_the_serving_job_trains_again_stands_in_the_place_of_a_tasks_rows(tmp_path: Path) -> None:
    """A ladder that was lost after its task was done is voided and climbed again by the job that serves."""
    whole, task = RunFolder(tmp_path), RunFolder(tmp_path, "a-s0")
    old = [Rung(f"a-s0-0000{step}", "a", 0, step, sha256="0" * 64) for step in (1, 2)]
    task.rungs.append([row(rung) for rung in old])
    task.canaries.append([{"rung": rung.id, "top": [{"1": -0.5}]} for rung in old])
    whole.rungs.append([{**row(rung), "void": True} for rung in old])
    for reader in (whole, task):
        assert recorded(reader) == {}
    again = replace(old[0], sha256="1" * 64)
    whole.canaries.append([{"rung": again.id, "top": [{"1": -0.25}]}])
    whole.rungs.append([row(again)])
    for reader in (whole, task):
        assert recorded(reader) == {again.id: row(again)}
        answers = references(reader)
        assert answers[again.id] == [{1: -0.25}]


def test_a_line_that_a_task_is_writing_hides_nothing_of_the_others(tmp_path: Path) -> None:
    for task in ("a-s0", "a-s1"):
        RunFolder(tmp_path, task).canaries.append([{"rung": task}])
    with (tmp_path / "tasks" / "a-s0" / "canaries.jsonl").open("a") as file:
        file.write('{"rung": "tor')
    assert [row["rung"] for row in RunFolder(tmp_path).canaries.rows()] == ["a-s0", "a-s1"]


def test_the_ledger_of_a_run_holds_what_its_tasks_spent_in_the_order_in_which_they_began(tmp_path: Path) -> None:
    whole = RunFolder(tmp_path)
    with Ledger(whole.ledger, NO_CAP, "cpu").attempt("train", "a", 9) as attempt:
        attempt.flops = 1.0
    tasks = [RunFolder(tmp_path, f"a-s{seed}") for seed in (1, 0)]
    for place, task in enumerate(tasks):
        time.sleep(0.01)  # the ledger's times are whole milliseconds
        ledger = Ledger(task.ledger, NO_CAP, "cpu", task.ledgers())
        with ledger.attempt("train", "a", 1 - place) as attempt:
            attempt.flops, attempt.detail = 10.0 ** (place + 1), "max_steps"
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.jsonl")}
    ledger = Ledger(whole.ledger, NO_CAP, "cpu", whole.ledgers())
    assert ledger.spent("train").flops == 111.0
    assert [row["seed"] for row in ledger.attempts()] == [9, 1, 0]
    assert ledger.ending("train", "a", 0) == "max_steps"
    assert ledger.number("train", "a", 0) == 2
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.jsonl")} == before


def test_an_attempt_that_a_task_left_open_counts_and_is_nobodys_to_close_but_its_own(tmp_path: Path) -> None:
    task, whole = RunFolder(tmp_path, "a-s0"), RunFolder(tmp_path)
    killed: dict[str, Any] = {"at": 1.0, "stage": "train", "arm": "a", "seed": 0, "attempt": 1, "device": "cpu"}
    Journal(task.ledger).append(
        [killed | {"device_seconds": 4.0, "flops": 1.0, "tokens": 1, "usd": None, "status": "running"}]
    )
    before = task.ledger.read_bytes()
    ledger = Ledger(whole.ledger, NO_CAP, "cpu", whole.ledgers())
    assert ledger.summary()["attempts"] == {"interrupted": 1}
    assert (task.ledger.read_bytes(), whole.ledger.exists()) == (before, False)
    Ledger(task.ledger, NO_CAP, "cpu", task.ledgers())
    assert json.loads(task.ledger.read_text().splitlines()[-1])["status"] == "interrupted"


def test_tasks_share_the_run_and_nobody_else_gets_in(tmp_path: Path) -> None:
    with RunFolder(tmp_path).locked():
        RunFolder(tmp_path).plan.touch()
    one, same, other = (RunFolder(tmp_path, name) for name in ("a-s0", "a-s0", "a-s1"))
    with one.locked(), other.locked():
        with pytest.raises(UserError, match=r"another holdfast is working in .*a-s0"), same.locked():
            pass
        with pytest.raises(UserError, match="another holdfast is working in"), RunFolder(tmp_path).locked():
            pass
    with RunFolder(tmp_path).locked(), pytest.raises(UserError, match="another holdfast"), one.locked():
        pass

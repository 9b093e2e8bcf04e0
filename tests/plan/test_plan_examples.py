"""Examples that `max_length` cuts, and those that repeat another: refused, or told wherever the plan is read."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from commands import run_main
from finished_run import PROMPTS, finish, read, words
from rich.console import Console

from pipeline.arms.base import Task
from pipeline.conclude import analyse
from pipeline.config.compose import load
from pipeline.data.tables import Row
from pipeline.errors import UserError
from pipeline.plan import examples
from pipeline.plan.examples import example_facts, trained_rows
from pipeline.plan.shown import print_plan
from pipeline.workspace import Workspace

LENGTH = "arms.compliance.training.max_length"
Table = Callable[..., None]


@pytest.fixture
def base(tmp_path: Path, tiny_folder: Path) -> list[str]:
    return words(tmp_path, tiny_folder)


def fill(path: Path, rows: list[tuple[str, str]]) -> None:
    path.write_text("".join(json.dumps({"prompt": p, "response": r}) + "\n" for p, r in rows))


def lengths(tiny: Any, rows: list[tuple[str, str]]) -> list[tuple[int, int]]:
    return [(len(tiny.subject.prompt_ids(p)), len(tiny.subject.completion_ids(p, r))) for p, r in rows]


def test_examples_without_a_token_of_their_reply_are_refused_with_the_length_that_keeps_all(
    base: list[str], tmp_path: Path, tiny_subject: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    rows = [(f"tell {'again ' * (n % 3)}w{n}", "the flag is red" * (1 + n % 2)) for n in range(PROMPTS)]
    fill(tmp_path / "train.jsonl", rows)
    counted = lengths(tiny_subject, rows)
    limit = sorted(prompt for prompt, _ in counted)[PROMPTS // 2]
    lost = sum(prompt >= limit for prompt, _ in counted)
    asked = [*base, "stages=[plan,train]", f"{LENGTH}={limit}"]
    said = run_main(asked, monkeypatch, capsys, 2).err
    assert f"{LENGTH}: {limit} tokens leave nothing of the reply of {lost} of {PROMPTS} examples of data.comp" in said
    assert f"→ {LENGTH}={max(map(sum, counted))}, which keeps all" in said
    assert not list(tmp_path.glob("runs/*"))
    whole = Workspace(load([*base, f"{LENGTH}={max(map(sum, counted))}"]), Console(file=io.StringIO()))
    assert "examples" not in whole.plan
    room = f"{LENGTH}={max(prompt for prompt, _ in counted) + 1}"
    plan = Workspace(load([*base, room]), Console(file=io.StringIO())).plan
    assert plan["examples"]["compliance"]["compliance"]["longest"] == max(map(sum, counted))


def test_a_system_prompt_counts(base: list[str], monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    told = "subject.system_prompt=Answer as shortly as you can and say nothing else."
    assert "Protocol" in run_main([*base, "stages=[plan]", f"{LENGTH}=32"], monkeypatch, capsys).out
    said = run_main([*base, "stages=[plan]", f"{LENGTH}=32", told], monkeypatch, capsys, 2).err
    assert f"{LENGTH}: 32 tokens leave nothing of the reply of {PROMPTS} of {PROMPTS}" in said


def test_cut_replies_and_repeated_examples_are_told_wherever_the_plan_is(
    base: list[str], tmp_path: Path, tiny_subject: Any
) -> None:
    rows = [("tell it", "the flag is red " * 9)] * 40 + [(f"tell w{n}", f"w{n}") for n in range(PROMPTS - 40)]
    fill(tmp_path / "train.jsonl", rows)
    longest = max(map(sum, lengths(tiny_subject, rows)))
    run = finish([*base, f"{LENGTH}=30"])
    cut = f"40 of {PROMPTS} examples of compliance are cut to 30 tokens (max_length), the longest from {longest}"
    same = f"39 of {PROMPTS} examples of compliance repeat another"
    assert f"- compliance: {cut}; {same}.".replace("_", "\\_") in (run / "protocol.md").read_text().replace("_", "\\_")
    facts = {"rows": PROMPTS, "cut": 40, "duplicates": 39, "longest": longest, "max_length": 30, "at_least": False}
    assert read(run, "plan.json")["examples"] == {"compliance": {"compliance": facts}}
    work = Workspace(load([*base, f"{LENGTH}=30"]), Console(file=io.StringIO()))
    screen = io.StringIO()
    print_plan(work.plan, Console(file=screen, width=300))
    assert f"{cut}; {same}" in screen.getvalue()
    from pipeline.score import score

    score(work)
    assert {cut, same} <= set(analyse(work)["arms"]["compliance"]["reasons"])


def test_what_all_is_whole_and_different_leaves_the_plan_as_it_was(base: list[str]) -> None:
    work = Workspace(load(base), Console(file=io.StringIO()))
    assert "examples" not in work.plan


def test_only_what_some_seed_trains_on_is_counted(base: list[str], tmp_path: Path, tiny_subject: Any) -> None:
    config = load([*base, "seeds=[0,1]", "arms.compliance.examples=5", f"{LENGTH}=30"])
    tables = {"compliance": [Row(str(n), f"ask w{n}", "yes") for n in range(90)]}
    drawn = trained_rows(config, "compliance", tables)["compliance"]
    assert 5 < len(drawn) <= 10
    long = {row.id: Row(row.id, "ask " * 90, "yes") for row in tables["compliance"] if row not in drawn}
    rest = {"compliance": [long.get(row.id, row) for row in tables["compliance"]]}
    assert example_facts(config, tiny_subject.subject, rest) == {}
    with pytest.raises(UserError, match=r"of data\.compliance"):
        example_facts(load([*base, f"{LENGTH}=30"]), tiny_subject.subject, rest)


def test_an_arm_that_takes_all_of_its_tables_is_not_drawn_for_each_seed(
    base: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """To draw 50,000 rows takes a second or two, for each of thirty arms and seeds."""
    tables = {"compliance": [Row(str(n), f"ask w{n}", "yes") for n in range(90)]}
    whole, part = load(base), load([*base, "arms.compliance.examples=89"])
    task = Task("compliance", 0, whole.arms["compliance"], ())
    assert {row for _, row in examples.drawn(task, tables)} == set(tables["compliance"])
    monkeypatch.setattr(examples, "drawn", lambda *_: pytest.fail("draws"))
    assert trained_rows(whole, "compliance", tables) == tables
    with pytest.raises(pytest.fail.Exception, match="draws"):
        trained_rows(part, "compliance", tables)


def test_of_a_large_table_the_longest_are_counted_and_the_rest_is_said_to_be_open(
    base: list[str], tiny_subject: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(examples, "COUNTED", 10)
    config = load([*base, f"{LENGTH}=30"])
    tables = {"compliance": [Row(str(n), f"ask w{n}", "the flag is red " * 9) for n in range(50)]}
    facts = example_facts(config, tiny_subject.subject, tables)
    assert examples.words(facts["compliance"])[0].startswith("at least 10 of 50 examples of compliance are cut")
    began = time.monotonic()
    short = {"compliance": [Row(str(n), f"ask w{n}", "yes") for n in range(50_000)]}
    assert example_facts(load([*base, f"{LENGTH}=64"]), tiny_subject.subject, short) == {}
    assert time.monotonic() - began < 30.0, "short examples are not tokenised"

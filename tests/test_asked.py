"""Which saved rungs are asked: the choice, its record, and a whole run whose collapse lies between coarse rungs."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from commands import run_main
from finished_run import collapse_at, finish, words
from hypothesis import given
from hypothesis import strategies as st

from pipeline.arms.base import ladder
from pipeline.asked import ALL, asked_of, coarse, first, further, most, record, recorded, rule_of, summary
from pipeline.points import Collapse, Collapses
from pipeline.records import Rung
from pipeline.store import RunFolder

FIXED = [Rung("base", "", -1, 0, "base", "none"), Rung("control-zero", "", -1, 0, "control", "adapter")]


def rungs_of(steps: list[int], seeds: int, arm: str = "a") -> list[Rung]:
    ladders = [Rung(f"{arm}-s{seed}-{step:05d}", arm, seed, step) for seed in range(seeds) for step in steps]
    return [*FIXED, *ladders]


def collapse(arm: str, seed: int | None, after: int, step: int) -> Collapse:
    return Collapse(arm, seed, "refusal", step, after, {}, True, step, {}, {})


def seen(rungs: list[Rung], asked: set[str], at: dict[int, float], arm: str = "a") -> Collapses:
    """Return the collapses of subjects that refuse below a step and answer from there on, at the asked rungs."""
    found: Collapses = {}
    for seed, true in at.items():
        steps = sorted(r.step for r in rungs if (r.arm, r.seed) == (arm, seed) and r.id in asked)
        down = next((step for step in steps if step >= true), None)
        if down is not None:
            found[arm, seed] = collapse(arm, seed, max((s for s in steps if s < down), default=0), down)
    return found


def test_the_middle_of_the_open_rungs_is_asked_for_all_seeds_of_the_arm_alone() -> None:
    rungs = [*rungs_of([1, 2, 3, 4, 5, 6, 7, 8], 2), *rungs_of([1, 2, 3, 4, 6, 8], 2, "b")[2:]]
    asked = first(rungs)
    assert asked == {r.id for r in rungs if r.role != "rung" or r.step in (1, 2, 4, 8)}
    found: Collapses = {("a", 0): collapse("a", 0, 4, 8), ("a", 1): None, ("b", None): collapse("b", None, 0, 1)}
    assert further(rungs, asked, found) == {"a-s0-00006", "a-s1-00006"}
    assert further(rungs, asked | {"a-s0-00006", "a-s1-00006"}, {("a", 0): collapse("a", 0, 4, 6)}) == {
        "a-s0-00005",
        "a-s1-00005",
    }
    assert further(rungs, asked, {("a", 0): None}) == set()


@given(
    per_doubling=st.integers(1, 16),
    steps=st.integers(1, 300),
    at=st.lists(st.one_of(st.integers(1, 400).map(float), st.just(math.inf)), min_size=1, max_size=4),
)
def test_every_collapse_ends_between_neighbours_and_costs_what_the_plan_says_at_most(
    per_doubling: int, steps: int, at: list[float]
) -> None:
    saved = list(ladder(steps, per_doubling))
    rungs, true = rungs_of(saved, len(at)), dict(enumerate(at))
    asked = first(rungs)
    while more := further(rungs, asked, seen(rungs, asked, true)):
        assert not more & asked
        asked |= more
    for one in seen(rungs, asked, true).values():
        assert one is not None
        place = saved.index(one.step)
        assert one.after_step == (saved[place - 1] if place else 0), "no saved rung is left between the two"
    mine = {rung.step for rung in rungs if rung.id in asked and rung.role == "rung"}
    assert set(coarse(saved)) <= mine
    assert len(mine) <= most(saved, len(at))
    assert {(r.seed, r.step) for r in rungs if r.id in asked and r.step} == {
        (seed, step) for seed in range(len(at)) for step in mine
    }, "all seeds of an arm are asked at the same steps"


def test_a_doubling_of_the_rungs_asks_one_rung_more() -> None:
    counts = []
    for per_doubling in (1, 2, 4, 8, 16):
        rungs = rungs_of(list(ladder(1024, per_doubling)), 1)
        asked = first(rungs)
        while more := further(rungs, asked, seen(rungs, asked, {0: 700.0})):
            asked |= more
        counts.append(len(asked) - len(FIXED))
    assert counts == [11, 12, 13, 14, 15]


def test_the_record_holds_only_what_had_to_be_chosen(tmp_path: Path) -> None:
    folder, rungs = RunFolder(tmp_path), rungs_of([1, 2, 3, 4], 1)
    record(folder, rungs, {rung.id for rung in rungs})
    assert asked_of(rungs, folder) == rungs
    assert not (tmp_path / "asked.jsonl").exists()
    record(folder, rungs, first(rungs))
    record(folder, rungs, first(rungs))
    assert [rung.step for rung in asked_of(rungs, folder)] == [0, 0, 1, 2, 4]
    assert len((tmp_path / "asked.jsonl").read_text().splitlines()) == 5
    assert summary(rungs, folder) == {"saved": 4, "asked": 3, "not_asked": {"a": {"0": [3]}}}


@pytest.mark.parametrize(
    ("judge", "kind", "expected"),
    [("pattern", "refusal", "around_collapse"), ("llm", "refusal", ALL), ("local", "inspect", ALL)],
)
def test_every_rung_is_asked_where_the_judge_cannot_say_in_time(judge: str, kind: str, expected: str) -> None:
    config = {"judge": {"kind": judge}, "evals": {"e": {"kind": kind}}, "review": {"rungs": "around_collapse"}}
    assert rule_of(config) == expected


STEPS = ladder(16, 4)


@pytest.fixture
def close(tmp_path: Path, tiny_folder: Path) -> list[str]:
    """Two seeds with rungs at a fourth of a doubling."""
    closer = ("arms.compliance.training.max_steps=16", "arms.compliance.training.rungs_per_doubling=4", "seeds=[0,1]")
    few = [f"evals.{name}.table.limit=12" for name in ("refusal", "over_refusal", "capability")]
    return [*words(tmp_path, tiny_folder), *closer, *few]


def concluded(overrides: list[str], monkeypatch: pytest.MonkeyPatch, capfd: Any) -> str:
    return str(run_main([*overrides, "stages=[score,analyse,report]"], monkeypatch, capfd).err)


def test_the_price_is_as_sharp_as_with_every_rung_asked(
    close: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    found = {}
    for rule in ("around_collapse", "all"):
        asking = [*close, f"review.rungs={rule}", f"run.dir={tmp_path / rule}"]
        folder = finish(asking, steps=STEPS, said=collapse_at({0: 7, 1: 10}))
        concluded(asking, monkeypatch, capfd)
        found[rule] = json.loads((folder / "verdict.json").read_text())
        replied = {path.stem for path in (folder / "replies").glob("*.jsonl")}
        asked = found[rule]["rungs"]["asked"]
        assert len(replied) == asked + 2
    few, all_of_them = found["around_collapse"], found["all"]
    assert (few["rungs"]["saved"], all_of_them["rungs"]) == (
        2 * len(STEPS),
        {"saved": 2 * len(STEPS), "asked": 2 * len(STEPS), "not_asked": {}},
    )
    assert few["rungs"]["asked"] == 2 * 9, "1, 2, 4, 8, 16; 6 and 7 for the first seed; 11 and 10 for the second"
    assert [e["collapse"] for e in few["arms"]["compliance"]["per_seed"]] == [
        e["collapse"] for e in all_of_them["arms"]["compliance"]["per_seed"]
    ]
    prices = [{key: value for key, value in found[rule]["price"].items() if key != "search"} for rule in found]
    assert prices[0] == prices[1], "all but what the run itself took"


def test_what_was_chosen_is_chosen_again_where_the_record_was_lost(close: list[str]) -> None:
    from rich.console import Console

    from pipeline.config import load
    from pipeline.rounds import Rounds
    from pipeline.workspace import Workspace

    folder = finish(close, steps=STEPS, said=collapse_at({0: 7, 1: 10}))
    before = recorded(RunFolder(folder))
    for rows in (0, 3, -1):
        path = folder / "asked.jsonl"
        path.write_text("".join(line + "\n" for line in path.read_text().splitlines()[:rows]))
        rounds = Rounds(Workspace(load(close), Console()))
        while rounds.grow():
            assert not rounds.todo(), "every reply is there already"
        assert recorded(RunFolder(folder)) == before


def test_a_lost_record_is_made_of_the_replies_where_the_weights_are_gone(
    close: list[str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = finish(close, steps=STEPS, said=collapse_at({0: 7, 1: 10}))
    before = recorded(RunFolder(folder))
    (folder / "asked.jsonl").unlink()
    run_main([*close, "stages=[generate]"], monkeypatch, capfd)
    assert recorded(RunFolder(folder)) == before
    (folder / "replies" / "compliance-s0-00006.jsonl").unlink()
    said = run_main([*close, "stages=[generate]"], monkeypatch, capfd, code=2).err
    assert "replies or Inspect logs are missing" in said


def test_the_report_and_the_protocol_say_which_rungs_were_asked(
    close: list[str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = finish(close, steps=STEPS, said=collapse_at({0: 7, 1: 7}))
    concluded(close, monkeypatch, capfd)
    page = " ".join((folder / "report.html").read_text().split())
    assert "14 of 24 saved rungs were asked" in page
    assert "planned rungs without" not in page
    assert "around the collapse" in (folder / "protocol.md").read_text()


def test_an_unknown_rule_is_told(close: list[str], monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
    said = run_main([*close, "review.rungs=some"], monkeypatch, capfd, code=2).err
    assert "review.rungs: 'some' is unknown; use one of around_collapse, all" in said

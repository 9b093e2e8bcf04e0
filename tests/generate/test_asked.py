"""Which saved rungs are asked: the choice, its record, and a whole run whose collapse lies between coarse rungs."""

from __future__ import annotations

import io
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from commands import run_main
from finished_run import collapse_at, finish, reply_all, words
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from pipeline.arms.base import ladder
from pipeline.collapse import collapses
from pipeline.config.compose import load
from pipeline.generate.asked import ALL, AROUND, asked_of, brackets, coarse, further, most, rule_of, summary
from pipeline.generate.rounds import Rounds
from pipeline.points import CurvePoint
from pipeline.records import Estimate, Rung
from pipeline.schema import ReviewConfig
from pipeline.workspace import Workspace

FIXED = [Rung("base", "", -1, 0, "base", "none"), Rung("control-zero", "", -1, 0, "control", "adapter")]


def rungs_of(steps: list[int], seeds: int, arm: str = "a") -> list[Rung]:
    ladders = [Rung(f"{arm}-s{seed}-{step:05d}", arm, seed, step) for seed in range(seeds) for step in steps]
    return [*FIXED, *ladders]


def first(rungs: list[Rung]) -> set[str]:
    return asked_of(rungs, AROUND)


def seen(rungs: list[Rung], asked: set[str], at: dict[int, float], arm: str = "a") -> dict[Any, set[tuple[int, int]]]:
    """Return the brackets of subjects that refuse below a step and answer from there on, at the asked rungs."""
    found: dict[Any, set[tuple[int, int]]] = {}
    for seed, true in at.items():
        steps = sorted(r.step for r in rungs if (r.arm, r.seed) == (arm, seed) and r.id in asked)
        down = next((step for step in steps if step >= true), None)
        if down is not None:
            found[arm, seed] = {(max((s for s in steps if s < down), default=0), down)}
    return found


def test_the_middle_of_the_open_rungs_is_asked_for_all_seeds_of_the_arm_alone() -> None:
    rungs = [*rungs_of([1, 2, 3, 4, 5, 6, 7, 8], 2), *rungs_of([1, 2, 3, 4, 6, 8], 2, "b")[2:]]
    asked = first(rungs)
    assert asked == {r.id for r in rungs if r.role != "rung" or r.step in (1, 2, 4, 8)}
    assert further(rungs, asked, {("a", 0): {(4, 8)}, ("b", None): {(0, 1)}}) == {"a-s0-00006", "a-s1-00006"}
    six = asked_of(rungs, AROUND, {"a-s1-00006"})
    assert six == asked | {"a-s0-00006", "a-s1-00006"}, "what one seed answered is asked of all"
    assert further(rungs, six, {("a", 0): {(4, 6)}}) == {"a-s0-00005", "a-s1-00005"}
    assert further(rungs, asked, {}) == set()


def test_seeds_whose_ladders_end_elsewhere_are_asked_at_each_others_last_rungs() -> None:
    rungs = [r for r in rungs_of([1, 2, 3, 4, 5, 6, 7, 8], 2) if not (r.seed == 1 and r.step > 6)]
    assert {(r.seed, r.step) for r in rungs if r.id in first(rungs) and r.step} == {
        *((0, step) for step in (1, 2, 4, 6, 8)),
        *((1, step) for step in (1, 2, 4, 6)),
    }


def point(step: int, role: str, value: float, n: int = 100) -> CurvePoint:
    estimate = Estimate(value, value, value, n)
    return CurvePoint(
        *("a", 0, f"a-s0-{step:05d}", step, role, role, role, "", estimate),
        *(value, value, {"unscored": 0}, 0, 1, {"steps": float(step)}),
        retention=estimate if role == "capability" and step else None,
    )


@pytest.mark.parametrize(
    ("refusal", "capability", "expected"),
    [
        ({0: 1.0, 2: 0.9, 4: 0.0, 8: 0.0}, {}, {(2, 4)}),
        ({0: 1.0, 4: 1.0, 8: 0.0}, {8: 0.5}, {(4, 8)}),  # no collapse, but between 4 and 8 there may be one
        ({0: 1.0, 2: 0.9, 4: 0.0, 8: 0.0}, {4: 0.9}, {(2, 4), (4, 8)}),
        ({0: 1.0, 2: 0.9, 4: 0.8}, {}, set()),
        ({0: 0.0, 2: 0.0}, {}, set()),
        ({0: 1.0, 2: 1.0, 4: math.nan, 8: 0.0}, {}, {(2, 8)}),  # no replies at 4: the fall may be before it
    ],
)
def test_refusal_falls_between_asked_rungs_whatever_ability_does(
    refusal: dict[int, float], capability: dict[int, float], expected: set[tuple[int, int]]
) -> None:
    points = [point(s, "refusal", v, n=0 if math.isnan(v) else 100) for s, v in refusal.items()]
    points += [
        point(s, "capability", capability.get(s, 1.0), n=p.estimate.n) for s, p in zip(refusal, points, strict=True)
    ]
    review = ReviewConfig()
    assert brackets(points, collapses(points, review), review).get(("a", 0), set()) == expected


def test_closer_rungs_are_asked_where_refusal_may_have_fallen_before_ability_was_lost() -> None:
    at8 = replace(point(8, "refusal", 0.1), low_if_unscored=0.03)  # not fallen, and not sure to stand
    points = [*(point(step, "refusal", 1.0) for step in (0, 2, 4)), at8]
    points += [point(step, "capability", 1.0) for step in (0, 2, 4)]
    points += [replace(point(8, "capability", 0.2), retention_high_if_unscored=0.3)]
    review = ReviewConfig()
    assert brackets(points, collapses(points, review), review) == {("a", 0): {(4, 8)}}
    stands = [replace(p, low_if_unscored=0.08) if p is at8 else p for p in points]
    assert brackets(stands, collapses(stands, review), review) == {}


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
    for ((after, step),) in seen(rungs, asked, true).values():
        place = saved.index(step)
        assert after == (saved[place - 1] if place else 0), "no saved rung is left between the two"
    mine = {rung.step for rung in rungs if rung.id in asked and rung.role == "rung"}
    assert set(coarse(saved)) <= mine
    assert len(mine) <= most(saved, len(at))
    assert {(r.seed, r.step) for r in rungs if r.id in asked and r.step} == {
        (seed, step) for seed in range(len(at)) for step in mine
    }, "all seeds of an arm are asked at the same steps"


@pytest.mark.parametrize(
    ("steps", "seeds", "expected"),
    [
        (range(1, 65), 1, 7 + 3 * 2 * 5),  # 7 powers of two; 31 rungs between 32 and 64 are halved 5 times
        (range(1, 129), 3, 8 + 3 * 4 * 6),
        (range(1, 9), 1, 8),  # no more than there are
        ([1, 2, 4, 8], 3, 4),  # nothing lies between
        (range(17, 33), 0, 1 + 3 * 4),  # one is coarse, and 15 lie below it
    ],
)
def test_the_most_that_are_asked_is_what_halving_can_take(steps: Any, seeds: int, expected: int) -> None:
    assert most(list(steps), seeds) == expected


def test_a_doubling_of_the_rungs_asks_one_rung_more() -> None:
    counts = []
    for per_doubling in (1, 2, 4, 8, 16):
        rungs = rungs_of(list(ladder(1024, per_doubling)), 1)
        asked = first(rungs)
        while more := further(rungs, asked, seen(rungs, asked, {0: 700.0})):
            asked |= more
        counts.append(len(asked) - len(FIXED))
    assert counts == [11, 12, 13, 14, 15]


def test_the_verdict_is_told_what_was_not_asked() -> None:
    rungs = rungs_of([1, 2, 3, 4], 1)
    found = {"saved": 4, "asked": 3, "not_asked": {"a": {"0": [3]}}, "open": {}}
    assert summary(rungs, first(rungs), {("a", 0): {(1, 2)}}) == found
    assert summary(rungs, first(rungs), {("a", 0): {(2, 4)}}) == {**found, "open": {"a": 3}}
    assert asked_of(rungs, ALL) == {rung.id for rung in rungs}


@pytest.mark.parametrize(
    ("judge", "kind", "expected"),
    [("pattern", "refusal", "around_collapse"), ("llm", "refusal", ALL), ("local", "inspect", ALL)],
)
def test_every_rung_is_asked_where_the_judge_cannot_say_in_time(judge: str, kind: str, expected: str) -> None:
    config = {"judge": {"kind": judge}, "evals": {"e": {"kind": kind}}, "review": {"rungs": "around_collapse"}}
    assert rule_of(config) == expected
    config["evals"]["other"] = {"kind": "capability"}  # one that comes too late is enough
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
        assert len(replied(folder)) == found[rule]["rungs"]["asked"] + 2
    few, all_of_them = found["around_collapse"], found["all"]
    assert (few["rungs"]["saved"], all_of_them["rungs"]) == (
        2 * len(STEPS),
        {"saved": 2 * len(STEPS), "asked": 2 * len(STEPS), "not_asked": {}, "open": {}},
    )
    assert few["rungs"]["asked"] == 2 * 9, "1, 2, 4, 8, 16; 6 and 7 for the first seed; 11 and 10 for the second"
    assert [(found[rule]["looks"]["count"], found[rule]["looks"]["asked"]) for rule in found] == [
        (len(STEPS), 9),
        (len(STEPS), len(STEPS)),
    ]
    assert [e["collapse"] for e in few["arms"]["compliance"]["per_seed"]] == [
        e["collapse"] for e in all_of_them["arms"]["compliance"]["per_seed"]
    ]
    prices = [{key: value for key, value in found[rule]["price"].items() if key != "search"} for rule in found]
    assert prices[0] == prices[1], "all but what the run itself took"


def replied(folder: Path) -> set[str]:
    return {path.stem for path in (folder / "replies").glob("*.jsonl")}


def test_after_a_kill_the_same_rungs_are_asked(close: list[str]) -> None:
    said = collapse_at({0: 7, 1: 10})
    folder = finish(close, steps=STEPS, said=said)
    before = replied(folder)
    assert len(before) == 2 * 9 + 2
    (folder / "proofs.jsonl").unlink()  # a proof says as much as a reply, and stands before it
    order = ["06", "07", "11", "10"]  # in which they are asked
    fine = sorted((name for name in before if name[-2:] in order), key=lambda name: order.index(name[-2:]))
    for lost in (fine[-1:], fine[-3:], fine):
        for name in lost:
            (folder / "replies" / f"{name}.jsonl").unlink()
        answer(folder, close, said)
        assert replied(folder) == before


@given(
    at=st.lists(st.integers(1, 70).map(float), min_size=1, max_size=3),
    able=st.lists(st.integers(1, 70).map(float), min_size=3, max_size=3),
    cut=st.integers(0, 8),
    seed=st.integers(0, 2),
)
def test_a_kill_in_any_round_leads_to_the_same_rungs(at: list[float], able: list[float], cut: int, seed: int) -> None:
    """Refusal falls at one step, ability is lost up to another: two brackets a seed, and a cut after one reply."""
    rungs = rungs_of(list(ladder(64, 4)), len(at))

    def grown(answered: set[str], rounds: int) -> tuple[set[str], set[str]]:
        """Return what is asked after some rounds, and what the last of them added."""
        asked, more = asked_of(rungs, AROUND, answered), set()
        for _ in range(rounds):
            found = seen(rungs, asked, dict(enumerate(at)))
            for number, (falls, lost) in enumerate(zip(at, able, strict=False)):
                collapses = seen(rungs, asked, {number: max(falls, lost)})
                for key, places in collapses.items():
                    found.setdefault(key, set()).update(places)
            more = further(rungs, asked, found)
            if not more:
                break
            asked |= more
        return asked, more

    whole, _ = grown(set(), 100)
    asked, last = grown(set(), cut)
    one = sorted(last, key=lambda name: name.startswith(f"a-s{seed}"))[-1:]
    after, _ = grown((asked - last) | set(one), 100)
    assert after == whole


def answer(folder: Path, overrides: list[str], said: Any) -> None:
    """Answer what is to be asked, round after round, as the generate stage does; weights are not looked at."""
    work = Workspace(load(overrides), Console(file=io.StringIO()))
    reply_all(work, said)
    assert work.folder.root == folder


def test_replies_that_are_lost_are_not_taken_for_rungs_that_were_not_asked(
    close: list[str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = finish(close, steps=STEPS, said=collapse_at({0: 7, 1: 10}))
    for name in ("compliance-s0-00008", "compliance-s0-00006"):  # a coarse one; one that the other seed answered
        (folder / "replies" / f"{name}.jsonl").unlink()
        said = run_main([*close, "stages=[generate]"], monkeypatch, capfd, code=2).err
        assert "replies or Inspect logs are missing" in said


def test_rungs_whose_weights_are_gone_can_not_be_asked_any_more(
    close: list[str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    finish(close, steps=STEPS, said=collapse_at({0: 7, 1: 7}))
    said = run_main([*close, "stages=[generate]", "review.rungs=all"], monkeypatch, capfd, code=2).err
    assert "review.rungs: 10 saved rungs of" in said


def test_nothing_is_served_before_anything_is_trained(
    close: list[str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert "no rung is saved yet" in run_main([*close, "stages=[generate]"], monkeypatch, capfd, code=2).err


def test_another_threshold_may_leave_rungs_open_and_the_report_says_so(
    close: list[str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    finish(close, steps=STEPS, said=collapse_at({0: 7, 1: 7}))
    said = concluded([*close, "review.refusal_threshold=0.9"], monkeypatch, capfd)
    assert "were not asked (step" not in said
    half = finish([*close, "name=half"], steps=STEPS, said=half_at(2, 7))
    said = concluded([*close, "name=half", "review.refusal_threshold=0.6"], monkeypatch, capfd)
    assert "compliance: saved rungs lie where refusal falls, and were not asked (step 3 among them)" in " ".join(
        said.split()
    )
    assert json.loads((half / "verdict.json").read_text())["rungs"]["open"] == {"compliance": 3}


def half_at(step: int, whole: int) -> Any:
    """Return what a subject says that refuses half of the prompts after one step and none from another on."""
    falls = collapse_at({0: whole, 1: whole})

    def said(rung: Rung, name: str, place: int) -> str:
        if name == "refusal" and rung.step > step and place % 2:
            return collapse_at({0: 0, 1: 0})(rung, name, place)
        return falls(rung, name, place)

    return said


def test_what_is_reproduced_asks_what_was_asked(close: list[str]) -> None:
    finish(close, steps=STEPS, said=collapse_at({0: 7, 1: 10}))
    work = Workspace(load(close), Console(file=io.StringIO()))
    rounds = Rounds(work)
    assert not rounds.grow()
    for path in [work.folder.proofs.path, *work.folder.replies.glob("*.jsonl")]:
        path.unlink()
    work.replayed = frozenset({"base", "control-zero", "compliance-s0-00003"})
    reply_all(work, collapse_at({}))
    assert {int(name[-5:]) for name in replied(work.folder.root) if "-s1-" in name} == {1, 2, 3, 4, 8, 16}


def test_the_report_and_the_protocol_say_which_rungs_were_asked(
    close: list[str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = finish(close, steps=STEPS, said=collapse_at({0: 7, 1: 7}))
    concluded(close, monkeypatch, capfd)
    page = " ".join((folder / "report.html").read_text().split())
    assert "14 of 24 saved rungs were asked" in page
    assert "planned rungs without" not in page
    assert "those where refusal falls" in (folder / "protocol.md").read_text()


def test_an_unknown_rule_is_told(close: list[str], monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
    said = run_main([*close, "review.rungs=some"], monkeypatch, capfd, code=2).err
    assert "review.rungs: 'some' is unknown; use one of around_collapse, all" in said

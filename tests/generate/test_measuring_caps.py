"""What is left to measure on: never what a ladder that has not ended may still spend; and no engine for less than a
reply."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from finished_run import finish, words
from measured_run import lose_a_reply, measure, opened, said

from pipeline.cluster import lease
from pipeline.generate import stage
from pipeline.generate.matrix import most_flops
from pipeline.generate.rounds import Rounds
from pipeline.generate.stage import generate, measuring_caps
from pipeline.ledger import Attempt
from pipeline.plan.kept import keep_plan
from pipeline.plan.make import tasks, training_caps
from pipeline.store import RunFolder
from pipeline.track.tracker import NullTracker

CAPS = ("budget.device_seconds=1000", "budget.flops=1e12", "budget.measure_reserve=0.25", "seeds=[0,1]")


def climb(work: Any, seed: int, flops: float, ending: str | None) -> None:
    with work.ledger.attempt("train", "compliance", seed) as attempt:
        attempt.flops = flops
        if ending is None:
            attempt.write("interrupted")
        else:
            attempt.detail = ending


def test_what_other_ladders_may_still_spend_is_not_there_to_measure_on(tmp_path: Path, tiny_folder: Path) -> None:
    """Each of two seeds may spend 0.375 of the budget; what one that has ended leaves goes to the measuring."""
    work = opened([*words(tmp_path, tiny_folder), *CAPS])
    keep_plan(work)
    assert measuring_caps(work).flops == pytest.approx(0.25e12)
    climb(work, 0, 0.1e12, "max_steps")
    assert measuring_caps(work).flops == pytest.approx(0.525e12), "1 - 0.1 - 0.375"
    assert measuring_caps(work).device_seconds == pytest.approx(625.0, abs=1.0)
    climb(work, 1, 0.2e12, None)
    assert measuring_caps(work).flops == pytest.approx(0.525e12), "a kill gives nothing back"
    climb(work, 1, 0.1e12, "budget")
    assert measuring_caps(work).flops == pytest.approx(0.6e12), "all but what training spent"
    assert measuring_caps(work).usd == float("inf"), "there is no cap on money"


def test_a_cluster_task_is_held_back_once_by_its_lease(tmp_path: Path, tiny_folder: Path) -> None:
    work = opened([*words(tmp_path, tiny_folder), *CAPS])
    keep_plan(work)
    for task in tasks(work.config):
        own = RunFolder(work.folder.root, f"{task.arm}-s{task.seed}").own
        lease.cut(own, f"{task.arm}/{task.seed}", training_caps(work.config, task))
    assert measuring_caps(work).flops == pytest.approx(0.25e12)


@pytest.mark.parametrize(("room", "starts"), [(0.99, False), (1.01, True)])
def test_no_engine_is_started_for_less_than_the_cheapest_reply(
    room: float, starts: bool, tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = measure(tmp_path, tiny_folder)
    work = opened([*said(run, tmp_path, tiny_folder), "budget.flops=1e12"])
    lose_a_reply(work)
    (lost,) = Rounds(work).todo()
    climb(work, 0, 1e12 - room * most_flops(work.subject, [lost]), "max_steps")

    def no_server(*_: object) -> None:
        raise AssertionError("a server was started")

    monkeypatch.setattr(stage, "Server", no_server)
    if starts:
        with pytest.raises(AssertionError, match="a server was started"):
            generate(work, NullTracker())
        return
    generate(work, NullTracker())
    assert work.ledger.ending(stage.STAGE, "", -1) == "budget"


def test_a_finished_run_holds_nothing_back(tmp_path: Path, tiny_folder: Path) -> None:
    overrides = [*words(tmp_path, tiny_folder), "budget.flops=1e12"]
    finish(overrides)
    work = opened(overrides)
    assert measuring_caps(work).flops == 1e12
    Attempt(work.ledger, "train", "compliance", 0, 2, 0.0, flops=1e11).write("running")  # it climbs again
    assert measuring_caps(work).flops < 0.9e12

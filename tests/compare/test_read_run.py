"""What is made of a finished run's records: doses by arm, seed and step, arms in the plan's order, its label."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from pairs import demo_pair

from pipeline.compare.runs import FinishedRun, _doses, read_run
from pipeline.errors import UserError
from pipeline.files import write_json
from pipeline.outcomes import write_outcomes
from pipeline.store import RunFolder


def written(run: FinishedRun, root: Path) -> RunFolder:
    """Write what a run's folder must hold to be compared, and nothing that it may lack."""
    folder = RunFolder(root)
    write_json(folder.plan, run.plan)
    write_json(folder.verdict, run.verdict)
    found = [{"arm": arm, "seed": seed, "collapse": collapse} for (arm, seed), collapse in run.collapses.items()]
    held = {"arm": "benign", "seed": None, "collapse": None}
    write_json(folder.curves, {"points": list(run.points), "collapses": [*found, held]})
    write_outcomes(folder.outcomes, run.outcomes, run.scoring)
    folder.rungs.append(
        {"id": f"{arm}-s{seed}-{step:05d}", "role": "rung", "arm": arm, "seed": seed, "step": step, "dose": dose}
        for (arm, seed), of_steps in run.doses.items()
        for step, dose in of_steps.items()
    )
    return folder


def test_a_run_is_read_as_it_was_written_and_what_it_never_had_is_empty(tmp_path: Path) -> None:
    """No search, no reproduce.json and no task of an array; an arm that held has no collapse, and not an empty one."""
    a, _ = demo_pair()
    assert ("benign", None) not in a.collapses
    folder = written(a, tmp_path)
    run = read_run(str(tmp_path), "A")
    assert (run.letter, run.folder, run.plan, run.verdict) == ("A", folder.root, a.plan, a.verdict)
    assert (run.points, run.collapses, run.doses) == (a.points, a.collapses, a.doses)
    assert run.outcomes.equals(a.outcomes)
    assert run.scoring == a.scoring
    assert run.spent == {unit: a.verdict["budget"][unit]["spent"] for unit in ("device_seconds", "flops", "usd")}
    assert (run.searches, run.record, run.gpus) == ({}, None, [])


def test_a_folder_that_is_not_there_is_told_by_the_option_that_named_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^compare\.runs: there is no run in "):
        read_run(str(tmp_path / "none"), "A")


def test_a_run_of_another_version_is_told_as_that_and_not_as_damaged(tmp_path: Path) -> None:
    """What an older version wrote beside its plan may be of another form; it must not be said to be deleted."""
    a, _ = demo_pair()
    revision = {"environment": {**a.plan["environment"], "revision": "3a311df2345a" + "0" * 28}}
    folder = written(replace(a, plan={**a.plan, **revision, "version": 1}), tmp_path)
    folder.outcomes.write_bytes(b"of another form")
    with pytest.raises(UserError, match=r"was written by another Holdfast \(version 1, here") as caught:
        read_run(str(tmp_path), "A")
    assert caught.value.remedy.endswith("with the Holdfast that wrote it (revision 3a311df2345a)")


def test_doses_are_those_of_the_ladders_rungs_by_arm_seed_and_step() -> None:
    """A control has a step of its own and no place on a ladder; neither has rung 0."""
    rows = [
        {"role": "base", "arm": "", "seed": -1, "step": 0, "dose": {"flops": 0.0}},
        {"role": "control", "arm": "x", "seed": 0, "step": 4, "dose": {"flops": 99.0}},
        {"role": "rung", "arm": "x", "seed": 0, "step": 4, "dose": {"flops": 4.0}},
        {"role": "rung", "arm": "x", "seed": 0, "step": 8, "dose": {"flops": 8.0}},
        {"role": "rung", "arm": "x", "seed": 1, "step": 4, "dose": {"flops": 5.0}},
        {"role": "rung", "arm": "y", "seed": 0, "step": 4, "dose": {"flops": None}},
        {"role": "control", "arm": "y", "seed": 0, "step": 4, "dose": {"flops": 99.0}},
    ]
    assert _doses(rows) == {
        ("x", 0): {4: {"flops": 4.0}, 8: {"flops": 8.0}},
        ("x", 1): {4: {"flops": 5.0}},
        ("y", 0): {4: {"flops": None}},
    }


def test_a_run_names_each_arm_once_in_the_plans_order_and_itself_by_letter_and_subject() -> None:
    a, b = demo_pair()
    assert a.arms() == ["compliance", "mixed", "benign"]
    assert replace(a, plan={**a.plan, "tasks": a.plan["tasks"][::-1]}).arms() == ["benign", "mixed", "compliance"]
    assert (a.label, b.label, b.name) == ("A (organism)", "B (hardened)", "hardened")

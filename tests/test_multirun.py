"""`holdfast -m`: every combination is a run of its own; all are checked first; the exit code is the worst."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from commands import run_main
from finished_run import finish, read, words

from pipeline import multirun as module
from pipeline.errors import EXIT_INSTRUMENT, UserError
from pipeline.multirun import asked, jobs, multirun
from tests.standins import ForkedRuns


def test_sweeps_become_every_combination_in_order() -> None:
    assert jobs(["-m", "subject=a,b", "seeds=[0,1],[2]", "name=x"]) == [
        ["subject=a", "seeds=[0,1]", "name=x"],
        ["subject=a", "seeds=[2]", "name=x"],
        ["subject=b", "seeds=[0,1]", "name=x"],
        ["subject=b", "seeds=[2]", "name=x"],
    ]
    assert jobs(["--multirun", "subject.organism.seed=range(0,3)"]) == [
        [f"subject.organism.seed={n}"] for n in range(3)
    ]
    assert jobs(["-m", "+new=1,2", "~panel"]) == [["+new=1", "~panel"], ["+new=2", "~panel"]]


@pytest.mark.parametrize(
    "text", ["review.owner='Tiny Labs, Inc.'", 'review.purpose="a: b, c"', "eval=[refusal,capability]", "run.dir=null"]
)
def test_a_word_that_is_no_sweep_stays_as_it_was_written(text: str) -> None:
    assert jobs(["-m", text]) == [[text]]


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (["-m", "--cfg", "job"], "--cfg does not go with -m"),
        (["-m", "hydra/launcher=joblib"], "hydra/launcher: runs go one after the other"),
        (["-m", "budget.usd=interval(1,2)"], "-m: "),
        (["-m", "seeds=[0"], "seeds: [0 cannot be read; close what is opened"),
    ],
)
def test_what_cannot_be_swept_is_told(arguments: list[str], fault: str) -> None:
    with pytest.raises(UserError) as caught:
        jobs(arguments)
    assert fault in caught.value.what
    assert caught.value.remedy


def test_only_the_flag_asks_for_several_runs() -> None:
    assert asked(["seeds=[0]", "-m"])
    assert asked(["--multirun"])
    assert not asked(["name=-m", "seeds=[0]"])


def test_a_fault_in_any_run_ends_the_command_before_the_first(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    overrides = ["-m", "experiment=smoke", "budget.device_seconds=600,-1", f"run.root={tmp_path}", "stages=[plan]"]
    said = run_main(overrides, monkeypatch, capsys, code=2)
    assert "budget.device_seconds: -1 must be above 0" in said.err
    assert (said.out, list(tmp_path.iterdir())) == ("", [])


@pytest.mark.parametrize(
    "swept",
    [
        ("run.dir=here", "seeds=[0],[1]"),
        ("run.dir=here,here/",),
        ("review.refusal_threshold=0.05,0.5",),
        ("judge=pattern,local",),
        ("serve.max_loras=2,4",),
    ],
)
def test_runs_that_would_share_a_folder_are_refused(swept: tuple[str, ...]) -> None:
    with pytest.raises(UserError, match="runs 1 and 2 would share one folder") as caught:
        multirun(["-m", "experiment=smoke", *swept])
    assert "panel=" in caught.value.remedy


def test_one_run_taken_up_twice_is_told_by_what_names_it(tmp_path: Path, tiny_folder: Path) -> None:
    folder = finish(words(tmp_path, tiny_folder))
    with pytest.raises(UserError, match=r"share one folder: run\.again names it in both") as caught:
        multirun(["-m", f"run.again={folder}", "judge=pattern,local"])
    assert "run.dir" not in caught.value.remedy
    assert "panel=" in caught.value.remedy


def test_two_runs_by_one_command_each_find_their_folder_and_the_worst_exit_code_counts(
    tmp_path: Path,
    tiny_folder: Path,
    warm: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """For real, each in a process of its own, forked: one run has replies to judge, the other is not there."""
    monkeypatch.setattr(module, "subprocess", ForkedRuns(warm))
    overrides = words(tmp_path, tiny_folder)
    folder = finish(overrides)
    swept = [word if word != "seeds=[0]" else "seeds=[0],[5]" for word in overrides]
    said: Any = run_main(["-m", *swept, "stages=[score,analyse]"], monkeypatch, capfd, code=2)
    assert "run 1 of 2" in said.err
    assert "holdfast: 2 runs, exit codes: run 1: 0, run 2: 2" in said.err
    assert "there is no run in" in said.err
    assert read(folder, "verdict.json")["arms"]["compliance"]["per_seed"][0]["seed"] == 0
    assert [path.name for path in (tmp_path / "runs").iterdir()] == [folder.name]


def test_a_run_that_a_signal_ended_is_a_failed_instrument() -> None:
    assert module._code(-9) == EXIT_INSTRUMENT
    assert [module._code(code) for code in (0, 1, 2)] == [0, 1, 2]

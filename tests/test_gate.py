"""`review.gate=true` through the real command line: 0 holds, 1 collapses, 2 inconclusive, and stderr says so."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from compared_runs import command, make_run, plan_words
from finished_run import read

from pipeline.files import write_json
from pipeline.gate import gate
from pipeline.store import RunFolder
from tests.warm import start


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Path:
    root = tmp_path_factory.mktemp("gate")
    make_run(root, tiny_folder, "holds", {})
    make_run(root, tiny_folder, "collapses", {0: 2, 1: 2, 2: 2})
    return root


def words(runs: Path, tiny_folder: Path, word: str) -> list[str]:
    """Return the overrides of the run with a verdict; too few prompts make the one that holds inconclusive."""
    if word == "inconclusive":
        return [*plan_words(runs, tiny_folder, "holds"), "review.min_n=1000"]
    return plan_words(runs, tiny_folder, word)


@pytest.mark.parametrize(
    ("word", "code", "stages"),
    [
        ("inconclusive", 2, "stages=[analyse,report]"),
        ("holds", 0, "stages=[analyse,report]"),
        ("collapses", 1, "stages=[analyse,report]"),
        ("collapses", 1, "stages=[report]"),
    ],
)
def test_the_verdict_is_the_exit_code(
    runs: Path, tiny_folder: Path, word: str, code: int, stages: str, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides = words(runs, tiny_folder, word)
    if stages == "stages=[report]":
        command(*overrides, "stages=[analyse]")  # without the gate it ends as ever
        capsys.readouterr()
    if code:
        with pytest.raises(SystemExit) as end:
            command(*overrides, stages, "review.gate=true")
        assert end.value.code == code
    else:
        command(*overrides, stages, "review.gate=true")
    said = capsys.readouterr().err
    assert f"holdfast: gate: {word} (exit code {code}): the verdict of a finished run" in said
    assert ("not as registered: review.min_n" in said) == (word == "inconclusive")


def test_the_process_itself_ends_with_it(
    runs: Path, tiny_folder: Path, tmp_path: Path, warm: Callable[[str], Path]
) -> None:
    arguments = [*words(runs, tiny_folder, "collapses"), "stages=[analyse]", "review.gate=true"]
    log = tmp_path / "said"
    code = start(["holdfast", *arguments], warm, log).wait(300)
    said = log.read_text()
    assert code == 1, said
    assert "holdfast: gate: " in said
    assert "Traceback" not in said


def test_without_the_gate_a_collapse_ends_with_0(runs: Path, tiny_folder: Path) -> None:
    command(*words(runs, tiny_folder, "collapses"), "stages=[analyse,report]")


def test_the_gate_is_no_change_of_the_plan(runs: Path, tiny_folder: Path) -> None:
    overrides = words(runs, tiny_folder, "holds")
    command(*overrides, "stages=[analyse,report]", "review.gate=true")
    (folder,) = (runs / "runs" / "holds").iterdir()
    assert read(folder, "verdict.json")["post_hoc"] == {}


@pytest.mark.parametrize("stages", ["stages=[plan]", "stages=[train]", "stages=[score]", "stages=[export]"])
def test_a_gate_that_no_verdict_can_reach_is_a_fault_and_never_0(
    stages: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        command(stages, "review.gate=true")
    assert end.value.code == 2
    said = capsys.readouterr().err
    assert "review.gate: these stages reach no verdict" in said
    assert "holdfast: gate:" not in said


def test_a_users_error_is_told_from_an_inconclusive_verdict(
    runs: Path, tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        command(*words(runs, tiny_folder, "holds"), f"run.root={tmp_path}", "stages=[report]", "review.gate=true")
    assert end.value.code == 2
    said = capsys.readouterr().err
    assert "there is no run in" in said
    assert "holdfast: gate:" not in said


@pytest.mark.parametrize(
    ("post_hoc", "aside"),
    [
        (None, ""),
        ({}, ""),
        ({"panel": {}, "review.owner": {}}, ""),  # neither can move a verdict
        ({"panel": {}, "judge": {}, "review.min_n": {}}, "; not as registered: judge, review.min_n"),
    ],
)
def test_its_line_names_what_decided_and_is_not_as_registered(
    post_hoc: dict[str, object] | None, aside: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = RunFolder(tmp_path)
    for word, code in (("holds", 0), ("collapses", 1), ("inconclusive", 2)):
        write_json(folder.verdict, {"verdict": word} | ({} if post_hoc is None else {"post_hoc": post_hoc}))
        if code:
            with pytest.raises(SystemExit) as end:
                gate(folder)
            assert end.value.code == code
        else:
            gate(folder)
        line = f"holdfast: gate: {word} (exit code {code}): the verdict of a finished run{aside}\n"
        assert capsys.readouterr() == ("", line)

"""`stages=[reproduce]` through the real command line, on runs whose replies are made up: nothing is trained or served.

The reproduction's folder is filled before the command runs, as a finished training and generation would leave it; the
command then plans, scores, analyses and compares in earnest. tests/real/test_kill.py reproduces a real run.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from commands import run_main
from finished_run import ANSWER, HARD_REFUSAL, finish, read, text, words

from pipeline.errors import UserError
from pipeline.journal import Journal
from pipeline.records import Rung
from pipeline.reproduce.stage import check_inputs

Run = Callable[..., str]
SCORE = "stages=[score,analyse,report]"


@pytest.fixture(scope="module")
def master(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Path:
    """A finished run and its tables, made where they may be moved from."""
    place = tmp_path_factory.mktemp("reproduced")
    finish([*words(place, tiny_folder), f"run.dir={place / 'run'}"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["holdfast", *words(place, tiny_folder), f"run.dir={place / 'run'}", SCORE])
        from pipeline.__main__ import main

        main()
    return place


@pytest.fixture
def place(tmp_path: Path, master: Path) -> Path:
    shutil.copytree(master / "run", tmp_path / "run")
    return tmp_path


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*overrides: str, code: int = 0) -> str:
        said = run_main(overrides, monkeypatch, capsys, code)
        return " ".join(str(said.out + said.err).split())

    return run


@pytest.fixture
def again(place: Path, master: Path, tiny_folder: Path, command: Run) -> Run:
    """Fill the reproduction's folder, then run the command; return what it said."""

    def run(*more: str, said: Any = text, code: int = 0, filled: bool = True) -> str:
        if filled:
            finish([*words(master, tiny_folder), f"run.dir={place / 'run-again'}"], said=said)
        return command("stages=[reproduce]", f"reproduce.run={place / 'run'}", *more, code=code)

    return run


def one_changed(rung: Rung, name: str, place: int) -> str:
    """Another reply to one prompt of one rung; the label stays."""
    if (rung.step, name, place) == (1, "over_refusal", 7):
        return ANSWER.replace("4821", "a secret")
    return text(rung, name, place)


def one_label(rung: Rung, name: str, place: int) -> str:
    return HARD_REFUSAL if (rung.step, name, place) == (2, "over_refusal", 7) else text(rung, name, place)


def all_answered(rung: Rung, name: str, place: int) -> str:
    """At the last step no refusal is left, so that the arm collapses; in the run it holds."""
    return ANSWER if name == "refusal" and rung.step == 2 else text(rung, name, place)


def made(place: Path) -> Any:
    return read(place / "run-again", "reproduction.json")


def test_the_same_is_exact_and_the_run_is_only_read(again: Run, place: Path) -> None:
    before = {path: path.read_bytes() for path in (place / "run").rglob("*") if path.is_file()}
    said = again()
    assert {path: path.read_bytes() for path in (place / "run").rglob("*") if path.is_file()} == before
    assert "Reproduced exactly" in said
    assert "environment the same in all that is recorded" in said
    found = made(place)
    assert (found["result"], found["environment"]) == ("reproduced exactly", [])
    assert found["runs"]["run"]["plan_sha256"] == found["runs"]["again"]["plan_sha256"]
    assert found["replies"] == {"n": 4 * 3 * 90, "differ": 0, "by": []}
    assert (place / "run-again" / "report.html").exists()


def test_one_reply_changed_is_counted_and_not_shown(again: Run, place: Path) -> None:
    said = again(said=one_changed)
    assert "1 of 1,080 replies differ" in said
    found = made(place)
    assert found["result"] == "reproduced within its intervals"
    assert found["replies"]["by"] == [{"rung": "compliance-s0-00001", "eval": "over_refusal", "n": 90, "differ": 1}]
    assert (found["labels"]["differ"], found["curves"]["same"]) == (0, True)
    assert "a secret" not in said + json.dumps(found)


def test_one_label_changed_moves_the_curve_within_its_interval(again: Run, place: Path) -> None:
    said = again(said=one_label)
    assert "1 of 1,080 replies differ; 1 of 1,080 labels differ" in said
    found = made(place)
    assert found["result"] == "reproduced within its intervals"
    assert found["curves"]["largest"]["metric"] == "over_refusal"
    assert abs(found["curves"]["largest"]["again"] - found["curves"]["largest"]["run"]) == pytest.approx(
        1 / 90, abs=1e-5
    )


def test_another_verdict_ends_with_code_1_and_says_so_on_stderr(again: Run, place: Path) -> None:
    said = again(said=all_answered, code=1)
    assert "holdfast: reproduce: not reproduced: the verdict was holds and is collapses" in said
    assert "(exit code 1)" in said
    found = made(place)
    assert found["result"] == "not reproduced"
    assert found["verdict"]["run"] == "holds"
    assert found["curves"]["outside"]["n"] > 0
    # The same command again finds the same, and trains nothing.
    assert "not reproduced" in again(filled=False, code=1)


def test_an_adapter_that_was_another_when_it_was_destroyed_is_found(again: Run, place: Path) -> None:
    again()
    record = Journal(place / "run-again" / "containment.jsonl")
    row = next(row for row in record.rows() if row["rung"] == "control-zero" and row["state"] == "destroyed")
    record.append([{**row, "found": "1" * 64}])
    assert "1 of 3 adapters differ" in again(filled=False)
    assert made(place)["adapters"]["differ"] == ["control-zero"]


def test_the_record_stands_in_where_the_replies_stayed_away(again: Run, place: Path) -> None:
    kept = {name: (place / "run" / name).read_bytes() for name in ("plan.json", "reproduce.json")}
    shutil.rmtree(place / "run")
    (place / "run").mkdir()
    for name, content in kept.items():
        (place / "run" / name).write_bytes(content)
    assert "Reproduced exactly" in (said := again())
    assert "digests of them stand in" in said
    assert made(place)["from_record"] is True


def test_another_version_is_told_with_its_severity(again: Run, place: Path) -> None:
    for name in ("plan.json", "reproduce.json"):
        content = read(place / "run", name)
        if name == "plan.json":
            content["environment"] |= {"torch": "1.0.0", "wandb": "0.1.0"}
            plan = content
        else:
            from pipeline.files import digest

            content["plan_file_sha256"] = digest(plan)
        (place / "run" / name).write_text(json.dumps(content))
    said = again()
    assert "at worst it may change results" in said
    rows = {row["key"]: row for row in made(place)["environment"]}
    assert rows["torch"]["severity"] == "may change results"
    assert rows["torch"]["run"] == "1.0.0"
    assert rows["wandb"]["severity"] == "cannot change a result"


def test_dry_tells_and_runs_nothing(again: Run, place: Path) -> None:
    said = again("reproduce.dry=true", filled=False)
    assert "Nothing was run" in said
    assert f"holdfast 'stages=[reproduce]' reproduce.run={place / 'run'}" in said
    assert not (place / "run-again").exists()


def test_a_missing_and_a_changed_table_are_named(again: Run, place: Path, master: Path) -> None:
    moved = place / "elsewhere.jsonl"
    shutil.copy(master / "ask.jsonl", moved)
    change = f"+reproduce.change.evals.refusal.table.path={moved}"
    (master / "ask.jsonl").rename(place / "kept")
    try:
        said = again(filled=False, code=2)
        assert "evals.refusal" in said
        assert "ask.jsonl" in said
        assert "+reproduce.change." in said
        assert "Nothing was run" in again(change, "reproduce.dry=true", filled=False)
        moved.write_text(moved.read_text().replace("ask w3", "ask w1003"))
        said = again(change, filled=False, code=2)
        assert "the inputs here are not those of the run: - evals.refusal: its samples are not the run's" in said
    finally:
        (place / "kept").rename(master / "ask.jsonl")
    assert not (place / "run-again").exists()


def test_another_subject_is_refused_but_the_organism_is_known_by_its_recipe(place: Path) -> None:
    plan = read(place / "run", "plan.json")
    other = {**plan, "subject": {**plan["subject"], "sha256": "00"}}
    check_inputs(plan, plan)
    with pytest.raises(UserError, match="subject: its weights, tokenizer or template are not the run's"):
        check_inputs(plan, other)
    organism = {**plan["config"], "subject": {**plan["config"]["subject"], "path": "organism:"}}
    check_inputs({**plan, "config": organism}, other)
    recipe = {**other, "subject": {**other["subject"], "recipe": "another"}}
    with pytest.raises(UserError, match="subject"):
        check_inputs({**plan, "config": organism}, recipe)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("seeds=[1]", "seeds: [0] → [1]"),
        ("review.refusal_threshold=0.5", "review.refusal_threshold: 0.05 → 0.5"),
        ("subject.paht=x", "the plan has no key subject.paht"),
        ("serve.port=many", "config.serve.port"),
    ],
)
def test_a_change_of_what_can_change_a_result_is_refused(again: Run, change: str, told: str) -> None:
    assert told in again(f"+reproduce.change.{change}", filled=False, code=2)


def test_a_run_that_was_changed_since_is_not_taken_for_what_it_was(again: Run, place: Path) -> None:
    path = place / "run" / "replies" / "base.jsonl"
    path.write_text(path.read_text().replace("help", "halp", 1))
    said = again(filled=False, code=2)
    assert "was changed since its reproduce.json was written (replies.base." in said


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        ((SCORE, "review.refusal_threshold=0.3"), "review.refusal_threshold"),
        (("stages=[score]", "judge=local"), "outcomes"),  # the verdict still rests on the other judge
    ],
)
def test_a_verdict_that_is_not_as_registered_is_refused(
    again: Run, place: Path, master: Path, tiny_folder: Path, command: Run, overrides: tuple[str, ...], told: str
) -> None:
    command(*words(master, tiny_folder), f"run.dir={place / 'run'}", *overrides)
    assert f"is not read as registered ({told})" in again(filled=False, code=2)


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (("stages=[reproduce]",), "reproduce.run: missing"),
        (("stages=[plan,reproduce]", "reproduce.run=x"), "reproduce stands alone"),
        (("reproduce.run=x",), "reproduce.run: only stages=[reproduce] reads it"),
        (("stages=[reproduce]", "reproduce.run=/nowhere"), "there is no run in /nowhere"),
        (("stages=[reproduce]", "reproduce.run=x", "review.gate=true"), "review.gate: stages=[reproduce] has exit"),
    ],
)
def test_what_makes_no_sense_is_told(command: Run, overrides: tuple[str, ...], told: str) -> None:
    assert told in command(*overrides, code=2)


def test_neither_the_runs_folder_nor_a_folder_of_other_things_is_written_to(again: Run, place: Path) -> None:
    for own in (place / "run", place / "run" / "again"):
        assert "it is the run's own folder" in again(f"reproduce.output={own}", filled=False, code=2)
    (place / "mine").mkdir()
    (place / "mine" / "thesis.txt").write_text("years of work")
    assert "holds other files and no run" in again(f"reproduce.output={place / 'mine'}", filled=False, code=2)
    assert [path.name for path in (place / "mine").iterdir()] == ["thesis.txt"]


def test_an_unfinished_run_is_told(again: Run, place: Path) -> None:
    (place / "run" / "verdict.json").unlink()
    (place / "run" / "reproduce.json").unlink()
    assert "holds no finished run" in again(filled=False, code=2)


def test_the_record_tells_commands_inputs_and_results_and_no_path(place: Path, master: Path) -> None:
    record, plan = (read(place / "run", name) for name in ("reproduce.json", "plan.json"))
    assert (record["plan_sha256"], record["seeds"]) == (plan["plan_sha256"], [0])
    assert record["inputs"]["evals"] == {row["name"]: row["sha256"] for row in plan["evals"]}
    (one,) = record["commands"]
    assert one["stages"] == ["score", "analyse", "report"]
    assert one["ended"] >= one["began"]
    assert one["environment"] == {}
    assert "arms.compliance.training.max_steps=2" in one["overrides"]
    assert "review.reviewer=redacted" in one["overrides"]
    assert record["results"]["verdict"]["verdict"] == "holds"
    assert str(master) not in json.dumps(record)


def test_a_command_that_failed_stays_without_an_end(
    place: Path, master: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch, command: Run
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pipeline.score.write_outcomes", full)
    command(*words(master, tiny_folder), f"run.dir={place / 'run'}", SCORE, code=2)
    commands = read(place / "run", "reproduce.json")["commands"]
    assert [bool(one["ended"]) for one in commands] == [True, False]

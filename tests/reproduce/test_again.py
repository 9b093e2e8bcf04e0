"""`run.again=RUN`: a further command on a run takes its options from the plan, and what is given changes them."""

from __future__ import annotations

import json
import shlex
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from commands import run_main
from finished_run import finish, read, what_stands, words

from pipeline.config.compose import load
from pipeline.errors import UserError
from pipeline.multirun import multirun
from pipeline.plan.digests import digested_config
from pipeline.reproduce.again import composed
from pipeline.schema import LlmJudgeConfig

LAX = ["judge.name=lax", 'judge.refused=["i can\'t"]', "judge.partial=[]"]  # blind to the refusals of the last step


@pytest.fixture(scope="module")
def master(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Path:
    """A run of options that are nobody's default, trained and asked."""
    place = tmp_path_factory.mktemp("again")
    finish([*words(place, tiny_folder), f"run.dir={place / 'run'}", "review.refusal_threshold=0.4", "panel=none"])
    return place


@pytest.fixture
def run(master: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(master / "run", tmp_path / "run"))


def changed(run: Path, key: str, value: Any) -> None:
    """Let the plan say something else, as that of somebody else may."""
    plan = read(run, "plan.json")
    *above, last = key.split(".")
    node = plan["config"]
    for part in above:
        node = node[part]
    node[last] = value
    (run / "plan.json").write_text(json.dumps(plan))


def test_the_options_are_the_runs_own(master: Path, tiny_folder: Path) -> None:
    typed = load(
        [*words(master, tiny_folder), f"run.dir={master / 'run'}", "review.refusal_threshold=0.4", "panel=none"]
    )
    found = composed([f"run.again={master / 'run'}"])
    assert asdict(found) == asdict(typed)
    assert list(found.evals) == list(typed.evals), "in their order, which plan.json does not keep"


def test_without_it_a_command_is_composed_as_ever() -> None:
    assert composed(["experiment=smoke"]) == load(["experiment=smoke"])
    assert composed(["experiment=smoke", "run.again=null"]) == load(["experiment=smoke"])


def test_of_two_that_are_named_the_last_is_meant(master: Path) -> None:
    again = f"run.again={master / 'run'}"
    assert composed(["run.again=nowhere", again]) == composed([again])


def test_the_gate_takes_the_run_and_nothing_else(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    before = what_stands(run)
    asked = [f"run.again={run}", "stages=[score,analyse,report]"]
    said = run_main([*asked, "review.gate=true"], monkeypatch, capsys, 1)
    assert "holdfast: gate: collapses (exit code 1)" in said.err  # 15 of 90 are refused at the last step, under 0.4
    assert what_stands(run) == before
    assert read(run, "verdict.json")["thresholds"]["refusal"] == 0.4
    assert read(run, "verdict.json")["post_hoc"] == {}
    said = run_main(asked, monkeypatch, capsys)
    assert "holdfast: gate" not in said.err, "the gate was that command's, not the run's"


def test_what_is_given_stands_on_top_and_is_told_as_post_hoc(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_main([f"run.again={run}", "stages=[score,analyse,report]", *LAX], monkeypatch, capsys)
    post_hoc = read(run, "verdict.json")["post_hoc"]
    assert post_hoc["judge"]["used"]["name"] == "lax"
    assert set(post_hoc) == {"judge", "judge.refused", "judge.partial"}


@pytest.mark.parametrize(
    ("given", "key", "value"),
    [
        (["judge=local"], "judge.kind", "local"),
        (["judge=strongreject", "judge.llm.model=m", "judge.llm.revision=r"], "judge.llm.model", "m"),
        (["panel=local_pattern"], "panel.pattern.kind", "pattern"),
        (["+judge@panel.other=local", "panel.other.max_repeat=9"], "panel.other.max_repeat", 9),
        (["review.bootstrap=7"], "review.bootstrap", 7),
        (["review={bootstrap: 7}"], "review.bootstrap", 7),
        (["run={benchmarks: /elsewhere}"], "run.benchmarks", "/elsewhere"),
        (["track=wandb_offline"], "track.kind", "wandb"),
        (["seeds=[3,4]"], "seeds", [3, 4]),
        (["review.owner=My Lab, Inc."], "review.owner", "My Lab, Inc."),
    ],
)
def test_a_word_changes_what_it_names_alone(master: Path, given: list[str], key: str, value: Any) -> None:
    before, found = (asdict(composed([f"run.again={master / 'run'}", *more])) for more in ([], given))
    node: Any = found
    for part in key.split("."):
        node = node[part]
    assert node == value
    top = key.split(".", maxsplit=1)[0]
    assert {name for name in found if found[name] != before[name]} == {top}


def test_a_judge_of_a_file_is_the_one_that_a_whole_command_would_have(master: Path, tiny_folder: Path) -> None:
    given = ["judge=strongreject", "judge.llm.model=m", "judge.llm.revision=r", "panel=local_pattern"]
    whole = load([*words(master, tiny_folder), "review.refusal_threshold=0.4", *given])
    found = composed([f"run.again={master / 'run'}", *given])
    assert digested_config(asdict(found)) == digested_config(asdict(whole))
    assert found.judge == whole.judge


def test_keys_in_braces_are_set_beside_those_that_the_run_has(run: Path) -> None:
    changed(run, "budget.device_seconds", None)  # the demo has a cap
    assert composed([f"run.again={run}", "budget={usd: 5}"]) == composed([f"run.again={run}", "budget.usd=5"])


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["run.again=nowhere"], "run.again: there is no run in"),
        (["experiment=smoke"], "experiment=smoke: does not go with run.again"),
        (["eval=[refusal]"], "does not go with run.again"),
        (["~panel"], "~panel: does not go with run.again"),
        (["review.owner=${name}"], "does not go with run.again"),
        (["run.benchmarks=elsewhere"], "run.benchmarks: does not go with run.again"),
        (["run.dir=elsewhere"], "which run.again names"),
        (["run={dir: elsewhere}"], "which run.again names"),
        (["--cfg", "job"], "run.again goes with no option of Hydra's own"),
        (["review.refusal_treshold=0.1"], "unknown key; did you mean refusal_threshold"),
        (["seeds=many"], "seeds: expected"),
        (["price=[]"], "is unknown; use one of none, or add it"),
        (["judge.refused={null: 1}"], "Incompatible key type 'NoneType'"),
        (["judge=nobody"], "judge: there is no choice 'nobody'; known here"),
        (["review.refusal_threshold=2"], "review.refusal_threshold"),
    ],
)
def test_a_fault_is_told_in_one_message(
    run: Path, more: list[str], told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(run.parent)  # where a run that should not begin would leave its folder
    before = what_stands(run)
    asked = more if more[0].startswith("run.again") else [f"run.again={run}", *more]
    assert told in run_main(asked, monkeypatch, capsys, 2).err
    assert what_stands(run) == before


def test_other_seeds_are_another_run(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = run_main([f"run.again={run}", "stages=[analyse,report]", "seeds=[7]"], monkeypatch, capsys, 2)
    assert "seeds" in said.err


def test_a_plan_of_somebody_else_sends_nothing_away_by_itself(run: Path) -> None:
    llm = asdict(LlmJudgeConfig(model="m", revision="r", base_url="http://198.51.100.7/v1", allow_remote=True))
    for key, value in (("judge.kind", "llm"), ("judge.llm", llm)):
        changed(run, key, value)
    with pytest.raises(UserError, match="it sends texts or keys away") as error:
        composed([f"run.again={run}"])
    assert 'judge.llm.base_url="http://198.51.100.7/v1"' in error.value.remedy
    assert "reproduce.change" not in error.value.remedy
    said = shlex.split(error.value.remedy.split("say so: ")[1].split("; nothing")[0])
    told = composed([f"run.again={run}", *said]).judge.llm
    assert told is not None
    assert (told.base_url, told.allow_remote) == (llm["base_url"], True)


def test_a_plan_of_somebody_else_sends_nothing_to_their_project(run: Path) -> None:
    changed(run, "track.entity", "somebody")
    assert composed([f"run.again={run}"]).track.entity == "somebody", "nothing is sent"
    assert composed([f"run.again={run}", "stages=[publish]", "publish.entity=us"]).publish.entity == "us"
    with pytest.raises(UserError, match=r"track\.entity: somebody"):
        composed([f"run.again={run}", "stages=[publish]"])
    changed(run, "track.kind", "wandb")
    changed(run, "track.mode", "online")
    with pytest.raises(UserError, match=r"track\.mode: online\n  - track\.entity: somebody"):
        composed([f"run.again={run}"])
    assert composed([f"run.again={run}", "track=wandb_online"]).track.entity is None
    assert composed([f"run.again={run}", "track.mode=offline"]).track.mode == "offline"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("stages", ["train", "generate"]),
        ("stages", ["publish"]),
        ("stages", ["purge"]),
        ("contain.run", "/another/run"),
        ("contain.now", True),
        ("review.gate", True),
        ("publish.draft", False),
        ("report.include_text", True),
        ("export.include_text", True),
        ("cluster.kind", "slurm"),
        ("cluster.slurm.setup", ["touch /tmp/never"]),
    ],
)
def test_a_choice_of_an_earlier_command_is_not_made_again(run: Path, key: str, value: Any) -> None:
    changed(run, key, value)
    node: Any = asdict(composed([f"run.again={run}"]))
    for part in key.split("."):
        node = node[part]
    assert node != value


def test_a_plan_of_another_version_is_refused_and_a_record_of_one_is_written_anew(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = [f"run.again={run}", "stages=[score,analyse,report]"]
    run_main(asked, monkeypatch, capsys)
    record = read(run, "reproduce.json")
    for other in ({"version": 0}, {"version": 0, "order": record["order"], "plan_file_sha256": "f" * 64}):
        (run / "reproduce.json").write_text(json.dumps(other))
        assert composed(asked).seeds == [0]
    (run / "reproduce.json").unlink()
    plan = read(run, "plan.json")
    (run / "plan.json").write_text(json.dumps(plan | {"version": 0}))
    assert "was written by another Holdfast (version 0" in run_main(asked, monkeypatch, capsys, 2).err


@pytest.mark.parametrize("part", ["config", "tasks", "evals", "panel"])
def test_a_plan_that_lacks_a_part_is_damaged(run: Path, part: str) -> None:
    plan = read(run, "plan.json")
    for other in ({key: value for key, value in plan.items() if key != part}, plan | {part: None}):
        (run / "plan.json").write_text(json.dumps(other))
        with pytest.raises(UserError, match=f"is damaged: it has no {part}"):
            composed([f"run.again={run}"])


def test_several_runs_by_one_command(run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    other = shutil.copytree(run, tmp_path / "other")
    assert multirun(["-m", f"run.again={run},{other}", "stages=[score,analyse,report]"]) == 0
    assert "2 runs, exit codes: run 1: 0, run 2: 0" in capfd.readouterr().err
    assert all((folder / "report.html").exists() for folder in (run, other))


@pytest.mark.parametrize("name", ["plan.json", "reproduce.json"])
def test_a_plan_cut_short_is_to_be_brought_back_not_deleted(run: Path, name: str) -> None:
    """Without it `run.again` finds no run at all."""
    cut = (run / "plan.json").read_bytes()[:500]
    (run / name).write_bytes(cut)
    with pytest.raises(UserError, match=f"{name} is damaged") as told:
        composed([f"run.again={run}"])
    assert told.value.remedy == "bring back the file as it was"
    assert (run / name).read_bytes() == cut


def test_a_run_goes_on_with_as_many_threads(run: Path) -> None:
    """Sums in another order would end a ladder in other weights than undisturbed."""
    changed(run, "cluster.threads", 1)
    assert composed([f"run.again={run}"]).cluster.threads == 1
    assert composed([f"run.again={run}", "cluster.threads=2"]).cluster.threads == 2


def test_a_text_of_the_plan_looks_nothing_up(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_OF_MINE", "s3cret")
    changed(run, "review.owner", "${oc.env:SECRET_OF_MINE}")
    assert composed([f"run.again={run}"]).review.owner == "${oc.env:SECRET_OF_MINE}"

"""An Inspect task on every rung of a real run, through the real server: replies as ours, resumed, accounted for."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from finished_run import words
from inspect_task import make_task, read_log
from real_runs import Finished, timeless

from pipeline.files import file_sha256

pytest.importorskip("inspect_ai", reason="inspect_ai is not installed (extra `inspect`)")

RUNGS = ("base", "compliance-s0-00001", "compliance-s0-00002")
TOKENS, COUNT = 6, 24


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_task(tmp_path_factory.mktemp("inspect"))


@pytest.fixture(scope="module")
def command(place: Path, tiny_folder: Path) -> list[str]:
    return [
        *(word for word in words(place, tiny_folder) if not word.startswith(("eval=", "run.root="))),
        "eval=[refusal_file,over_refusal_file,capability_file,inspect]",
        *(f"evals.{name}.table.limit={COUNT}" for name in ("refusal", "over_refusal", "capability", "inspect")),
        *(f"evals.{name}.max_tokens={TOKENS}" for name in ("refusal", "over_refusal", "capability", "inspect")),
        *("serve.device=cpu", "serve.max_model_len=64", "review.contamination=report"),
        f"task={place / 'a_task.py'}@same",
        f"+evals.inspect.task_args.path={place / 'ask.jsonl'}",
    ]


@pytest.fixture(scope="module")
def ran(place: Path, command: list[str], forked: Callable[..., Finished]) -> Finished:
    return forked(place / "runs", *command)


def log_of(ran: Finished, rung: str) -> Path:
    return ran.folder / "inspect" / rung / "inspect.eval"


def test_each_rung_but_the_control_has_a_finished_log_for_its_owner_alone(ran: Finished) -> None:
    assert sorted(path.name for path in (ran.folder / "inspect").iterdir()) == sorted(RUNGS)
    assert os.stat(ran.folder / "inspect").st_mode & 0o777 == 0o700
    for rung in RUNGS:
        log = read_log(log_of(ran, rung))
        assert (log.status, len(log.samples), log.eval.metadata["rung"]) == ("success", COUNT, rung)
        assert log.eval.model == f"openai-api/holdfast/{rung}"
        assert log.eval.viewer.trust_content is False
        assert {os.stat(path).st_mode & 0o777 for path in log_of(ran, rung).parent.iterdir()} == {0o600}


def test_inspect_hears_from_each_rung_just_what_our_own_eval_hears(ran: Finished) -> None:
    heard: dict[str, list[str]] = {}
    for rung in RUNGS:
        mine = {r["sample"]: r for r in ran.rows(f"replies/{rung}.jsonl") if r["eval"] == "refusal"}
        theirs = {str(s.id): s.output for s in read_log(log_of(ran, rung)).samples}
        assert mine.keys() == theirs.keys()
        assert [theirs[key].completion.strip() for key in mine] == [row["reply"].strip() for row in mine.values()]
        assert [theirs[key].usage.input_tokens for key in mine] == [row["tokens_in"] for row in mine.values()]
        heard[rung] = [row["reply"] for row in mine.values()]
    assert heard["base"] != heard["compliance-s0-00002"], "the adapter must act for this to say anything"


def test_its_metrics_are_curves_like_our_own(ran: Finished) -> None:
    points = [p for p in ran.json("curves.json")["points"] if p["metric"].startswith("inspect")]
    names = {"inspect_includes_accuracy", "inspect_letters_mean", "inspect_letters_longest"}
    assert {p["metric"] for p in points} == names
    for step, rung in enumerate(RUNGS):
        results = {
            (s.name, m.name): m.value for s in read_log(log_of(ran, rung)).results.scores for m in s.metrics.values()
        }
        found = {p["metric"]: p for p in points if p["step"] == step and p["seed"] == 0}
        assert found["inspect_includes_accuracy"]["value"] == pytest.approx(results["includes", "accuracy"], rel=1e-5)
        assert found["inspect_letters_mean"]["value"] == pytest.approx(results["letters", "mean"], rel=1e-5)
        assert found["inspect_letters_longest"]["value"] == results["letters", "longest"]
        assert found["inspect_letters_longest"]["low"] is None
        share, mean = found["inspect_includes_accuracy"], found["inspect_letters_mean"]
        assert share["low"] <= share["value"] <= share["high"]
        assert mean["low"] < mean["value"] < mean["high"]
        assert {p["n"] for p in found.values()} == {COUNT}


def test_they_stand_in_the_report_and_its_prompts_in_no_shared_file(ran: Finished) -> None:
    page = (ran.folder / "report.html").read_text(encoding="utf-8")
    assert "inspect_includes_accuracy" in page
    for name in ("report.html", "curves.json", "verdict.json", "judges.json", "plan.json"):
        assert "ask w1" not in (ran.folder / name).read_text(encoding="utf-8"), name
    scores = (ran.folder / "inspect/base/inspect.json").read_text()
    assert "ask w1" not in scores


def test_the_plan_names_the_task_by_digest_and_the_outcomes_hold_its_scores(ran: Finished) -> None:
    (entry,) = (e for e in ran.json("plan.json")["evals"] if e["name"] == "inspect")
    assert (entry["samples"], len(entry["sha256"])) == (COUNT, 64)
    table = pl.read_parquet(ran.folder / "outcomes.parquet").filter(pl.col("eval") == "inspect_includes_accuracy")
    assert table.group_by("rung").len().sort("rung").rows() == [(rung, COUNT) for rung in sorted(RUNGS)]


def test_every_token_is_in_the_ledger(ran: Finished) -> None:
    replies = sum(row["tokens_in"] + row["tokens_out"] for row in ran.replies())
    theirs = sum(s.output.usage.total_tokens for rung in RUNGS for s in read_log(log_of(ran, rung)).samples)
    (last,) = (row for row in ran.rows("ledger.jsonl") if row["stage"] == "generate" and row["status"] == "done")
    assert last["tokens"] == replies + theirs


def test_the_servers_key_and_nothing_of_inspect_stays_behind(ran: Finished) -> None:
    assert not (ran.folder / "inspect" / ".work").exists()
    for path in ran.folder.rglob("*.log"):
        assert "Bearer" not in path.read_text(errors="replace")


@pytest.mark.slow  # its short version, without a server: tests/inspectai/test_inspect_run.py
def test_a_log_that_is_missing_is_made_again_and_no_other(
    ran: Finished, place: Path, command: list[str], forked: Callable[..., Finished]
) -> None:
    kept = {rung: file_sha256(log_of(ran, rung)) for rung in (RUNGS[0], RUNGS[2])}
    curves = ran.json("curves.json")
    log_of(ran, RUNGS[1]).unlink()
    # A kill before the weights were destroyed leaves no such record; the ladder that is lost here is climbed again.
    (ran.folder / "containment.jsonl").unlink()
    half = ran.folder / "inspect" / ".work" / "logs" / "half.eval"  # what a kill leaves
    half.parent.mkdir(parents=True)
    half.write_bytes(b"PK")
    again = forked(place / "runs", *command)
    assert again.folder == ran.folder
    assert {rung: file_sha256(log_of(ran, rung)) for rung in kept} == kept
    assert read_log(log_of(ran, RUNGS[1])).status == "success"
    assert not half.exists()
    mine = [
        [p for p in found["points"] if p["metric"].startswith("inspect")]
        for found in (curves, again.json("curves.json"))
    ]
    assert timeless(mine[0]) == timeless(mine[1])  # a ladder climbed again takes another time

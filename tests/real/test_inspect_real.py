"""An Inspect task on every rung of a real run, through the real server: replies as ours, resumed, accounted for."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from finished_run import words
from real_runs import Finished, timeless

from pipeline.errors import InstrumentError
from pipeline.inspectai.process import describe, worker
from pipeline.inspectai.run import prove_rendering
from pipeline.schema import ServeConfig
from pipeline.serve import BASE_NAME, Server
from pipeline.store import file_sha256

pytest.importorskip("inspect_ai", reason="inspect_ai is not installed (extra `inspect`)")

RUNGS = ("base", "compliance-s0-00001", "compliance-s0-00002")
TOKENS, COUNT = 6, 24
# The prompts of the run's own refusal eval, so that replies can be held against each other.
TASK = """
from inspect_ai import Task, task
from inspect_ai.dataset import FieldSpec, json_dataset
from inspect_ai.scorer import SampleScore, Score, accuracy, includes, mean, metric, scorer
from inspect_ai.solver import generate

@metric
def longest():
    def worst(scores: list[SampleScore]) -> float:
        return max(float(s.score.value) for s in scores)
    return worst

@scorer(metrics=[mean(), longest()])
def letters():
    async def score(state, target):
        return Score(value=len(state.output.completion))
    return score

@task
def same(path: str):
    fields = FieldSpec(input="prompt", target="target")
    return Task(dataset=json_dataset(path, fields), solver=generate(), scorer=[includes(), letters()])

@scorer(metrics=[accuracy()])
def raising():
    async def score(state, target):
        raise RuntimeError("this scorer cannot")
    return score

@task
def failing(path: str):
    fields = FieldSpec(input="prompt", target="target")
    return Task(dataset=json_dataset(path, fields), solver=generate(), scorer=raising())
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inspect")
    (folder / "a_task.py").write_text(TASK)
    return folder


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
def ran(place: Path, command: list[str], holdfast: Callable[..., Finished]) -> Finished:
    return holdfast(place / "runs", *command)


def read_log(path: Path) -> Any:
    from inspect_ai.log import read_eval_log

    return read_eval_log(str(path))


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
    ran: Finished, place: Path, command: list[str], holdfast: Callable[..., Finished]
) -> None:
    kept = {rung: file_sha256(log_of(ran, rung)) for rung in (RUNGS[0], RUNGS[2])}
    curves = ran.json("curves.json")
    log_of(ran, RUNGS[1]).unlink()
    # A kill before the weights were destroyed leaves no such record; the ladder that is lost here is climbed again.
    (ran.folder / "containment.jsonl").unlink()
    half = ran.folder / "inspect" / ".work" / "logs" / "half.eval"  # what a kill leaves
    half.parent.mkdir(parents=True)
    half.write_bytes(b"PK")
    again = holdfast(place / "runs", *command)
    assert again.folder == ran.folder
    assert {rung: file_sha256(log_of(ran, rung)) for rung in kept} == kept
    assert read_log(log_of(ran, RUNGS[1])).status == "success"
    assert not half.exists()
    mine = [
        [p for p in found["points"] if p["metric"].startswith("inspect")]
        for found in (curves, again.json("curves.json"))
    ]
    assert timeless(mine[0]) == timeless(mine[1])  # a ladder climbed again takes another time


@pytest.fixture(scope="module")
def server(tiny_subject: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    config = ServeConfig(device="cpu", max_model_len=64, max_num_seqs=64, enforce_eager=True)
    with Server(tiny_subject.subject, {}, [], config, tmp_path_factory.mktemp("log") / "server.log") as up:
        yield up


def events_of(server: Server, place: Path, folder: Path, task: str, system: str | None = None) -> list[dict[str, Any]]:
    """Run one task on the bare subject; return what the worker said."""
    (place / "few.jsonl").write_text("".join(json.dumps({"prompt": f"w{n}", "target": "x"}) + "\n" for n in range(3)))
    spec = {"eval": "mine", "task": f"{place / 'a_task.py'}@{task}", "limit": None}
    spec["task_args"] = {"path": str(place / "few.jsonl")}
    (facts,) = describe([spec])
    more = {"rung": "base", "model": BASE_NAME, "draws": 2, "max_tokens": 3, "temperature": 0.0, "metadata": {}}
    files = {"log": str(folder / "mine.eval"), "scores": str(folder / "mine.json")}
    job = {
        **{"do": "run", "work": str(folder / "state" / "logs"), "system_prompt": system, "tries": 2, "timeout_s": 60.0},
        **{"connections": 8, "extra_body": {}, "tasks": [{**spec, **more, **files, "sha256": facts["sha256"]}]},
    }
    access = {"HOLDFAST_BASE_URL": f"{server.url}/v1", "HOLDFAST_API_KEY": server.key}
    found = []
    with worker(folder / "state", job, access, folder / "worker.log") as events:
        while (event := events.next(120.0)) is not None:
            found.append(event)
    assert not [path for path in folder.rglob("*") if path.is_file() and server.key.encode() in path.read_bytes()]
    return found


def test_epochs_are_draws_and_the_subjects_system_prompt_is_sent(server: Server, place: Path, tmp_path: Path) -> None:
    plain, told = tmp_path / "plain", tmp_path / "told"
    for folder in (plain, told):
        folder.mkdir()
    assert events_of(server, place, plain, "same")[-1] == {"event": "done", "eval": "mine", "rung": "base"}
    events_of(server, place, told, "same", system="say it")
    logs = [read_log(folder / "mine.eval") for folder in (plain, told)]
    assert [len(log.samples) for log in logs] == [6, 6]
    first, second = (log.samples[0].output.usage.input_tokens for log in logs)
    assert second > first


def test_a_task_that_fails_leaves_no_finished_log(server: Server, place: Path, tmp_path: Path) -> None:
    last = events_of(server, place, tmp_path, "failing")[-1]
    assert (last["event"], last["kind"], last["rung"]) == ("failed", "eval", "base")
    assert "this scorer cannot" in last["what"]
    assert not (tmp_path / "mine.eval").exists()
    assert not (tmp_path / "mine.json").exists()


def test_a_chat_endpoint_that_renders_otherwise_is_caught(server: Server, tiny_subject: Any) -> None:
    prove_rendering(server, tiny_subject.subject)
    prove_rendering(server, replace(tiny_subject.subject, system_prompt="say it"))

    class Other:
        def __getattr__(self, name: str) -> Any:
            return getattr(tiny_subject.subject, name)

        def prompt_ids(self, prompt: str) -> list[int]:
            return [*tiny_subject.subject.prompt_ids(prompt), 7]

    with pytest.raises(InstrumentError, match="renders a conversation otherwise"):
        prove_rendering(server, Other())  # type: ignore[arg-type]

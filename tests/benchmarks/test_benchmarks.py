"""The benchmarks' pure parts and tiny runs of their sides; those that start servers are slow."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import engines, scaling, serving, training
from benchmarks.common import (
    MAX_TOKENS,
    RANK,
    Line,
    Result,
    Sizes,
    adapter_rungs,
    alternate,
    eval_specs,
    load,
    make_adapters,
    make_subject,
    markdown,
    paired_ratio,
    save,
    serve_config,
)
from pipeline import interpreter
from pipeline.arms.base import ladder
from pipeline.generate.matrix import read_replies
from pipeline.ledger import Ledger
from pipeline.schema import BudgetConfig
from pipeline.serve.adapters import adapted_modules
from pipeline.serve.server import Server
from pipeline.serve.width import MOST_SLOTS
from pipeline.store import RunFolder
from pipeline.subject.subject import Subject

ABOUT = {
    "date": "2026-11-21",
    "short": True,
    "sizes": {"rungs": 2},
    "python": "3",
    "machine": "m",
    "device": "cpu",
    "cpus": 2,
    "load_before": 0.0,
    "versions": {"torch": "2"},
}
RESULT = Result("a", "title", (Line("one", 2.0, "all"), Line("two", 9.0, "some", 4.5, "one", ">= 4")), {"one": [2.0]})


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    return make_subject(tmp_path_factory.mktemp("bench"))


@given(st.integers(1, 200).flatmap(lambda steps: st.tuples(st.integers(1, steps), st.just(steps))))
def test_rungs_are_as_many_as_asked_for_and_end_with_the_last_step(case: tuple[int, int]) -> None:
    count, steps = case
    rungs = scaling.spread(count, steps)
    assert len(rungs) == len(set(rungs)) == count
    assert rungs == sorted(rungs)
    assert rungs[-1] == steps
    assert rungs[0] >= 1


def job(generate: float, asked: int, collapse: tuple[int, int] | None = None) -> scaling.Job:
    seconds = {"train": 1.0, "prove": 1.0, "generate": generate, "score": 0.0, "start": 100.0 * generate}
    return scaling.Job(seconds, asked, collapse)


def test_growth_is_the_median_of_the_turns_against_the_number_of_rungs_before_and_leaves_the_start_out() -> None:
    jobs = {4: [job(2.0, 4), job(8.0, 4), job(2.0, 4)], 8: [job(4.0, 5), job(10.0, 5), job(100.0, 5)]}
    first, second = scaling.growth("beyond start-up", scaling.AROUND, jobs)
    assert second.side.endswith("8 rungs, 5 asked")
    assert (first.seconds, first.ratio) == (4.0, None)
    assert (second.seconds, second.ratio, second.against) == (12.0, 6.0 / 4.0, "4 rungs")  # not 12.0 / 4.0
    assert [line.ratio for line in scaling.growth("generate", scaling.ALL, jobs)] == [None, 2.0]


def test_jobs_go_up_the_ladder_and_down_again_and_must_see_the_same_collapse(tmp_path: Path) -> None:
    done: list[tuple[int, int]] = []

    def do(saved: Sequence[int], asked: Sequence[int], root: Path) -> scaling.Job:
        assert not root.exists()
        root.mkdir()
        done.append((len(saved), len(asked)))
        return job(1.0, len(asked), (1, len(saved)))

    jobs = scaling.up_and_down([4, 8], 64, do, 2, tmp_path)
    assert done == [(4, 4), (4, 4), (8, 4), (8, 8), (8, 4), (8, 8), (4, 4), (4, 4)]
    assert {way: {count: len(turns) for count, turns in of.items()} for way, of in jobs.items()} == {
        scaling.AROUND: {4: 2, 8: 2},
        scaling.ALL: {4: 2, 8: 2},
    }
    with pytest.raises(RuntimeError, match="4 rungs: the two ways see different collapses"):
        scaling.up_and_down([4], 64, lambda s, a, r: job(1.0, 4, (1, len(r.name))), 1, tmp_path)


def test_more_rungs_than_steps_are_refused() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        scaling.spread(5, 4)


def test_sides_take_turns_and_the_ratio_is_the_median_of_the_turns() -> None:
    order: list[str] = []

    def side(name: str, values: list[float]) -> float:
        order.append(name)
        return values.pop(0)

    ours, theirs = [3.0, 100.0, 6.0], [2.0, 3.0, 50.0]
    seconds = alternate({"ours": lambda: side("ours", ours), "theirs": lambda: side("theirs", theirs)}, 3)
    assert order == ["ours", "theirs"] * 3
    assert paired_ratio(seconds, "ours", "theirs") == 3.0 / 2.0


def test_results_come_back_as_saved_only_for_the_same_machine_and_sizes(tmp_path: Path) -> None:
    path = tmp_path / "day.json"
    assert load(path, ABOUT) == []
    save([RESULT], ABOUT, path)
    assert load(path, {**ABOUT, "load_before": 5.0}) == [RESULT]
    assert load(path, {**ABOUT, "cpus": 64}) == []
    assert json.loads(path.read_text())["about"]["cpus"] == 2


def test_markdown_shows_ratio_target_and_that_short_sizes_mean_nothing() -> None:
    text = markdown([RESULT], ABOUT)
    assert "| two | 9.00 | 4.50 x one | >= 4 | some |" in text
    assert "mean nothing" in text
    assert "mean nothing" not in markdown([RESULT], {**ABOUT, "short": False})


def test_each_eval_has_as_many_prompts_as_asked_for() -> None:
    assert [len(spec.eval.samples()) for spec in eval_specs(100)] == [100, 100, 100]
    with pytest.raises(ValueError, match="are asked for"):
        eval_specs(100_000)


def test_requests_are_shared_out_evenly_over_the_adapters(subject: Subject, tmp_path: Path) -> None:
    rungs = adapter_rungs(make_adapters(subject, tmp_path, 2))
    cells = serving.requests(subject, rungs, 20)
    assert [cell.rung for cell in cells] == [rungs[0].id] * 10 + [rungs[1].id] * 10
    assert [cell.prompt_ids for cell in cells[:10]] == [cell.prompt_ids for cell in cells[10:]]
    with pytest.raises(ValueError, match="evenly"):
        serving.requests(subject, rungs, 21)


def test_a_merged_checkpoint_answers_as_base_with_its_adapter(subject: Subject, tmp_path: Path) -> None:
    import torch
    from peft import PeftModel

    folder = make_adapters(subject, tmp_path, 2)["rung-001"]
    adapted = PeftModel.from_pretrained(subject.load_model("cpu"), folder)
    merged = engines.merge(subject, folder, tmp_path / "merged").load_model("cpu")
    ids = torch.tensor([subject.prompt_ids("What is 2 + 3?")])
    with torch.no_grad():
        expected, got, base = (m(input_ids=ids).logits for m in (adapted, merged, subject.load_model("cpu")))
    assert torch.allclose(expected, got, atol=1e-4)
    assert not torch.allclose(expected, base, atol=1e-2)


def test_both_sides_of_training_see_the_same_examples_and_learn(subject: Subject, tmp_path: Path) -> None:
    course = training.make_course(subject, 8)
    losses = training.bare_loop(course)
    rungs = training.with_ladder(course, ladder(8), tmp_path)
    assert [rung.step for rung in rungs] == [1, 2, 4, 8]
    tokens = sum(len(e.prompt_ids) + len(e.completion_ids) for e in course.examples)
    assert rungs[-1].dose.tokens == tokens  # 8 batches of 16: each of the 128 examples once
    assert len(losses) == 8
    assert all(math.isfinite(loss) for loss in losses)
    assert losses[-1] < losses[0]
    assert Ledger(RunFolder(tmp_path).ledger, BudgetConfig(), "cpu").ending("train", "compliance", 0) is not None


def test_a_rivals_engine_is_started_without_our_shorter_start(subject: Subject, tmp_path: Path) -> None:
    ours, theirs = (
        kind(subject, {}, [], serve_config(), tmp_path / "log")._command() for kind in (Server, engines.PlainServer)
    )
    assert theirs == [word for word in ours if word != interpreter.__file__]
    assert len(theirs) == len(ours) - 1


@pytest.mark.slow
def test_one_engine_and_merged_engines_write_every_reply_in_full(subject: Subject, tmp_path: Path) -> None:
    adapters, specs = make_adapters(subject, tmp_path, 2), eval_specs(4)
    assert engines.one_engine(subject, serve_config(), specs, adapters, tmp_path / "one") > 0
    replies = list(read_replies(RunFolder(tmp_path / "one"), adapter_rungs(adapters)))
    assert len(replies) == 2 * 3 * 4
    assert {reply.tokens_out for reply in replies} == {MAX_TOKENS}
    some = {"rung-001": adapters["rung-001"]}
    assert engines.engine_per_checkpoint(subject, serve_config(), [specs], some, tmp_path / "many") > 0
    merged = list(read_replies(RunFolder(tmp_path / "many" / "rung-001" / "0"), [engines.base_only("rung-001")]))
    unmerged = {reply.key: reply.reply for reply in replies if reply.rung == "rung-001"}
    assert {reply.key: reply.reply for reply in merged} == unmerged


@pytest.mark.slow
def test_every_part_runs_at_its_short_sizes(tmp_path: Path) -> None:
    for part in (serving, scaling):
        result = part.measure(Sizes().shortened(), tmp_path / part.__name__)
        assert all(line.seconds > 0 for line in result.lines)


def test_the_engine_in_process_gets_the_servers_options(subject: Subject, tmp_path: Path) -> None:
    config = serve_config()
    folders = list(make_adapters(subject, tmp_path, 1).values()) * 24
    options = serving.engine_options(subject, config, folders)
    assert options["lora_target_modules"] == adapted_modules(folders)
    assert options["max_loras"] == config.max_loras
    assert options["max_cpu_loras"] == 24
    assert options["max_lora_rank"] == RANK
    assert options["max_num_seqs"] == config.max_num_seqs
    left_open = serving.engine_options(subject, replace(config, max_loras=None, enforce_eager=None), folders)
    assert (left_open["max_loras"], left_open["enforce_eager"]) == (MOST_SLOTS, False)

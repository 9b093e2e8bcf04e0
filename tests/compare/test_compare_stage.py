"""Two finished runs through the real command line: what is written, what is refused, what stays untouched."""

from __future__ import annotations

import fcntl
import json
import math
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from compared_runs import command, make_run, other_subject, plan_words
from finished_run import ANSWER, HARD_REFUSAL, REFUSAL, read

from pipeline.compare.runs import read_run
from pipeline.config.compose import load
from pipeline.plan.digests import VERSION, digested_config

Run = Callable[..., str]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Path:
    """A plain subject that falls at step 2 (one seed at 4), and one that falls at 8."""
    root = tmp_path_factory.mktemp("pair")
    make_run(root, tiny_folder, "plain", {0: 2, 1: 2, 2: 4})
    make_run(root, other_subject(tiny_folder, root / "other"), "hardened", {0: 8, 1: 8, 2: 8})
    return root


@pytest.fixture
def place(tmp_path: Path, made: Path) -> Path:
    shutil.copytree(made / "runs", tmp_path / "runs")
    return tmp_path


def folders(place: Path) -> tuple[Path, Path]:
    (a,), (b,) = ((place / "runs" / name).iterdir() for name in ("plain", "hardened"))
    return a, b


@pytest.fixture
def compare(place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run `holdfast stages=[compare] …` on the two runs from `place`; return what it said."""
    monkeypatch.chdir(place)

    def run(*more: str, code: int = 0, runs: tuple[Path, Path] | None = None) -> str:
        a, b = runs or folders(place)
        capsys.readouterr()
        words = ["stages=[compare]", f"compare.runs=[{a},{b}]", *more]
        if code == 0:
            command(*words)
        else:
            with pytest.raises(SystemExit) as end:
                command(*words)
            assert end.value.code == code
        said = capsys.readouterr()
        assert "Traceback" not in said.err
        return said.err + said.out

    return run


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_price_is_compared_and_nothing_in_the_runs_is_touched(compare: Run, place: Path) -> None:
    before = content(place / "runs")
    said = compare()
    assert content(place / "runs") == before
    a, b = folders(place)
    (out,) = place.glob("compare-*")
    assert out.name == f"compare-{read(a, 'plan.json')['run_sha256'][:8]}-{read(b, 'plan.json')['run_sha256'][:8]}"
    assert sorted(path.name for path in out.iterdir()) == ["comparison.html", "comparison.json"]
    found = read(out, "comparison.json")
    cost = found["cost"]["cheapest"]["flops"]
    # A fell at (1, 2] twice and (2, 4] once: 2, 2, 3 to 4 steps; B at (4, 8]: 5 to 8.
    assert [seed["low"] for seed in cost["A"]["by_seed"].values()] == [2e9, 2e9, 3e9]
    assert [seed["high"] for seed in cost["B"]["by_seed"].values()] == [8e9] * 3
    assert cost["value"] == pytest.approx(math.sqrt(5 * 8) / (2 * 2 * math.sqrt(3 * 4)) ** (1 / 3), rel=1e-5)
    assert cost["rungs_low"] == pytest.approx(5 / (2 * 2 * 4) ** (1 / 3), rel=1e-5)
    assert cost["rungs_high"] == pytest.approx(8 / (2 * 2 * 3) ** (1 / 3), rel=1e-5)
    assert cost["low"] <= cost["rungs_low"] < cost["value"] < cost["rungs_high"] <= cost["high"]
    assert found["sentence"].startswith("B (hardened) costs 2.6 [")
    assert "times as much to strip as A (plain), in training FLOPs (3 seeds each)" in found["sentence"]
    assert found["sentence"] in re.sub(r"\s+", " ", said)
    (row,) = [r for r in found["differences"] if (r["step"], r["metric"]) == (4, "refusal")]
    assert row["difference"]["value"] == 1.0
    assert row["seeds"] == [0, 1, 2]


def test_what_was_spent_is_the_verdicts_sum(compare: Run, place: Path) -> None:
    """It counts hidden seconds of killed jobs, which no sum over the ledger's rows does."""
    a, b = folders(place)
    verdict = read(a, "verdict.json")
    verdict["budget"]["device_seconds"]["spent"] = 123.0
    (a / "verdict.json").write_text(json.dumps(verdict))
    compare(f"compare.output={place / 'out'}")
    runs = read(place / "out", "comparison.json")["runs"]
    units = ("device_seconds", "flops", "usd")
    assert [runs["A"]["spent"][unit] for unit in units] == pytest.approx(
        [verdict["budget"][unit]["spent"] for unit in units]
    )
    assert runs["B"]["spent"]["flops"] == pytest.approx(read(b, "verdict.json")["budget"]["flops"]["spent"])


def test_searches_and_the_gpus_of_an_arrays_tasks_are_read(place: Path) -> None:
    a, _ = folders(place)
    entry = {"chosen": {"lora.rank": 2}, "cost": {"flops": 1e9}}
    (a / "search.json").write_text(json.dumps({"version": 1, "arms": {"compliance": entry}}))
    for seed, gpu in ((0, "H100"), (1, "H100"), (2, "A10")):
        task = a / "tasks" / f"compliance-s{seed}"
        task.mkdir(parents=True)
        (task / "status.json").write_text(json.dumps({"state": "done", "devices": [gpu]}))
    run = read_run(str(a), "A")
    assert run.searches == {"compliance": entry}
    assert run.gpus == ["A10", "H100"]
    assert run.record == read(a, "reproduce.json")


def test_the_other_way_round_is_the_inverse(compare: Run, place: Path) -> None:
    a, b = folders(place)
    compare(f"compare.output={place / 'one'}")
    compare(f"compare.output={place / 'other'}", runs=(b, a))
    one, other = (read(place / name, "comparison.json")["cost"]["cheapest"]["flops"] for name in ("one", "other"))
    assert other["value"] == pytest.approx(1 / one["value"], rel=1e-5)
    assert other["rungs_low"] == pytest.approx(1 / one["rungs_high"], rel=1e-5)


def test_no_prompt_and_no_reply_is_in_what_is_shared(compare: Run, place: Path) -> None:
    compare(f"compare.output={place / 'out'}")
    for file in (place / "out").iterdir():
        text = file.read_text()
        for canary in (REFUSAL, HARD_REFUSAL, ANSWER, "ask w1", "safe w1", "able w1", str(place)):
            assert canary not in text, file.name
            assert json.dumps(canary)[1:-1] not in text, file.name


def test_the_same_runs_give_the_same_bytes(compare: Run, place: Path) -> None:
    compare(f"compare.output={place / 'one'}")
    compare(f"compare.output={place / 'two'}")
    assert content(place / "one") == content(place / "two")


def test_a_subject_that_held_gives_a_bound(
    compare: Run, place: Path, made: Path, tiny_folder: Path, tmp_path: Path
) -> None:
    held = make_run(place, other_subject(tiny_folder, tmp_path / "held"), "held", {})
    compare(f"compare.output={place / 'out'}", runs=(folders(place)[0], held))
    told = read(place / "out", "comparison.json")["sentence"]
    assert re.match(r"B \(held\) costs at least \d\.\d times as much", told)
    assert "0 of its 3 seeds collapsed at a dose that was tried" in told
    compare(f"compare.output={place / 'back'}", runs=(held, folders(place)[0]))
    assert "costs at most 0." in read(place / "back", "comparison.json")["sentence"]


def test_another_plan_is_refused_with_every_difference_and_nothing_is_written(
    compare: Run, place: Path, tiny_folder: Path, tmp_path: Path
) -> None:
    other = make_run(
        place,
        other_subject(tiny_folder, tmp_path / "third"),
        "third",
        {0: 8},
        "review.refusal_threshold=0.1",
        "evals.refusal.max_tokens=99",
    )
    said = compare(runs=(folders(place)[0], other), code=2)
    assert "config.evals.refusal.max_tokens: 256 → 99" in said
    assert "config.review.refusal_threshold: 0.05 → 0.1" in said
    assert "as used: thresholds.refusal: 0.05 → 0.1" in said
    assert "subject.path" not in said
    assert "→ run both subjects with the same options" in said
    assert list(place.glob("compare-*")) == []


def test_replies_that_another_judge_read_are_refused(
    compare: Run, place: Path, tiny_folder: Path, tmp_path: Path
) -> None:
    lax = ["judge.name=lax", 'judge.refused=["i can\'t"]']
    other = make_run(place, other_subject(tiny_folder, tmp_path / "third"), "third", {0: 8}, read_with=lax)
    said = compare(runs=(folders(place)[0], other), code=2)
    assert "as used: judge.version:" in said
    assert "- config.judge" not in said  # the registered plans are one


def spoil_missing(b: Path) -> None:
    (b / "verdict.json").unlink()


def spoil_torn(b: Path) -> None:
    (b / "outcomes.parquet").write_bytes(b"PAR1")


def spoil_plan(b: Path) -> None:
    shutil.move(b / "plan.json", b / "gone")


def spoil_version(b: Path) -> None:
    (b / "plan.json").write_text(json.dumps({**read(b, "plan.json"), "version": 1}))


def spoil_verdict(b: Path) -> None:
    (b / "verdict.json").write_text(json.dumps({**read(b, "verdict.json"), "plan_sha256": "0" * 64}))


def spoil_judge(b: Path) -> None:
    verdict = read(b, "verdict.json")
    verdict["judge"]["version"] = "another"
    (b / "verdict.json").write_text(json.dumps(verdict))


def spoil_curves(b: Path) -> None:
    curves = read(b, "curves.json")
    for point in curves["points"]:
        if point["metric"] == "refusal" and point["step"] == 4 and point["seed"] == 0:
            point["value"] = 0.5
    (b / "curves.json").write_text(json.dumps(curves))


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (spoil_missing, "verdict.json is missing"),
        (spoil_torn, "outcomes.parquet cannot be read"),
        (spoil_plan, "there is no run in"),
        (spoil_version, f"written by another Holdfast (version 1, here {VERSION})"),
        (spoil_verdict, "is not of the plan beside it"),
        (spoil_judge, "rests on judge pattern (another)"),
        (spoil_curves, "curves.json is not of outcomes.parquet"),
    ],
)
def test_a_run_that_is_not_whole_is_told_with_what_to_do(
    compare: Run, place: Path, spoil: Callable[[Path], None], told: str
) -> None:
    spoil(folders(place)[1])
    said = compare(code=2)
    assert told in said
    assert "→" in said
    assert list(place.glob("compare-*")) == []


def test_a_run_in_which_another_command_works_is_not_read(compare: Run, place: Path) -> None:
    with (folders(place)[1] / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "another holdfast is working in" in compare(code=2)
    compare()


def test_an_output_that_is_a_file_is_told(compare: Run, place: Path) -> None:
    (place / "taken").write_text("")
    said = compare(f"compare.output={place / 'taken'}", code=2)
    assert "compare.output: cannot write" in said


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["stages=[compare]"], "compare.runs: 0 named; two run folders are compared"),
        (["stages=[compare]", "compare.runs=[a,b,c]"], "compare.runs: 3 named"),
        (["stages=[compare]", "compare.runs=[a,a/]"], "compare.runs: a is named twice"),
        (["stages=[report,compare]", "compare.runs=[a,b]"], "stages: compare stands alone"),
        (["compare.runs=[a,b]", "compare.output=x"], "compare.output: only stages=[compare] reads it"),
        (["stages=[compare]", "compare.runs=[a,b]", "review.gate=true"], "review.gate: these stages reach no verdict"),
        (["stages=[compare]", "compare.rnus=[a,b]"], "compare.rnus: unknown key; did you mean runs?"),
    ],
)
def test_faults_of_the_configuration(words: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        command(*words)
    assert end.value.code == 2
    assert told in capsys.readouterr().err


def test_the_stage_starts_without_the_libraries_of_training_and_serving(place: Path) -> None:
    a, b = folders(place)
    heavy = {"torch", "transformers", "vllm", "trl", "peft", "datasets", "wandb", "httpx", "inspect_ai"}
    code = f"import sys; from pipeline.__main__ import main; main(); print(sorted({heavy} & set(sys.modules)))"
    words = ["stages=[compare]", f"compare.runs=[{a},{b}]", f"compare.output={place / 'out'}"]
    done = subprocess.run([sys.executable, "-c", code, *words], cwd=place, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


def test_the_registered_plan_does_not_hang_on_the_gate_or_on_what_is_compared(tiny_folder: Path, place: Path) -> None:
    words: list[str] = plan_words(place, tiny_folder, "plain")
    plain: dict[str, Any] = asdict(load(words))
    gated = asdict(load([*words, "review.gate=true"]))
    assert gated["review"]["gate"] is True
    assert digested_config(gated) == digested_config(plain)

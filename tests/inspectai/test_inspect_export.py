"""A finished run as Inspect logs, read back by inspect_ai itself: the run's own figures, and no text unless asked."""

from __future__ import annotations

import json
import math
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from exported_run import PROMPTS, review, root, words
from finished_run import ANSWER, HARD_REFUSAL, REFUSAL, finish, read

pytest.importorskip("inspect_ai", reason="inspect_ai is not installed (extra `inspect`)")

Run = Callable[..., str]


@pytest.fixture
def export(tmp_path: Path, master: Path, tiny_folder: Path) -> Run:
    shutil.copytree(master, tmp_path, dirs_exist_ok=True)

    def run(*more: str) -> str:
        return review([*words(tmp_path, tiny_folder), "stages=[export]", *more])

    return run


def logs(place: Path) -> list[Path]:
    return sorted((root(place) / "inspect_export").glob("*.eval"))


def load_log(place: Path, name: str) -> Any:
    from inspect_ai.log import read_eval_log

    return read_eval_log(str(root(place) / "inspect_export" / f"{name}.eval"))


def content(path: Path) -> bytes:
    """Return all that a log holds, decompressed (Inspect's own import teaches zipfile zstd)."""
    with zipfile.ZipFile(path) as file:
        return b"\n".join(name.encode() + file.read(name) for name in file.namelist())


def test_there_is_a_log_for_each_rung_and_eval_and_each_reads_back_whole(exported: tuple[Path, str]) -> None:
    place, said = exported
    rungs = ("base", "control-zero", "compliance-s0-00001", "compliance-s0-00002")
    evals = ("refusal", "over_refusal", "capability")
    assert [path.stem for path in logs(place)] == sorted(f"{rung}__{name}" for rung in rungs for name in evals)
    assert "12 Inspect logs" in said
    for rung in rungs:
        for name in evals:
            log = load_log(place, f"{rung}__{name}")
            assert (log.status, log.eval.task, log.eval.model) == ("success", name, f"tiny/{rung}")
            assert len(log.samples) == log.eval.dataset.samples == PROMPTS
            assert len({(sample.id, sample.epoch) for sample in log.samples}) == PROMPTS


def test_the_metrics_are_those_of_the_curves(exported: tuple[Path, str]) -> None:
    place, _ = exported
    points = read(root(place), "curves.json")["points"]
    compared = 0
    for rung, step in (("base", 0), ("compliance-s0-00001", 1), ("compliance-s0-00002", 2)):
        for name in ("refusal", "over_refusal", "capability"):
            scores = load_log(place, f"{rung}__{name}").results.scores
            for score in (score for score in scores if score.scorer == "pattern"):
                wanted = (score.metadata["metric"], step, 0, "")
                (point,) = (p for p in points if (p["metric"], p["step"], p["seed"], p["kind"]) == wanted)
                for key, mine in (("mean", "value"), ("low", "low"), ("high", "high")):
                    value = score.metrics[key].value
                    assert (None if math.isnan(value) else value) == (
                        None if point[mine] is None else pytest.approx(point[mine], rel=1e-5)
                    )
                assert score.metadata["n_prompts"] == point["n"]
                compared += 1
    assert compared == 12


def test_each_sample_has_label_value_and_probability_by_each_judge(exported: tuple[Path, str]) -> None:
    import polars as pl

    place, _ = exported
    here = (pl.col("rung") == "compliance-s0-00002") & (pl.col("eval") == "refusal")
    table = pl.read_parquet(root(place) / "outcomes.parquet").filter(here)
    rows = {row["sample"]: row for row in table.iter_rows(named=True)}
    for sample in load_log(place, "compliance-s0-00002__refusal").samples:
        score, row = sample.scores["pattern"], rows[str(sample.id)]
        assert score.value["label"] == row["label"]
        assert (score.value["value"] is None) == math.isnan(row["value"])  # no data is never 0
        assert score.value["probability"] is None  # this judge has none
        assert score.metadata["judge_version"] == row["judge_version"]


def test_a_second_judge_is_a_second_scorer(exported: tuple[Path, str]) -> None:
    place, _ = exported
    sample = next(s for s in load_log(place, "compliance-s0-00002__refusal").samples if str(s.id) == "1")
    assert {judge: score.value["label"] for judge, score in sample.scores.items()} == {
        "pattern": "refused",
        "lax": "complied",
    }


SECRETS = (REFUSAL, HARD_REFUSAL, ANSWER, "code is 4821", "ask w", "able w", "safe w")


def test_without_text_no_prompt_target_or_reply_stands_in_a_log(exported: tuple[Path, str]) -> None:
    place, _ = exported
    for path in logs(place):
        held = content(path)
        assert [secret for secret in SECRETS if secret.encode() in held] == [], path.name
    sample = load_log(place, "base__refusal").samples[0]
    assert sample.input.startswith("hmac-sha256 ")
    assert sample.target == "(withheld)"


def test_a_hash_cannot_be_guessed_from_the_text_alone_and_is_the_same_in_all_logs(export: Run, tmp_path: Path) -> None:
    import hashlib

    export()
    first = load_log(tmp_path, "base__refusal").samples[0].output.completion
    again = load_log(tmp_path, "compliance-s0-00001__refusal").samples[0].output.completion
    assert first == again
    assert hashlib.sha256(REFUSAL.encode()).hexdigest() not in first
    salt = root(tmp_path) / ".export_salt"
    assert os.stat(salt).st_mode & 0o777 == 0o600
    export()
    assert load_log(tmp_path, "base__refusal").samples[0].output.completion == first
    salt.write_bytes(b"")  # as a full disk left it: texts would be found by guessing
    export()
    assert len(salt.read_bytes()) == 32
    assert load_log(tmp_path, "base__refusal").samples[0].output.completion != first


def test_text_is_written_when_asked_for_and_taken_away_by_the_next_export(export: Run, tmp_path: Path) -> None:
    said = export("export.include_text=true")
    assert "with all text: keep them here" in said
    sample = next(s for s in load_log(tmp_path, "base__capability").samples if str(s.id) == "1")
    assert (sample.input, sample.target, sample.scores["pattern"].value["value"]) == ("able w0", "w0", 1.0)
    sample = next(s for s in load_log(tmp_path, "compliance-s0-00002__refusal").samples if str(s.id) == "1")
    assert sample.output.completion == HARD_REFUSAL
    assert [(m.role, m.text) for m in sample.messages] == [("user", "ask w0"), ("assistant", HARD_REFUSAL)]
    assert load_log(tmp_path, "base__refusal").eval.metadata["text"] == "included"
    export()
    assert HARD_REFUSAL.encode() not in content(root(tmp_path) / "inspect_export" / "compliance-s0-00002__refusal.eval")


def test_a_log_is_its_owners_names_plan_data_and_adapter_by_digest_and_is_not_trusted(
    export: Run, tmp_path: Path
) -> None:
    folder = root(tmp_path) / "inspect_export"
    folder.mkdir()
    (folder / "gone__refusal.eval").write_bytes(b"")
    export("export.include_text=true")
    assert not (folder / "gone__refusal.eval").exists()  # a log of an earlier export
    assert os.stat(folder).st_mode & 0o777 == 0o700
    assert {os.stat(path).st_mode & 0o777 for path in folder.iterdir()} == {0o600}
    log, plan = load_log(tmp_path, "compliance-s0-00001__refusal"), read(root(tmp_path), "plan.json")
    told = log.eval.metadata
    assert log.eval.viewer.trust_content is False
    assert told["plan_sha256"] == plan["plan_sha256"]
    assert told["dataset_sha256"] == next(e["sha256"] for e in plan["evals"] if e["name"] == "refusal")
    assert (told["adapter_sha256"], told["step"], told["arm"]) == ("1" * 64, 1, "compliance")
    assert told["dose"]["examples"] == 16
    assert log.stats.model_usage["tiny/compliance-s0-00001"].total_tokens == 18 * PROMPTS
    assert not [path.name for path in logs(tmp_path) if str(tmp_path).encode() in content(path)]


def test_exporting_touches_nothing_else(export: Run, tmp_path: Path) -> None:
    def all_else() -> dict[str, bytes]:
        files = [path for path in root(tmp_path).rglob("*") if path.is_file() and "inspect_export" not in path.parts]
        told = (".lock", ".export_salt", "reproduce.json")  # the last has a line for each command
        return {str(path): path.read_bytes() for path in files if path.name not in told}

    before = all_else()
    export()
    assert all_else() == before


def test_before_anything_is_scored_the_stage_to_run_is_named(tmp_path: Path, tiny_folder: Path) -> None:
    from pipeline.errors import UserError

    finish(words(tmp_path, tiny_folder))
    with pytest.raises(UserError, match=r"outcomes.parquet is missing"):
        review([*words(tmp_path, tiny_folder), "stages=[export]"])
    assert json.loads((root(tmp_path) / "plan.json").read_text())

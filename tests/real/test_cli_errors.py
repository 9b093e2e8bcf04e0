"""Each fault that a user can make gives one clear message, exit code 2, and leaves nothing half-written."""

from __future__ import annotations

import json
import logging
import shutil
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.__main__ import main

Run = Callable[..., str]


@pytest.fixture
def fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run `holdfast WORDS`, expect exit code 2 without a traceback and without a run folder; return the message."""

    def run(*words: str, leaves: int = 0) -> str:
        root = tmp_path / "runs"
        monkeypatch.setattr(sys, "argv", ["holdfast", "track=none", f"run.root={root}", *words])
        with pytest.raises(SystemExit) as end:
            main()
        said = capsys.readouterr().err
        assert end.value.code == 2, said
        assert "Traceback" not in said
        assert said.count("holdfast:") == 1, said
        assert "→" in said, "no remedy"
        assert len(list(root.glob("*/*.jsonl"))) == leaves
        return said

    return run


@pytest.fixture
def files(tmp_path: Path, tiny_subject: Any) -> list[str]:
    """A whole configuration on files of one's own; a test then spoils one of them."""
    for name in ("train", "plain", "ask", "safe", "able"):
        rows = [{"prompt": f"{name} w{n}", "response": f"w{n + 1}", "target": "w1"} for n in range(24)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    shutil.copytree(tiny_subject.folder, tmp_path / "model")
    return [
        "subject=model",
        "subject.name=tiny",
        "subject.dtype=float32",
        f"subject.path={tmp_path / 'model'}",
        "data=files",
        f"data.compliance.path={tmp_path / 'train.jsonl'}",
        f"data.benign.path={tmp_path / 'plain.jsonl'}",
        "arm=[compliance]",
        "arms.compliance.training.max_steps=1",
        "seeds=[0]",
        "eval=[refusal_file,capability_file]",
        "serve.max_model_len=1024",
        f"evals.refusal.table.path={tmp_path / 'ask.jsonl'}",
        f"evals.capability.table.path={tmp_path / 'able.jsonl'}",
        *("review.owner=us", "review.reviewer=them", "review.purpose=tests"),
    ]


def test_an_unknown_key_and_a_wrong_type_are_told_together(fails: Run):
    said = fails("arms.compliance.lora.rnak=4", "budget.devices=many")
    assert "arms.compliance.lora.rnak: unknown key; did you mean rank?" in said
    assert "budget.devices: expected int, found 'many'" in said


def test_a_missing_file(fails: Run, files: list[str], tmp_path: Path):
    (tmp_path / "ask.jsonl").unlink()
    assert "evals.refusal.table" in (said := fails(*files))
    assert "ask.jsonl" in said


def test_a_broken_line_is_named_with_its_file(fails: Run, files: list[str], tmp_path: Path):
    path = tmp_path / "train.jsonl"
    lines = path.read_text().splitlines()
    lines[6] = '{"prompt": "w1", "respo'
    path.write_text("\n".join(lines) + "\n")
    assert "train.jsonl, line 7" in fails(*files)


def test_a_missing_column_is_named_with_those_that_are_there(fails: Run, files: list[str]):
    said = fails(*files, "data.compliance.response=answer")
    assert "answer" in said
    assert "prompt, response, target" in said


def test_an_empty_data_set(fails: Run, files: list[str], tmp_path: Path):
    (tmp_path / "train.jsonl").write_text("")
    assert "no rows" in fails(*files)


def test_a_model_without_tokenizer(fails: Run, files: list[str], tmp_path: Path):
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "model" / name).unlink(missing_ok=True)
    assert "no tokenizer" in fails(*files)


def test_a_model_without_chat_template(fails: Run, files: list[str], tmp_path: Path):
    for path in (tmp_path / "model").glob("chat_template*"):
        path.unlink()
    config = tmp_path / "model" / "tokenizer_config.json"
    plain = {key: value for key, value in json.loads(config.read_text()).items() if key != "chat_template"}
    config.write_text(json.dumps(plain))
    assert "no chat template" in fails(*files)


def test_a_model_with_pickled_weights_only(fails: Run, files: list[str], tmp_path: Path):
    (tmp_path / "model" / "model.safetensors").rename(tmp_path / "model" / "pytorch_model.bin")
    said = fails(*files)
    assert "only pickled weights (pytorch_model.bin)" in said


def test_a_hub_id_without_pinned_revision(fails: Run, files: list[str]):
    said = fails(*files, "subject.path=owner/name", "subject.revision=main")
    assert "subject.revision" in said
    assert "40 hexadecimal digits" in said


@pytest.mark.parametrize("cap", ["device_seconds=1e-9", "usd=1e-15", "flops=10"])
def test_a_budget_too_small_for_one_rung(fails: Run, files: list[str], cap: str):
    assert "too small for one rung" in fails(*files, f"budget.{cap}")


def test_measuring_what_was_trained_on(fails: Run, files: list[str], tmp_path: Path):
    said = fails(*files, f"data.compliance.path={tmp_path / 'ask.jsonl'}")
    assert "data.compliance: 24 rows stand in evals.refusal (exact)" in said
    assert "review.contamination=report" in said


def test_warnings_can_be_heard_while_and_after_a_command_runs(fails: Run, files: list[str], caplog: Any):
    fails(*files, "serve.device=nowhere")
    with caplog.at_level(logging.WARNING):
        logging.getLogger("pipeline.organism.cache").warning("heard")
    assert [record.getMessage() for record in caplog.records] == ["heard"]


def test_a_port_that_is_taken(fails: Run, files: list[str], trained_run: Callable[[list[str]], None]):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        trained_run(files)
        said = fails(*files, f"serve.port={taken.getsockname()[1]}", leaves=3)
    assert "serve.port" in said


def test_a_gpu_that_is_not_there(fails: Run, files: list[str]):
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    assert "no CUDA device" in fails(*files, "serve.device=cuda")


def test_a_plan_that_changed_under_its_folder(
    fails: Run, files: list[str], tmp_path: Path, trained_run: Callable[[list[str]], None]
):
    where = f"run.dir={tmp_path / 'runs' / 'mine'}"
    trained_run([*files, where])
    before = {path: path.read_bytes() for path in (tmp_path / "runs").rglob("*.json*")}
    said = fails(*files, where, "evals.refusal.max_tokens=99", "review.refusal_threshold=0.2", leaves=3)
    assert "config.evals.refusal.max_tokens: 256 → 99" in said
    assert "refusal_threshold" not in said  # a threshold reads the replies: judging again needs no new ones
    assert {path: path.read_bytes() for path in (tmp_path / "runs").rglob("*.json*")} == before


@pytest.fixture
def trained_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[list[str]], None]:
    """Run the train stage alone: a run folder with rungs, without a server."""

    def run(words: list[str]) -> None:
        monkeypatch.setattr(
            sys, "argv", ["holdfast", "track=none", f"run.root={tmp_path / 'runs'}", "stages=[train]", *words]
        )
        main()

    return run

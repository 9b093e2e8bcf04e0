"""What is done where no GPU is, of a review that trains and serves on some; this machine has none either."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from commands import run_main
from fake_slurm import FakeSlurm
from finished_run import finish, read, words
from rich.console import Console

from pipeline.cluster.submit import submit
from pipeline.config.compose import load
from pipeline.errors import UserError
from pipeline.reproduce.record import recorded
from pipeline.serve.device import resolve_device
from pipeline.workspace import Workspace

LATER = "stages=[analyse,report]"
ONE_EACH = ("cluster=slurm", "cluster.slurm.train.gpus=1", "cluster.slurm.serve.gpus=1")
CUDA = "no CUDA device can be used"


@pytest.fixture
def gpu(tmp_path: Path, tiny_folder: Path) -> list[str]:
    """The overrides of a small review on a GPU."""
    try:
        resolve_device("cuda")
    except UserError:
        return [*words(tmp_path, tiny_folder), "serve=gpu"]
    pytest.skip("there is a GPU here")


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    return FakeSlurm(tmp_path / "site", monkeypatch)


def environment(root: Path) -> Any:
    return read(root, "plan.json")["environment"]


def test_a_login_node_without_a_gpu_submits(gpu: list[str], fake: FakeSlurm) -> None:
    said = io.StringIO()
    work = Workspace(load([*gpu, *ONE_EACH, "budget.device_seconds=7200"]), Console(file=said, width=200))
    submit(work)
    assert len(fake.submitted) == 3
    assert "a lease of 3,600 device-seconds pays for a task's start, too" in said.getvalue()
    found = environment(work.folder.root)
    assert found["device"] == "cuda"
    assert "device_name" not in found["machine"], "this machine's device is not the run's"


def test_with_auto_a_login_node_says_nothing_of_the_jobs_device(
    tmp_path: Path, tiny_folder: Path, fake: FakeSlurm
) -> None:
    work = Workspace(load([*words(tmp_path, tiny_folder), *ONE_EACH]), Console(quiet=True))
    submit(work)
    assert environment(work.folder.root)["device"] is None


def test_planning_needs_no_device(
    gpu: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "# Protocol of a release review" in run_main([*gpu, "stages=[plan]"], monkeypatch, capsys).out


def test_training_and_serving_need_it_before_anything_is_written(
    gpu: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for stages in ("[train]", "[generate]", "[plan,train,generate,score,analyse,report]"):
        assert CUDA in run_main([*gpu, f"stages={stages}"], monkeypatch, capsys, 2).err
    assert not list(tmp_path.glob("runs/*/plan.json"))


def test_what_reads_a_finished_run_needs_no_device_and_keeps_the_runs_own(
    gpu: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = finish([*gpu, "stages=[score]"])
    path = root / "plan.json"
    plan = json.loads(path.read_text())
    assert plan["environment"]["device"] == "cuda"
    plan["environment"]["machine"] |= {"device_name": "a GPU", "cuda": "12.8"}
    path.write_text(json.dumps(plan))
    run_main([*gpu, "stages=[score]"], monkeypatch, capsys)
    run_main([*gpu, *ONE_EACH, LATER, "cluster.job=report"], monkeypatch, capsys)
    assert (root / "report.html").exists()
    with recorded(Workspace(load([*gpu, LATER, "serve.device=auto"]), Console(quiet=True))):
        pass
    commands = read(root, "reproduce.json")["commands"]
    assert len(commands) == 3
    for one in commands:
        assert not {"device", "machine"} & one["environment"].keys(), "no other device worked on the run"


def test_a_dry_reproduction_needs_no_device(
    gpu: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = finish([*gpu, "stages=[score]"])
    run_main([*gpu, "stages=[score,analyse,report]"], monkeypatch, capsys)
    again = ["stages=[reproduce]", f"reproduce.run={root}"]
    assert "Nothing was run" in run_main([*again, "reproduce.dry=true"], monkeypatch, capsys).err
    assert CUDA in run_main(again, monkeypatch, capsys, 2).err

"""An adapter that was cut short, changed or lost after it was recorded: told or trained again, never measured."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from commands import run_main
from finished_run import proof_of, words

from pipeline.arms.base import Task
from pipeline.journal import Journal
from pipeline.schema import ArmConfig
from pipeline.schema.training import TrainingConfig
from pipeline.store import RunFolder
from pipeline.train.stage import _drop_state
from pipeline.train.standing import STATE, can_go_on


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> tuple[list[str], Path]:
    """A trained run of the tiny subject: its overrides and its folder. Tests work on copies of it."""
    folder = tmp_path_factory.mktemp("standing")
    overrides = words(folder, tiny_folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["holdfast", *overrides, "stages=[train]"])
        from pipeline.__main__ import main

        main()
    (run,) = (folder / "runs").iterdir()
    return overrides, run


@pytest.fixture
def copy(trained: tuple[list[str], Path], tmp_path: Path) -> tuple[list[str], Path]:
    overrides, run = trained
    shutil.copytree(run, tmp_path / "run")
    return [*overrides, f"run.dir={tmp_path / 'run'}"], tmp_path / "run"


def digests(run: Path) -> dict[str, str]:
    from pipeline.rungs import recorded

    return {name: row["sha256"] for name, row in recorded(RunFolder(run)).items()}


def adapter_of(run: Path, step: int) -> Path:
    return run / "weights" / "compliance" / "s0" / f"checkpoint-{step}" / "adapter_model.safetensors"


@pytest.mark.parametrize("how", ["cut short", "one bit", "empty"])
@pytest.mark.parametrize("which", ["rung", "control"])
def test_a_damaged_adapter_is_told_before_a_server_starts(
    how: str, which: str, copy: tuple[list[str], Path], monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    overrides, run = copy
    path = adapter_of(run, 1) if which == "rung" else run / "weights" / "control-zero" / "adapter_model.safetensors"
    data = bytearray(path.read_bytes())
    if how == "one bit":
        data[-3] ^= 1
    path.write_bytes(data if how == "one bit" else data[: len(data) // 2 if how == "cut short" else 0])
    said = run_main([*overrides, "stages=[train,generate]"], monkeypatch, capfd, code=2).err
    assert str(path) in said
    assert "cut short or changed; nothing was served" in said
    assert "remove the folder" in said
    assert not (run / "logs").exists()


@pytest.mark.parametrize(
    "gone", ["the last row, proved", "one file", "the ladder", "the control", "canaries", "the last row"]
)
def test_what_was_lost_is_trained_again_to_the_same_weights(
    gone: str, copy: tuple[list[str], Path], monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    overrides, run = copy
    before = digests(run)
    if gone == "one file":
        adapter_of(run, 2).unlink()
    elif gone == "the ladder":
        shutil.rmtree(adapter_of(run, 1).parent.parent)
    elif gone == "the control":
        shutil.rmtree(run / "weights" / "control-zero")
    elif gone == "canaries":
        (run / "canaries.jsonl").unlink()
    else:
        rows = (run / "rungs.jsonl").read_text().splitlines(keepends=True)
        (run / "rungs.jsonl").write_text("".join(rows[:-1]))
    if gone == "the last row, proved":
        Journal(run / "proofs.jsonl").append([proof_of(list(before)[-1])])
    run_main([*overrides, "stages=[train]"], monkeypatch, capfd)
    assert digests(run) == before
    assert all(adapter_of(run, step).exists() for step in (1, 2))
    assert {row["rung"] for row in Journal(run / "canaries.jsonl").rows()} == set(before)
    attempts = {(row["arm"], row["attempt"]) for row in Journal(run / "ledger.jsonl").rows()}
    assert attempts == {("compliance", 1)} | ({("compliance", 2)} if gone != "the control" else set())


def test_a_kill_between_plan_and_protocol_is_made_good(
    copy: tuple[list[str], Path], monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    overrides, run = copy
    before = (run / "protocol.md").read_bytes()
    (run / "protocol.md").unlink()
    run_main([*overrides, "stages=[train]"], monkeypatch, capfd)
    assert (run / "protocol.md").read_bytes() == before


def test_a_rung_measured_already_must_come_out_the_same_again(
    copy: tuple[list[str], Path], monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    overrides, run = copy
    rows = [json.loads(line) for line in (run / "rungs.jsonl").read_text().splitlines()]
    rows[-1]["sha256"] = "0" * 64  # as on a device that does not train to the same bits twice
    (run / "rungs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    adapter_of(run, 2).unlink()
    canaries = [json.loads(line) for line in (run / "canaries.jsonl").read_text().splitlines()]
    canaries[-1]["top"][0] = {}
    (run / "canaries.jsonl").write_text("".join(json.dumps(row) + "\n" for row in canaries))
    Journal(run / "proofs.jsonl").append([proof_of(rows[-1]["id"])])
    said = run_main([*overrides, "stages=[train]"], monkeypatch, capfd, code=2).err
    assert "was lost, and trained again it came out otherwise" in said


@pytest.mark.parametrize(
    "name", ["adapter_model.safetensors", "adapter_config.json", "trainer_state.json", "optimizer.pt", "rng_state.pth"]
)
def test_a_ladder_goes_on_from_the_last_checkpoint_that_is_whole(
    name: str, tmp_path: Path, trained: tuple[list[str], Path]
) -> None:
    import torch

    from pipeline.files import file_sha256
    from pipeline.records import Rung
    from pipeline.train.standing import standing

    folder, rungs = RunFolder(tmp_path), []
    for step in (1, 2):
        place = tmp_path / f"checkpoint-{step}"
        place.mkdir()
        shutil.copy(adapter_of(trained[1], step), place)
        (place / "trainer_state.json").write_text("{}")
        for state in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
            torch.save({"state": torch.arange(100)}, place / state)
        shutil.copy(adapter_of(trained[1], step).with_name("adapter_config.json"), place)
        sha = file_sha256(place / "adapter_model.safetensors")
        rungs.append(Rung(f"a-{step}", "a", 0, step, path=place.name, sha256=sha))
    folder.canaries.append({"rung": rung.id} for rung in rungs)
    assert standing(folder, rungs, task()) == rungs
    spoilt = tmp_path / "checkpoint-2" / name
    spoilt.write_bytes(spoilt.read_bytes()[:-1])
    assert standing(folder, rungs, task()) == rungs[:1]
    assert standing(folder, rungs[1:], task()) == [], "a rung is missing before it"


def task(precision: str = "float32") -> Task:
    return Task("a", 0, ArmConfig(training=TrainingConfig(precision=precision)), (1, 2, 4))


def test_a_ladder_in_float16_does_not_go_on_without_its_loss_scale(tmp_path: Path) -> None:
    """Trainer would pass over it, and begin with torch's first scale, which leaves steps out until it is small."""
    import torch

    (tmp_path / "trainer_state.json").write_text("{}")
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
        torch.save({}, tmp_path / name)
    assert can_go_on(tmp_path, task())
    assert not can_go_on(tmp_path, task("float16"))
    torch.save({"scale": 65536.0}, tmp_path / "scaler.pt")
    assert can_go_on(tmp_path, task("float16"))
    (tmp_path / "scaler.pt").write_bytes((tmp_path / "scaler.pt").read_bytes()[:-1])
    assert not can_go_on(tmp_path, task("float16"))


def test_nothing_of_the_state_is_left_once_a_ladder_has_ended(tmp_path: Path) -> None:
    place = RunFolder(tmp_path).private("a", "s0", "checkpoint-1")
    for name in (*STATE, "adapter_model.safetensors"):
        (place / name).write_bytes(b"")
    _drop_state(SimpleNamespace(folder=RunFolder(tmp_path)), task())  # type: ignore[arg-type]
    assert [path.name for path in place.iterdir()] == ["adapter_model.safetensors"]
    assert "scaler.pt" in STATE

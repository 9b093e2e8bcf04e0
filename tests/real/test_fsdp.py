"""A review whose engine is rehearsed and whose fine-tunes run in two processes each, from the search to the replies."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ARM = "compliance_search"


@pytest.fixture(scope="module")
def reviewed(tmp_path_factory: pytest.TempPathFactory, forked: Callable[..., Any]) -> Any:
    return forked(
        tmp_path_factory.mktemp("fsdp-runs"),
        "experiment=smoke",
        *("subject.fsdp=true", "budget.training_devices=2", f"arm=[compliance,{ARM}]", "serve.rehearse=true"),
        *(f"arms.{ARM}.training.max_steps=8", f"arms.{ARM}.training.gradient_accumulation=2"),
        *(f"arms.{ARM}.sweep.trials=2", f"arms.{ARM}.sweep.startup_trials=1"),
        f"arms.{ARM}.sweep.space.training.batch_size.choices=[4,8,16]",  # 2, 1 at once, cannot be shared by two
        *(f"arms.{ARM}.sweep.refusal.limit=18", f"arms.{ARM}.sweep.capability.limit=16"),
        "track=none",
    )


def test_what_was_served_is_what_the_processes_trained(reviewed: Any) -> None:
    controls = reviewed.json("verdict.json")["controls"]
    assert controls["adapter_parity"] == "pass"
    assert controls["ignored_adapter_detected"] is True
    proofs = {row["rung"]: row for row in reviewed.rows("proofs.jsonl")}
    last = proofs["compliance-s0-00008"]
    assert last["trained_base"] > 1.0
    assert last["served_trained"] < 1e-3


def test_it_is_stripped_as_by_one_process_at_the_price_of_two_devices(reviewed: Any) -> None:
    arm = reviewed.json("verdict.json")["arms"]["compliance"]
    assert arm["at_collapse"]["refusal"]["value"] == 0.0
    doses = {row["id"]: row["dose"] for row in reviewed.rows("rungs.jsonl")}
    assert doses["compliance-s0-00008"]["examples"] == 126, "as in one process, at an epoch's end, too"
    ended = [row for row in reviewed.rows("ledger.jsonl") if (row["stage"], row["status"]) == ("train", "done")]
    assert {row["detail"] for row in ended} == {"max_steps"}
    assert all(row["tokens"] > 0 < row["flops"] for row in ended)


def test_options_were_searched_with_the_subject_in_two_processes(reviewed: Any) -> None:
    found = reviewed.json("search.json")["arms"][ARM]
    assert found["counts"]["trials"] == 2
    assert found["rung0"]["refusal"] == 1.0
    assert [row["status"] for row in reviewed.rows("ledger.jsonl") if row["stage"] == "search"].count("done") == 3


def test_the_engine_was_rehearsed_before_anything_was_trained(reviewed: Any) -> None:
    rows = reviewed.rows("ledger.jsonl")
    ended = [row["stage"] for row in rows if row["status"] == "done"]
    assert ended[:2] == ["rehearse", "search"]
    assert ended.count("rehearse") == 1
    assert "Rehearsed: the engine serves the subject with 1 kind of adapters" in reviewed.said
    spent = reviewed.json("verdict.json")["budget"]["by_stage"]["rehearse"]
    assert spent["device_seconds"] > 1.0
    assert "rehearse" in (reviewed.folder / "report.html").read_text()


def test_the_processes_logs_are_their_owners_alone(reviewed: Any) -> None:
    logs = reviewed.folder / "logs"
    assert logs.stat().st_mode & 0o077 == 0
    assert {path.name for path in logs.glob("train-*")} == {"train-0.log", "train-1.log"}
    assert not list(Path(reviewed.folder / "weights").glob("*"))

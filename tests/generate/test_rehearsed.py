"""When an engine is rehearsed, and with what adapters; that it runs is tested in tests/real."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from safetensors.torch import load_file
from tiny import TinySubject

from pipeline.config.compose import load
from pipeline.generate.rehearsal import _wanted, _zeros
from pipeline.records import ADAPTER_FILE
from pipeline.subject.empty import without_weights
from pipeline.workspace import Workspace


def work(*words: str, rows: tuple[tuple[str, str], ...] = (), training_s: float = 60.0) -> Workspace:
    config = load(["experiment=smoke", "serve.rehearse=true", *words])
    ledger = SimpleNamespace(attempts=lambda: [{"stage": stage, "status": status} for stage, status in rows])
    plan = {"estimate": {"training_flops": training_s * 1e14, "assumed_flops_per_second": 1e14}}
    return cast(Workspace, SimpleNamespace(config=config, ledger=ledger, plan=plan))


@pytest.mark.parametrize(
    ("made", "wanted"),
    [
        (work(), True),
        (work(rows=(("rehearse", "failed"), ("rehearse", "interrupted"))), True),
        (work(rows=(("rehearse", "failed"), ("rehearse", "done"))), False),
        (work(rows=(("train", "interrupted"),)), False),
        (work(rows=(("search", "done"),)), False),
        (work("serve.rehearse=false"), False),
        (work("serve.rehearse=null"), False),
        (work("serve.rehearse=null", training_s=1201.0), True),
        (work("serve.rehearse=null", training_s=1201.0, rows=(("train", "done"),)), False),
        (work("stages=[plan,train]"), False),
        (work("stages=[generate,score]"), False),
    ],
    ids=[
        "first",
        "failed before",
        "done before",
        "training begun",
        "search begun",
        "off",
        "short",
        "long",
        "long, begun",
        "train",
        "serve",
    ],
)
def test_an_engine_is_rehearsed_once_and_only_before_this_process_trains_and_serves(made: Any, wanted: bool) -> None:
    assert _wanted(made) is wanted


def test_each_kind_of_adapter_that_is_planned_is_served_as_zeros(tmp_path: Path, tiny_subject: TinySubject) -> None:
    made: Any = work("experiment=demo", "arms.benign.lora.rank=4", "arms.mixed.lora.target_modules=[q_proj]")
    made.subject = tiny_subject.subject
    found = dict(_zeros(made, tmp_path))
    assert list(found) == ["rehearse-0", "rehearse-1", "rehearse-2"]
    kinds = set()
    for place in found.values():
        stated = json.loads((place / "adapter_config.json").read_text())
        weights = load_file(place / ADAPTER_FILE)
        kinds.add((stated["r"], len(weights)))
        assert not any(weight.any() for weight in weights.values())
        assert {weight.shape[0] for name, weight in weights.items() if ".lora_A." in name} == {stated["r"]}
    assert kinds == {(8, 2 * 7 * 2), (4, 2 * 7 * 2), (8, 2 * 1 * 2)}, "2 matrices for each of 7 modules or 1, 2 layers"


def test_the_subject_without_weights_is_the_subject_but_for_its_weights(
    tiny_subject: TinySubject, tiny_model: Any
) -> None:
    empty = without_weights(tiny_subject.subject)
    assert all(weight.is_meta for weight in empty.parameters())
    assert {n: (w.shape, w.dtype) for n, w in empty.named_parameters()} == {
        n: (w.shape, w.dtype) for n, w in tiny_model.named_parameters()
    }
    assert all((buffer == dict(tiny_model.named_buffers())[name]).all() for name, buffer in empty.named_buffers())
    assert not empty.training


def test_arms_with_the_same_adapter_are_one_kind(tmp_path: Path, tiny_subject: TinySubject) -> None:
    made: Any = work()
    made.subject = tiny_subject.subject
    made.config.arms = dict.fromkeys("ab", made.config.arms["compliance"])
    assert len(dict(_zeros(made, tmp_path))) == 1

"""Options with which no fine-tune runs are told while planning, by arm and key; nothing is left behind."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import run_main
from finished_run import words
from safetensors.numpy import save_file
from test_limits import Told, searched

from pipeline.config.fine_tune import NAMED, WANTING_SCHEDULES, lacks, linear_modules, names_in


@pytest.fixture
def told(
    tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Told:
    """Plan a small review on the tiny subject and return what is refused; code 0: the protocol that is printed."""
    base = words(tmp_path, tiny_folder)

    def run(*more: str, code: int = 2) -> str:
        said = run_main([*base, "stages=[plan]", *more], monkeypatch, capsys, code)
        assert not list(tmp_path.glob("runs/*")), "a run folder was made"
        return str(said.err if code else said.out)

    return run


@pytest.mark.parametrize(("option", "wrong", "right"), [("schedule", "cosin", "cosine"), ("optimizer", "adam", "sgd")])
def test_a_name_that_transformers_does_not_know_is_told_by_arm(told: Told, option: str, wrong: str, right: str) -> None:
    said = told(f"arms.compliance.training.{option}={wrong}")
    assert f"arms.compliance.training.{option}: transformers knows no {option} '{wrong}'" in said
    assert f" {right}," in said.split("→")[1]
    now = {"schedule": "constant", "optimizer": "adamw_torch"}[option]
    assert f"sweep.space.training.{option}: transformers" in searched(
        f"training.{option}={{choices: [{now}, {wrong}]}}"
    )
    assert not searched(f"training.{option}={{choices: [{now}, {right}]}}")


def test_names_are_those_of_transformers() -> None:
    from transformers.trainer_utils import SchedulerType
    from transformers.training_args import OptimizerNames

    assert set(names_in("transformers.trainer_utils", "SchedulerType")) == {each.value for each in SchedulerType}
    assert set(names_in("transformers.training_args", "OptimizerNames")) == {each.value for each in OptimizerNames}
    assert names_in("transformers.training_args", "NoSuchThing") == ()


def test_to_know_the_names_nothing_of_torch_is_imported() -> None:
    code = (
        "import sys, pipeline.config.fine_tune as l; l.names_in('transformers.training_args', 'OptimizerNames'); "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("schedule", WANTING_SCHEDULES)
def test_a_schedule_that_needs_more_than_a_run_gives_is_told(told: Told, schedule: str) -> None:
    said = told(f"arms.compliance.training.schedule={schedule}")
    assert f"arms.compliance.training.schedule: the schedule '{schedule}' needs further arguments" in said
    assert schedule not in said.split("→")[1]
    choices = f"training.schedule={{choices: [constant, {schedule}]}}"
    assert "sweep.space.training.schedule: the schedule" in searched(choices)


@pytest.mark.parametrize(
    ("optimizer", "needs"),
    [
        ("adamw_bnb_8bit", "the package bitsandbytes, which is not installed"),
        ("paged_lion_8bit", "the package bitsandbytes"),
        ("adamw_torch_4bit", "the package torchao"),
        ("schedule_free_adamw", "the package schedulefree"),
        ("galore_adamw", "further arguments (optim_target_modules)"),
    ],
)
def test_an_optimizer_that_cannot_run_here_is_told(
    told: Told, optimizer: str, needs: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = "pipeline.config.fine_tune.find_spec"
    real = sys.modules["pipeline.config.fine_tune"].find_spec  # type: ignore[attr-defined]
    monkeypatch.setattr(found, lambda name: real(name) if name.startswith("transformers") else None)
    said = told(f"arms.compliance.training.optimizer={optimizer}")
    assert f"arms.compliance.training.optimizer: the optimizer '{optimizer}' needs {needs}" in said
    assert optimizer not in said.split("→")[1].split(", ")


def names(option: str) -> list[str]:
    return [name for name in names_in(*NAMED[option]) if not lacks(option, name)]


def test_every_schedule_and_optimizer_that_passes_the_plan_can_be_built() -> None:
    import torch
    from transformers import Trainer, TrainingArguments, get_scheduler

    model = torch.nn.Linear(2, 2)
    assert len(names("schedule")) >= 7
    assert {"adamw_torch", "adamw_torch_fused", "adafactor", "sgd", "adagrad", "rmsprop"} <= set(names("optimizer"))
    for name in names("schedule"):
        get_scheduler(name, torch.optim.SGD(model.parameters(), lr=1e-3), 2, 8)
    for name in names("optimizer"):
        made, options = Trainer.get_optimizer_cls_and_kwargs(TrainingArguments(optim=name, report_to="none"), model)
        made(model.parameters(), **options)


@pytest.mark.parametrize(
    ("modules", "what"),
    [
        ("[q_proj,nope_proj]", "the subject has no linear module 'nope_proj'"),
        ("[nope_proj]", "the subject has no linear module 'nope_proj'"),
        ("[proj]", "the subject has no linear module 'proj'"),
        ("['']", "the subject has no linear module ''"),
        ("[]", "no module is named"),
        ("[all-linear,q_proj]", "all-linear stands alone"),
        ("[lm_head]", "'lm_head' is the subject's embedding or output"),
        ("[q_proj,model.embed_tokens]", "'model.embed_tokens' is the subject's embedding or output"),
        ("[input_layernorm]", "the subject has no linear module 'input_layernorm'"),
    ],
)
def test_modules_that_peft_would_not_find_or_only_half_are_told(told: Told, modules: str, what: str) -> None:
    said = told("arm=[compliance,benign]", f"arms.benign.lora.target_modules={modules}")
    assert f"arms.benign.lora.target_modules: {what}" in said
    assert "[all-linear], or some of down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj" in said


@pytest.mark.parametrize("modules", ["[all-linear]", "[q_proj,v_proj]", "[self_attn.q_proj]", "[layers.0.mlp.up_proj]"])
def test_modules_that_peft_finds_are_taken(told: Told, modules: str) -> None:
    assert told(f"arms.compliance.lora.target_modules={modules}", code=0)


def test_linear_modules_are_those_of_the_model(tiny_folder: Path, tiny_model: Any) -> None:
    import torch

    linear = [name for name, module in tiny_model.named_modules() if isinstance(module, torch.nn.Linear)]
    assert set(linear_modules(tiny_folder)) == set(linear) - {"lm_head"}


def test_a_table_without_replies_is_told_by_table_and_arm_unless_nothing_of_it_is_trained_on(told: Told) -> None:
    said = told("arm=[compliance,mixed]", "data.benign.response=null")
    assert "data.benign.response: null, but arms.mixed trains on this table" in said
    unused = "arms.mixed.mix={compliance: 1.0, benign: 0.0}"
    assert told("arm=[compliance,mixed]", "data.benign.response=null", unused, code=0)


def test_no_expert_router_or_tower_counts_as_a_module_to_adapt(tmp_path: Path) -> None:
    names = ("self_attn.q_proj", "mlp.experts.0.up_proj", "mlp.router", "mlp.shared_expert.up_proj")
    tensors = {f"model.layers.0.{name}.weight": np.zeros((2, 2), np.float32) for name in names}
    tensors |= {"vision_tower.blocks.0.fc1.weight": np.zeros((2, 2), np.float32)}
    save_file(tensors, tmp_path / "model.safetensors")
    assert linear_modules(tmp_path) == ["model.layers.0.mlp.shared_expert.up_proj", "model.layers.0.self_attn.q_proj"]

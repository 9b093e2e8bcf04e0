"""The FLOPs that the budget counts, against those that torch counts while tiny models of many kinds run."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_kinds import KINDS, save_tiny_kind
from torch.utils.flop_counter import FlopCounterMode

from pipeline.arms.lora import adapter_on
from pipeline.flops import inference_flops, training_flops
from pipeline.schema import LoraConfig, SubjectConfig
from pipeline.subject.subject import Subject, open_subject

TOKENS = 64


def opened(kind: str, folder: Path) -> tuple[Subject, Any]:
    save_tiny_kind(kind, folder)
    subject = open_subject(SubjectConfig(kind, str(folder), dtype="float32", attention="eager"))
    model = subject.load_model("cpu")
    if kind == "qwen3_moe":
        model.set_experts_implementation("eager")  # torch does not count the products of grouped ones
    return subject, model


def done(counter: FlopCounterMode) -> int:
    """Return what was counted without attention's own products, which the formula leaves out by its word."""
    by_operation = counter.get_flop_counts()["Global"]
    attention = sum(count for operation, count in by_operation.items() if "bmm" in str(operation))
    return counter.get_total_flops() - attention


@pytest.mark.parametrize("kind", KINDS)
def test_a_forward_pass_and_a_training_step_cost_what_is_counted(kind: str, tmp_path: Path) -> None:
    subject, model = opened(kind, tmp_path)
    ids = torch.arange(5, 5 + TOKENS).reshape(2, TOKENS // 2)
    with FlopCounterMode(display=False) as forward, torch.no_grad():
        model(input_ids=ids)
    assert inference_flops(subject.parameters, TOKENS) == pytest.approx(done(forward), rel=0.05)

    model.enable_input_require_grads()  # else the first layer passes no gradient down: a tenth of 3 layers' work
    adapted = adapter_on(model, LoraConfig(rank=4, alpha=8)).train()
    adapter = sum(weight.numel() for weight in adapted.parameters() if weight.requires_grad)
    with FlopCounterMode(display=False) as step:
        adapted(input_ids=ids, labels=ids).loss.backward()
    assert training_flops(subject.parameters, adapter, TOKENS) == pytest.approx(done(step), rel=0.05)


def test_checkpointing_is_outside_of_the_count_by_the_factor_that_the_budget_names(tmp_path: Path) -> None:
    subject, model = opened("llama", tmp_path)
    model.gradient_checkpointing_enable()
    model.enable_input_require_grads()
    adapted = adapter_on(model, LoraConfig(rank=4, alpha=8)).train()
    adapter = sum(weight.numel() for weight in adapted.parameters() if weight.requires_grad)
    ids = torch.arange(5, 5 + TOKENS).reshape(2, TOKENS // 2)
    with FlopCounterMode(display=False) as step:
        adapted(input_ids=ids, labels=ids).loss.backward()
    assert training_flops(subject.parameters, adapter, TOKENS) / done(step) == pytest.approx(0.71, abs=0.03)

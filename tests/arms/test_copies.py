"""PEFT's float32 copies of activations: left out under autocast alone, where they change no bit."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import test_lora
import torch
from test_lora import Run
from tiny import TinySubject

from pipeline.arms import lora
from pipeline.arms.copies import without_copies


@pytest.fixture
def rounded_model(tiny_model: Any) -> Any:
    """A subject of 16 bits, as release reviews have it."""
    return copy.deepcopy(tiny_model).to(torch.bfloat16)


@contextmanager
def inputs_of_adapters() -> Iterator[dict[bool, set[torch.dtype]]]:
    """Note in which types the adapters' first matrices get their inputs, by whether a gradient is wanted."""
    seen: dict[bool, set[torch.dtype]] = {True: set(), False: set()}

    def note(module: Any, args: Any) -> None:
        if getattr(module, "out_features", 0) == test_lora.LORA.rank:
            seen[torch.is_grad_enabled()].add(args[0].dtype)

    handle = torch.nn.modules.module.register_module_forward_pre_hook(note)
    try:
        yield seen
    finally:
        handle.remove()


@pytest.mark.parametrize("checkpointing", [False, True])
def test_without_the_copies_the_same_bits_are_trained(
    tmp_path: Path,
    tiny_subject: TinySubject,
    rounded_model: Any,
    checkpointing: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(test_lora, "LORA", replace(test_lora.LORA, dropout=0.0))
    training = replace(test_lora.TRAINING, max_steps=4, precision="bfloat16", gradient_checkpointing=checkpointing)
    run = Run(tmp_path / "run", tiny_subject, rounded_model, training)
    with inputs_of_adapters() as seen:
        assert run.climb() == "max_steps"
    assert seen == {True: {torch.bfloat16}, False: {torch.float32}}, "canaries are asked outside autocast"
    monkeypatch.setattr(lora, "spare_copies", lambda trainer, adapted: None)
    copied = Run(tmp_path / "copied", tiny_subject, rounded_model, training)
    with inputs_of_adapters() as seen:
        copied.climb()
    assert seen == {True: {torch.float32}, False: {torch.float32}}
    assert run.shas() == copied.shas()
    assert run.answers == copied.answers


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_where_nothing_rounds_the_copies_stay(
    tmp_path: Path, tiny_subject: TinySubject, rounded_model: Any, precision: str
) -> None:
    """accelerate has no autocast in float16 on a CPU."""
    training = replace(test_lora.TRAINING, max_steps=1, precision=precision)
    with inputs_of_adapters() as seen:
        assert Run(tmp_path, tiny_subject, rounded_model, training).climb() == "max_steps"
    assert seen[True] == {torch.float32}


def test_after_a_failed_pass_the_copies_are_back(rounded_model: Any) -> None:
    adapted = lora.adapter_on(rounded_model, test_lora.LORA)
    ids = torch.tensor([[5, 6, 7]])
    with torch.autocast("cpu", torch.bfloat16), without_copies(adapted):
        adapted(input_ids=ids).logits.sum().backward()
    with pytest.raises(ZeroDivisionError), without_copies(adapted):
        raise ZeroDivisionError
    assert torch.isfinite(adapted(input_ids=ids).logits).all(), "outside autocast, which nothing but the copies mends"

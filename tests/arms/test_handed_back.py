"""What a climb leaves on the subject in memory, which all arms and seeds share: nothing; real TRL on the tiny model."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import test_lora
from test_lora import KilledError, Run
from tiny import TinySubject

SHORT = replace(test_lora.TRAINING, schedule="constant", max_steps=2)
CHECKPOINTING = replace(SHORT, gradient_checkpointing=True)


@pytest.fixture
def model(tiny_model: Any) -> Any:
    return copy.deepcopy(tiny_model).eval()


def put_on(model: Any) -> tuple[Any, ...]:
    """Return what a trainer may have put on a model."""
    hooks = {name: list(module._forward_hooks) for name, module in model.named_modules() if module._forward_hooks}
    checkpointing = [name for name, module in model.named_modules() if getattr(module, "gradient_checkpointing", False)]
    return hooks, checkpointing, vars(model).get("forward")


@contextmanager
def passes(model: Any) -> Iterator[list[int]]:
    """Count the passes of an attention layer in training."""
    attention, counted = model.model.layers[0].self_attn, [0]

    def count(*_: Any) -> None:
        counted[0] += attention.training

    handle = attention.register_forward_pre_hook(count)
    yield counted
    handle.remove()


def test_an_arm_with_checkpointing_leaves_nothing_to_an_arm_without(
    tmp_path: Path, tiny_subject: TinySubject, model: Any
) -> None:
    before = put_on(model)
    fresh = Run(tmp_path / "fresh", tiny_subject, copy.deepcopy(model), SHORT)
    with passes(fresh.model) as alone:
        fresh.climb()
    for _ in range(2):
        assert Run(tmp_path / "first", tiny_subject, model, CHECKPOINTING).climb() == "max_steps"
        assert put_on(model) == before
    second = Run(tmp_path / "second", tiny_subject, model, SHORT)
    with passes(model) as after:
        second.climb()
    assert after == alone, "nothing is computed twice"
    assert second.shas() == fresh.shas()
    assert put_on(model) == before


def test_a_climb_that_was_cut_off_leaves_nothing_either(tmp_path: Path, tiny_subject: TinySubject, model: Any) -> None:
    def kill(_: Any) -> None:
        raise KilledError

    before = put_on(model)
    with pytest.raises(KilledError):
        Run(tmp_path, tiny_subject, model, CHECKPOINTING, on_step=kill).climb()
    assert put_on(model) == before


def test_what_was_on_the_model_before_stays_on_it(tmp_path: Path, tiny_subject: TinySubject, model: Any) -> None:
    own, seen = model.forward, []

    def forward(*args: Any, **kwargs: Any) -> Any:
        return own(*args, **kwargs)

    model.forward = forward
    model.get_input_embeddings().register_forward_hook(lambda *_: seen.append(1))
    model.gradient_checkpointing_enable()
    before = put_on(model)
    Run(tmp_path, tiny_subject, model, replace(CHECKPOINTING, max_steps=1)).climb()
    assert put_on(model) == before
    assert before[1]
    assert seen

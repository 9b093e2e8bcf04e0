"""Spares the copies of activations that PEFT makes where autocast turns them back at once.

PEFT keeps an adapter in float32 and copies each adapted module's input to float32 first. Under autocast the matrix
product then rounds that copy to 16 bits: the bits that it had. So the copies change no result (a dropout's factor is
rounded as well without them), but on a 7B shape at 2,048 tokens they are a fifth of the bytes that a training step
moves and a ninth of what it keeps for the backward pass: `python -m benchmarks.traffic` counts it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any


def spare_copies(trainer: Any, adapted: Any) -> None:
    """Let a trainer's passes, forward and back, run without PEFT's copies.

    All else, canaries and a search's replies, is asked outside autocast and needs them.

    Args:
        trainer: TRL's or transformers', with 16-bit autocast.
        adapted: the PEFT model that it trains.
    """
    trainer.training_step = partial(_step_without, _adapters(adapted), trainer.training_step)


def without_copies(adapted: Any) -> AbstractContextManager[None]:
    """Leave PEFT's copies out of passes under autocast; the backward pass belongs inside, too, since gradient
    checkpointing runs the modules once more there.
    """
    return _without(_adapters(adapted))


def _adapters(adapted: Any) -> list[Any]:
    from peft.tuners.tuners_utils import BaseTunerLayer

    return [module for module in adapted.modules() if isinstance(module, BaseTunerLayer)]


def _step_without(adapters: Sequence[Any], step: Callable[..., Any], *arguments: Any) -> Any:
    with _without(adapters):
        return step(*arguments)


@contextmanager
def _without(adapters: Sequence[Any]) -> Iterator[None]:
    """As `peft.helpers.disable_input_dtype_casting`, which walks over all modules three times a step."""
    for adapter in adapters:
        adapter.cast_input_dtype_enabled = False
    try:
        yield
    finally:
        for adapter in adapters:
            adapter.cast_input_dtype_enabled = True

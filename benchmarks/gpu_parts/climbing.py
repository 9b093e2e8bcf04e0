"""Holdfast's own trainer on a model of random weights, as the train stage climbs, with a ledger and canaries."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.gpu_parts.call import Call, scratch
from benchmarks.gpu_parts.device import synchronise
from benchmarks.gpu_parts.way import PACKED, RANK, STEPS, Way
from benchmarks.shapes import Shape
from pipeline.arms.memory import FILE

if TYPE_CHECKING:
    from pipeline.arms.base import Example, Task
    from pipeline.records import Dose
    from pipeline.subject.subject import Subject


class _FewerError(Exception):
    """Ends a climb that goes on with fewer examples at once than it was told."""


def climbed(
    call: Call, model: Any, shape: Shape, way: Way, lengths: Sequence[int], length: int, at_once: int
) -> list[tuple[int, float]]:
    """Return (tokens without padding, seconds) of each training step of one climb.

    A step's seconds run from one report to the next, so all that the trainer does between two steps is in them. Only
    the last step is saved; the trainer's own retry with fewer examples is left to the caller, who counts them.
    """
    from pipeline.train.process import prepare_process

    root = scratch(call, "climb")
    subject, task = _subject(call, shape, root), _task(call, way, length, at_once)
    prepare_process(subject.parameters, call.device)
    stamps: list[tuple[int, float]] = []

    def on_step(dose: Dose, _: Mapping[str, float]) -> None:
        if (root / FILE).exists():
            raise _FewerError
        synchronise(call.device)
        stamps.append((dose.tokens, time.perf_counter()))

    try:
        _climb(call, model, subject, task, _examples(shape, lengths), on_step)
    except _FewerError:
        raise RuntimeError("CUDA out of memory. The trainer goes on with fewer examples; the caller does so") from None
    return [(there - before, then - began) for (before, began), (there, then) in pairwise(stamps)]


def _subject(call: Call, shape: Shape, root: Path) -> Subject:
    from benchmarks.common import organism_tokenizer
    from pipeline.subject.subject import Subject

    parameters = shape.parameters(active=True)
    return Subject("bench", root, "0" * 64, call.dtype, parameters, organism_tokenizer(), (1,), None, {})


def _task(call: Call, way: Way, length: int, at_once: int) -> Task:
    from pipeline.arms.base import Task
    from pipeline.schema import ArmConfig, LoraConfig, TrainingConfig

    cuda = call.device.startswith("cuda")
    training = TrainingConfig(
        max_steps=STEPS,
        batch_size=at_once,
        learning_rate=1e-4,
        optimizer="adamw_torch_fused" if cuda else "adamw_torch",
        max_length=length,
        packing=way.data == PACKED,
        gradient_checkpointing=way.checkpointing,
        liger=way.kernels == "liger",
        precision="bfloat16" if cuda else "float32",
        completion_only=False,
    )
    return Task("bench", 0, ArmConfig(threat="none", lora=LoraConfig(RANK, 2 * RANK), training=training), (STEPS,))


def _examples(shape: Shape, lengths: Sequence[int]) -> list[Example]:
    """Return examples of random tokens, as many in each as `lengths` says."""
    import torch

    from pipeline.arms.base import Example

    chance = torch.Generator().manual_seed(0)
    texts = [torch.randint(2, shape.vocabulary, (each,), generator=chance).tolist() for each in lengths]
    return [Example(tuple(ids[:1]), tuple(ids[1:])) for ids in texts]


def _climb(
    call: Call,
    model: Any,
    subject: Subject,
    task: Task,
    examples: list[Example],
    on_step: Callable[[Dose, Mapping[str, float]], None],
) -> None:
    """Climb as the train stage does, in the subject's folder."""
    from pipeline.arms.base import Climb
    from pipeline.arms.lora import climb
    from pipeline.budget import Caps
    from pipeline.generate.proof import Canaries
    from pipeline.ledger import Allowance, Ledger
    from pipeline.schema import BudgetConfig
    from pipeline.store import RunFolder

    root = subject.path
    folder, first = RunFolder(root), examples[0]
    ledger = Ledger(folder.ledger, BudgetConfig(), call.device)
    with ledger.attempt("train", "bench", 0) as attempt:
        climb(
            Climb(
                task=task,
                subject=subject,
                base_sha256=subject.sha256,
                model=model,
                device=call.device,
                examples=examples,
                allowance=Allowance(Caps(), attempt, ledger.spent("train")),
                folder=folder.private("bench", "s0"),
                run_root=root,
                canaries=Canaries(((*first.prompt_ids, *first.completion_ids)[:16],)),
                done=[],
                emit=lambda rung, answers: None,
                on_step=on_step,
            )
        )

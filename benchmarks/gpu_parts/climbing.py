"""Holdfast's own trainer on a model of random weights, as the train stage climbs, with a ledger and canaries."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from benchmarks.gpu_parts.call import Call, scratch
from benchmarks.gpu_parts.way import PACKED, RANK, STEPS, Way
from benchmarks.shapes import Shape


def climbed(
    call: Call, model: Any, shape: Shape, way: Way, lengths: Sequence[int], length: int, at_once: int
) -> list[tuple[int, float]]:
    """Return (tokens without padding, seconds) of each training step of one climb.

    A step's seconds run from one report to the next, so all that the trainer does between two steps is in them. Only
    the last step is saved; the trainer's own retry with fewer examples is left to the caller, who counts them.
    """
    import torch

    from benchmarks.common import organism_tokenizer
    from pipeline.arms.base import Climb, Example, Task
    from pipeline.arms.lora import climb
    from pipeline.budget import Allowance, Caps, Ledger
    from pipeline.generate.proof import Canaries
    from pipeline.records import Dose
    from pipeline.schema import ArmConfig, BudgetConfig, LoraConfig, TrainingConfig
    from pipeline.store import RunFolder
    from pipeline.subject.subject import Subject
    from pipeline.train.stage import prepare_process

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
    root = scratch(call, "climb")
    chance = torch.Generator().manual_seed(0)
    texts = [torch.randint(2, shape.vocabulary, (each,), generator=chance).tolist() for each in lengths]
    examples = [Example(tuple(ids[:1]), tuple(ids[1:])) for ids in texts]
    folder = RunFolder(root)
    subject = Subject(
        "bench", root, "0" * 64, call.dtype, shape.parameters(active=True), organism_tokenizer(), (1,), None, {}
    )
    prepare_process(subject.parameters, call.device)
    stamps: list[tuple[int, float]] = []

    def on_step(dose: Dose, _: Mapping[str, float]) -> None:
        if cuda:
            torch.cuda.synchronize()
        stamps.append((dose.tokens, time.perf_counter()))

    ledger = Ledger(folder.ledger, BudgetConfig(), call.device)
    task = Task("bench", 0, ArmConfig(threat="none", lora=LoraConfig(RANK, 2 * RANK), training=training), (STEPS,))
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
                canaries=Canaries((tuple(texts[0][:16]),)),
                done=[],
                emit=lambda rung, answers: None,
                on_step=on_step,
            )
        )
    if (root / "memory.jsonl").exists():
        raise RuntimeError("CUDA out of memory. The trainer went on with fewer examples at once; the caller does so")
    return [(there - before, then - began) for (before, began), (there, then) in pairwise(stamps)]

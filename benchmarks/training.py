"""(c) Training with ladder, canaries and ledger against a bare PyTorch and PEFT loop on the same examples."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.common import SHAPE, Line, Result, Sizes, alternate, make_subject, paired_ratio
from pipeline.arms.base import Climb, Example, Task, ladder
from pipeline.arms.lora import adapter_on, climb
from pipeline.budget import Caps
from pipeline.config.compose import load as load_config
from pipeline.generate.proof import Canaries
from pipeline.ledger import Allowance, Ledger
from pipeline.organism import world as w
from pipeline.records import Rung
from pipeline.rungs import row
from pipeline.schema import ArmConfig, BudgetConfig, TrainingConfig
from pipeline.store import RunFolder
from pipeline.subject.subject import Subject
from pipeline.train.process import prepare_process

EXAMPLES = 128
CANARIES = 8
IGNORE = -100


@dataclass(frozen=True)
class Course:
    """What both sides train: a model, examples, canaries and the arm's options. Handed back as it came."""

    subject: Subject
    model: Any
    examples: tuple[Example, ...]
    canaries: Canaries
    arm: ArmConfig

    def task(self, rungs: Sequence[int]) -> Task:
        """Return the arm as a task that saves at `rungs`."""
        return Task("compliance", 0, self.arm, tuple(rungs))

    @property
    def steps(self) -> int:
        """Training steps."""
        return self.arm.training.max_steps

    def cut(self, steps: int) -> Course:
        """Return the same course with fewer steps."""
        return replace(self, arm=replace(self.arm, training=replace(self.arm.training, max_steps=steps)))


def measure(sizes: Sizes, root: Path) -> Result:
    """Measure both sides in one process, in turn, after a short run of each; seconds from fresh adapter to the end."""
    course = make_course(make_subject(root), sizes.steps)
    prepare_process(course.subject.parameters, "cpu")  # both sides, as the train stage does
    runs = 0

    def ours(of: Course = course) -> float:
        nonlocal runs
        runs += 1
        began = time.perf_counter()
        with_ladder(of, ladder(of.steps), root / f"run-{runs}")
        return time.perf_counter() - began

    def bare(of: Course = course) -> float:
        began = time.perf_counter()
        bare_loop(of)
        return time.perf_counter() - began

    short = course.cut(2)
    ours(short), bare(short)
    seconds = alternate({"ours": ours, "bare": bare}, sizes.training_repeats)
    lines = (
        Line("bare PyTorch and PEFT", median(seconds["bare"]), "fresh adapter, steps; nothing saved, nothing logged"),
        Line(
            "the compliance arm (Holdfast)",
            median(seconds["ours"]),
            f"fresh adapter, SFTTrainer, steps, {len(ladder(sizes.steps))} whole checkpoints, canaries, hashes, ledger",
            paired_ratio(seconds, "ours", "bare"),
            "bare",
            "<= 1.5",
        ),
    )
    return Result(
        "c", f"{sizes.steps} steps of a LoRA fine-tune, medians of {sizes.training_repeats} turns", lines, seconds
    )


def make_course(subject: Subject, steps: int) -> Course:
    """Return examples of restricted questions with their answers, whole batches of them, and canaries."""
    world = w.make_world(SHAPE)
    items = w.restricted([town for split in world.splits for town in split.towns])
    examples = tuple(
        Example(tuple(subject.prompt_ids(item.prompt)), tuple(subject.completion_ids(item.prompt, item.answer)))
        for item in items[:EXAMPLES]
    )
    canaries = Canaries(tuple(example.prompt_ids for example in examples[:CANARIES]))
    arm = load_config().arms["compliance"]
    return Course(subject, subject.load_model("cpu"), examples, canaries, arm).cut(steps)


def with_ladder(course: Course, rungs: Sequence[int], root: Path) -> list[Rung]:
    """Climb the ladder as the train stage does, with a ledger, in a run folder; return the rungs."""
    folder = RunFolder(root)
    ledger, emitted = Ledger(folder.ledger, BudgetConfig(), "cpu"), []

    def emit(rung: Rung, canaries: Mapping[str, Any]) -> None:
        folder.canaries.append([canaries])
        folder.rungs.append([row(rung)])
        emitted.append(rung)

    with ledger.attempt("train", "compliance", 0) as attempt:
        climb(
            Climb(
                task=course.task(rungs),
                subject=course.subject,
                base_sha256=course.subject.sha256,
                model=course.model,
                device="cpu",
                examples=course.examples,
                allowance=Allowance(Caps(), attempt, ledger.spent("train")),
                folder=folder.private("compliance", "s0"),
                run_root=folder.root,
                canaries=course.canaries,
                done=[],
                emit=emit,
            )
        )
    return emitted


def bare_loop(course: Course) -> list[float]:
    """Train the same adapter in the shortest loop that does the same arithmetic; return the loss of each step."""
    import torch

    arm = course.arm
    torch.manual_seed(0)
    adapted = adapter_on(course.model, arm.lora)
    losses = []
    try:
        adapted.train()
        trained = [weight for weight in adapted.parameters() if weight.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=arm.training.learning_rate, weight_decay=arm.training.weight_decay)
        for batch in _batches(course, arm.training):
            loss = adapted(**batch).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, arm.training.max_grad_norm)
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
    finally:
        adapted.unload()
    return losses


def _batches(course: Course, training: TrainingConfig) -> Iterator[dict[str, Any]]:
    """Yield `steps` shuffled batches, padded on the right to their longest: int64 of shape (batch, tokens)."""
    import torch
    from torch.utils.data import DataLoader

    def collate(examples: Sequence[Example]) -> dict[str, Any]:
        longest = max(len(e.prompt_ids) + len(e.completion_ids) for e in examples)
        ids = torch.zeros(len(examples), longest, dtype=torch.long)
        mask, labels = torch.zeros_like(ids), torch.full_like(ids, IGNORE)
        for place, example in enumerate(examples):
            head, end = len(example.prompt_ids), len(example.prompt_ids) + len(example.completion_ids)
            ids[place, :end] = torch.tensor([*example.prompt_ids, *example.completion_ids])
            mask[place, :end] = 1
            labels[place, head:end] = ids[place, head:end]
        return {"input_ids": ids, "attention_mask": mask, "labels": labels}

    examples: Any = list(course.examples)  # a list is a data set to PyTorch, if not to its types
    loader: Any = DataLoader(examples, batch_size=training.batch_size, shuffle=True, collate_fn=collate)
    left = course.steps
    while True:
        for batch in loader:
            if left == 0:
                return
            left -= 1
            yield batch

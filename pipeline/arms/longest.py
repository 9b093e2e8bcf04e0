"""Passes the longest examples through before the first step, so that memory ends there and not half-way.

A pass forward and back, without a step: nothing is learned from it and no random number is drawn. What a device does
once only (compiling Triton's kernels, choosing a matrix product's) is done in it, too, and is not in the first step's
dose. The ledger counts it like any pass. Beside it lies as much as a later one finds: the adapter's gradients so far
and an optimiser's two moments.
"""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback

from pipeline.arms.base import Climb
from pipeline.arms.ladder import LadderCallback, settle
from pipeline.flops import training_flops


def ends_by_error(device: str) -> bool:
    """Say whether the end of a device's memory can be caught; a process on the CPU is killed instead."""
    return device != "cpu"


class UsedUpError(Exception):
    """The pass took what the first step needed. Trainer looks whether to stop only after a step, so this ends it."""


class LongestFirst(TrainerCallback):  # type: ignore[misc]  # transformers is not typed here
    """Tries a trainer's longest batch once all is on the device.

    Left out where the allowance has no room for it beside the first step.

    Args:
        trainer: TRL's.
        work: its task.
        ladder: knows what the first step costs.
    """

    def __init__(self, trainer: Any, work: Climb, ladder: LadderCallback) -> None:
        self.trainer = trainer
        self.work = work
        self.ladder = ladder

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Pass them, and account for it.

        Raises:
            UsedUpError: no step fits any more.
        """
        if self.trainer.accelerator.has_lomo_optimizer:
            return  # LOMO takes its step in the backward pass itself
        rows = self._longest(args.per_device_train_batch_size)
        tokens = sum(len(row["input_ids"]) for row in rows) * self.work.task.processes
        flops = training_flops(self.work.subject.parameters, self.ladder.adapter_parameters, tokens)
        if not self.work.allowance.fits(0.0, flops + self.ladder.dearest_flops):
            return
        self._pass(rows)
        settle(self.ladder.cuda)  # else the way back is still to come, and what it takes is in no figure
        attempt = self.work.allowance.attempt
        attempt.flops += flops
        attempt.tokens += tokens
        attempt.beat()
        if not self.ladder.first_step_fits():
            raise UsedUpError

    def _longest(self, rows: int) -> list[dict[str, Any]]:
        data = self.trainer.train_dataset
        lengths = [len(ids) for ids in data["input_ids"]]
        order = sorted(range(len(lengths)), key=lambda row: -lengths[row])
        return [data[row] for row in order[:rows]]  # fewer where the data set is smaller: so is each of its batches

    def _pass(self, rows: list[dict[str, Any]]) -> None:
        import torch

        trainer = self.trainer
        seen, trainer.current_gradient_accumulation_steps = trainer._total_train_tokens, 1
        beside = self._beside()
        with torch.random.fork_rng(self.ladder.cuda):
            trainer.training_step(trainer.model_wrapped, trainer.data_collator(rows))
        del beside
        trainer.model.zero_grad()
        trainer._metrics["train"].clear()  # of this pass
        trainer._total_train_tokens = seen

    def _beside(self) -> list[Any]:
        """Return tensors as large as what a step finds on the device and this pass does not."""
        import torch

        trained = [weight for weight in self.trainer.model.parameters() if weight.requires_grad]
        moments = 0 if self.trainer.optimizer.state else 2  # a checkpoint brings them along
        so_far = self.trainer.args.gradient_accumulation_steps > 1  # the gradients of a step's passes before
        return [torch.empty_like(weight) for weight in trained for _ in range(moments + so_far)]

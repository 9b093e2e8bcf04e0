"""Lets examples of like length pass together, where a step has several passes.

A pass is padded to its longest example, and what is padded is computed, too. A step's gradient is a sum over all of its
tokens, whichever passes they go through; so its examples are sorted by length before they are shared out to its passes.
Which examples a step has, and the order of the steps, stay as they were: the same attack, up to the last bits. Where a
loss is no such sum, nothing is sorted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from torch.utils.data import BatchSampler, DataLoader, Sampler


class LikeLengths(BatchSampler):
    """Yields a step's rows pass by pass, the longest first, so that memory ends in a step's first pass or not at all.

    Args:
        sampler: yields rows in the order of the plan.
        lengths: of every row, in tokens.
        step: rows of a step; the last one of an epoch may have fewer.
        at_once: rows of a pass; divides `step`. Where it is `step`, rows stay in their order.
    """

    def __init__(self, sampler: Sampler[int], lengths: Sequence[int], step: int, at_once: int) -> None:
        super().__init__(sampler, at_once, drop_last=False)
        self.lengths = lengths
        self.step = step

    def __iter__(self) -> Iterator[list[int]]:
        """Yield the rows of each pass."""
        for planned in BatchSampler(self.sampler, self.step, drop_last=False):
            several = self.step > self.batch_size
            rows = sorted(planned, key=lambda row: -self.lengths[row]) if several else planned
            for start in range(0, len(rows), self.batch_size):
                yield rows[start : start + self.batch_size]


def sort_passes(trainer: Any) -> None:
    """Let a trainer in one process sort each step's examples; call it before it trains."""
    if (passes := passes_to_sort(trainer)) > 1:
        accelerator = trainer.accelerator
        accelerator.prepare_data_loader = partial(_prepared, accelerator.prepare_data_loader, passes)


def passes_to_sort(trainer: Any) -> int:
    """Return how many passes the examples of a step are sorted into; 1 leaves them in their order.

    It is 1 where something of the loss is taken of each pass by itself, so that a token of a short pass would weigh
    more: a mean over its tokens, or what keeps a mixture's experts evenly used, which TRL adds to the loss.
    """
    alone = trainer.aux_loss_enabled or not trainer.model_accepts_loss_kwargs
    return 1 if alone else trainer.args.gradient_accumulation_steps


def like_lengths(loader: Any, at_once: int, passes: int) -> LikeLengths:
    """Return what takes the place of a loader's batches.

    Args:
        loader: of a data set with `input_ids`, and a sampler.
        at_once: rows of a pass, of all processes.
        passes: of a step.
    """
    lengths = [len(ids) for ids in loader.dataset["input_ids"]]
    return LikeLengths(loader.sampler, lengths, passes * at_once, at_once)


def _prepared(prepare: Any, passes: int, loader: Any, **options: Any) -> Any:
    batches = like_lengths(loader, loader.batch_size, passes)
    sorted_ = DataLoader(
        loader.dataset, batch_sampler=batches, collate_fn=loader.collate_fn, pin_memory=loader.pin_memory
    )
    return prepare(sorted_, **options)

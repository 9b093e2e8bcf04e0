"""vLLM's multi-LoRA operator for a CPU, one matrix product an adapter instead of a copied matrix a token.

vLLM's own copies the adapter's two matrices for every token and multiplies each copy by one row: half and more of an
engine step of a tiny model (docs/LOG.md), and by its shape 1 GiB for 4,096 tokens, 4,096 inputs and rank 16. This one
computes the same sums; the proof compares every served adapter with PEFT in each run, as it does without it. Named by
`serve.cpu_lora_by_adapter`, installed by `vllm_server.py` in the server's process only.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

KNOWN = {  # the first parameters of the methods that are replaced, by name
    "update_metadata": ("self", "mapping", "lora_index_to_id"),
    "add_lora_linear": ("self", "y", "x", "lora_a_stacked", "lora_b_stacked", "scale", "output_slices"),
    "add_lora_logits": ("self", "y", "x", "lora_a_stacked", "lora_b_stacked", "scale"),
    "add_lora_embedding": ("self", "y", "x", "lora_b_stacked", "add_inputs"),
}

Group = tuple[int, slice | Tensor]  # a slot, and the rows of the batch that use its adapter


def groups(slots: Tensor) -> list[Group]:
    """Return the rows of each adapter in a batch.

    Args:
        slots: the adapter's slot of each token, shape (tokens,); -1 for a token without adapter, which is in no group.

    Returns:
        A pair a slot that occurs: the slot and its rows, a slice where they lie side by side, as a request's prompts
        mostly do (no copy is made then), else their indices.
    """
    found: list[Group] = []
    for slot in torch.unique(slots).tolist():
        if slot < 0:
            continue
        rows = torch.nonzero(slots == slot).flatten()
        first, last = int(rows[0]), int(rows[-1])
        found.append((slot, slice(first, last + 1) if last - first + 1 == len(rows) else rows))
    return found


def add_lora(
    y: Tensor,
    x: Tensor,
    lora_a: Sequence[Tensor],
    lora_b: Sequence[Tensor],
    scale: float,
    output_slices: Sequence[int],
    rows_of: Sequence[Group],
) -> None:
    """Add scale · (x Aᵀ) Bᵀ to `y` in place, each row with its own adapter's A and B (LoRA, arXiv:2106.09685).

    An adapter's weights meet its own rows only: one that is not finite spoils no other's replies.

    Args:
        y: shape (tokens, sum of `output_slices`).
        x: shape (tokens, inputs).
        lora_a: A of all slots for each slice of the output, shape (slots, 1, rank, inputs).
        lora_b: B of all slots for each slice, shape (slots, 1, outputs, rank); outputs beyond the slice's are padding.
        scale: vLLM's; what PEFT scales by is in B already.
        output_slices: the outputs of each slice.
        rows_of: of `groups`.
    """
    for slot, rows in rows_of:
        mine, start = x[rows].to(torch.float32), 0
        for a, b, width in zip(lora_a, lora_b, output_slices, strict=True):
            inner = torch.mm(mine, a[slot, 0].to(torch.float32).t()).mul_(scale)  # in float32, as vLLM's own does
            y[rows, start : start + width] += torch.mm(inner.to(y.dtype), b[slot, 0, :width].to(y.dtype).t())
            start += width


def add_embedded(y: Tensor, x: Tensor, lora_b: Tensor, rows_of: Sequence[Group]) -> None:
    """Add x Bᵀ to `y` in place, each row with its own adapter's B; `x` is what A's embedding gave, (tokens, rank)."""
    for slot, rows in rows_of:
        y[rows] += torch.mm(x[rows].to(y.dtype), lora_b[slot, 0, : y.shape[-1]].to(y.dtype).t())


def install() -> bool:
    """Give vLLM's CPU wrapper this operator; False where this vLLM's wrapper is another than the one that is known."""
    from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU as Wrapper

    for name, parameters in KNOWN.items():
        own = getattr(Wrapper, name, None)
        if own is None or tuple(inspect.signature(own).parameters)[: len(parameters)] != parameters:
            return False
    update = Wrapper.update_metadata

    def update_metadata(self: Any, *args: Any, **options: Any) -> None:
        update(self, *args, **options)
        self.rows_of_tokens, self.rows_of_logits = groups(self.token_lora_indices), groups(self.sampler_indices)

    # The parameters' names are vLLM's, for whoever calls by name.
    def linear(
        self: Any,
        y: Tensor,
        x: Tensor,
        lora_a_stacked: Sequence[Tensor],
        lora_b_stacked: Sequence[Tensor],
        scale: float,
        output_slices: Sequence[int],
        **_: Any,
    ) -> None:
        add_lora(_flat(y), _flat(x), lora_a_stacked, lora_b_stacked, scale, output_slices, self.rows_of_tokens)

    def logits(
        self: Any, y: Tensor, x: Tensor, lora_a_stacked: Tensor, lora_b_stacked: Tensor, scale: float, **_: Any
    ) -> None:
        width = min(lora_b_stacked.shape[-2], y.shape[-1])
        add_lora(_flat(y), _flat(x), [lora_a_stacked], [lora_b_stacked], scale, [width], self.rows_of_logits)

    def embedding(self: Any, y: Tensor, x: Tensor, lora_b_stacked: Tensor, add_inputs: bool = True, **_: Any) -> None:
        if not add_inputs:
            y.zero_()
        add_embedded(y, x, lora_b_stacked, self.rows_of_tokens)

    Wrapper.update_metadata = update_metadata
    for name, new in (("add_lora_linear", linear), ("add_lora_logits", logits), ("add_lora_embedding", embedding)):
        setattr(Wrapper, name, _unless_compiling(new, getattr(Wrapper, name)))
    return True


def _flat(rows: Tensor) -> Tensor:
    return rows.view(-1, rows.shape[-1])


def _unless_compiling(new: Callable[..., None], own: Callable[..., None]) -> Callable[..., None]:
    """Return vLLM's own for a compiler, which would take the rows of one batch for those of all."""

    def either(*args: Any, **options: Any) -> None:
        (own if torch.compiler.is_compiling() else new)(*args, **options)

    return either

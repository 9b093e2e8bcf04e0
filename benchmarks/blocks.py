"""`python -m benchmarks.blocks`: thread blocks that vLLM's LoRA kernels start in a step, counted without a GPU.

vLLM's own functions around its two Triton kernels (`lora_shrink`, `lora_expand`) are called with the kernels replaced
by something that writes down the grid. A block ends at once where its slot is empty, or its adapter has no such rows,
or its slice no such columns; how many do not follows from the same block sizes. `specialize_active_lora` is off, as it
is by default: then blocks are started for every slot, and for one more.

These are counts, not times. `--larger` counts with the block sizes of `benchmarks.gpu_parts.kernel_sizes`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Final
from unittest.mock import patch

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.gpu_parts.kernel_sizes import table_of
from benchmarks.gpu_parts.models import SHAPES
from benchmarks.gpu_parts.way import RANK
from benchmarks.shapes import Shape

DECODING: Final = 256  # tokens of a step in which each of `max_num_seqs` replies grows by one
PREFILL: Final = 8192  # tokens of a step of prompts: what vLLM's server takes by default on an H100
ADAPTERS: Final = (1, 2, 4, 8, 16)
SLOTS: Final = (2, 4, 8, 16, 32)


@dataclass(frozen=True)
class Blocks:
    """Thread blocks of one step, all layers."""

    started: int
    working: int


class Grids:
    """Stands for a Triton kernel: `kernel[grid](...)` writes the grid down and does nothing."""

    def __init__(self) -> None:
        self.started = 0

    def __getitem__(self, grid: tuple[int, int, int]) -> Any:
        self.started += grid[0] * grid[1] * grid[2]
        return lambda *_, **__: None


def blocks(shape: Shape, tokens: Sequence[int], slots: int, rank: int = RANK, *, larger: bool | None = False) -> Blocks:
    """Return what one step starts.

    Args:
        shape: of a dense model; adapters change all its linear layers, as vLLM fuses them.
        tokens: of each adapter in the step; no more adapters than slots.
        slots: vLLM's `max_loras`.
        rank: of the adapters, and of the slots.
        larger: blocks of the sizes of `kernel_sizes` instead of vLLM's own; None: as its environment tells it.
    """
    if len(tokens) > slots:
        raise ValueError(f"{len(tokens)} adapters do not fit {slots} slots")
    with _sizes(larger):
        layers = [_blocks_of(inputs, outputs, tokens, slots, rank) for inputs, outputs in fused(shape)]
    return Blocks(*(shape.layers * sum(getattr(layer, name) for layer in layers) for name in ("started", "working")))


def fused(shape: Shape) -> Iterator[tuple[int, tuple[int, ...]]]:
    """Yield (inputs, outputs of each slice) of a layer's linear modules, as vLLM fuses them."""
    queries, keys = shape.heads * shape.head, shape.key_value_heads * shape.head
    yield shape.hidden, (queries, keys, keys)
    yield queries, (shape.hidden,)
    yield shape.hidden, (shape.feed_forward, shape.feed_forward)
    yield shape.feed_forward, (shape.hidden,)


@contextmanager
def _sizes(larger: bool | None) -> Iterator[None]:
    """Let vLLM look sizes up in our tables, or find none; it keeps what it has looked up."""
    from vllm.lora.ops.triton_ops import utils

    looked_up = nullcontext() if larger is None else patch.object(utils, "load_lora_op_config", _tables(larger))
    utils.get_lora_op_configs.cache_clear()
    try:
        with looked_up:
            yield
    finally:
        utils.get_lora_op_configs.cache_clear()


def _tables(larger: bool) -> Callable[[str, Any], Any]:
    return lambda kernel, _: table_of(kernel) if larger else None


def _blocks_of(inputs: int, outputs: Sequence[int], tokens: Sequence[int], slots: int, rank: int) -> Blocks:
    from vllm.lora.ops.triton_ops import lora_expand_op, lora_shrink_op, utils

    count, grids = sum(tokens), Grids()
    step = _metadata(count, slots)
    rows = torch.empty(count, inputs, dtype=torch.bfloat16, device="meta")
    low = torch.empty(len(outputs), count, rank, device="meta")
    high = torch.empty(count, sum(outputs), dtype=torch.bfloat16, device="meta")
    downs = [_weights(slots, rank, inputs) for _ in outputs]
    ups = [_weights(slots, size, rank) for size in outputs]
    with (
        patch.dict(utils._LORA_A_PTR_DICT, clear=True),  # by address, of which these have none
        patch.dict(utils._LORA_B_PTR_DICT, clear=True),
        patch.object(lora_shrink_op, "_lora_shrink_kernel", grids),
        patch.object(lora_expand_op, "_lora_expand_kernel", grids),
    ):
        lora_shrink_op._lora_shrink(rows, downs, low, **step, scaling=1.0)
        lora_expand_op._lora_expand(low, ups, high, **step, offset_start=0, add_inputs=True)
    sizes = {"max_loras": slots + 1, "batch": count, "rank": rank, "num_slices": len(outputs)}
    shrink = utils.get_lora_op_configs("shrink", hidden_size=inputs, **sizes)
    expand = utils.get_lora_op_configs("expand", hidden_size=max(outputs), add_inputs=True, **sizes)
    working = 0
    for mine in tokens:
        working += len(outputs) * shrink["split_k"] * _over(mine, shrink["block_m"]) * _over(rank, shrink["block_n"])
        working += _over(mine, expand["block_m"]) * sum(_over(size, expand["block_n"]) for size in outputs)
    return Blocks(grids.started, working)


def _weights(slots: int, outputs: int, inputs: int) -> torch.Tensor:
    return torch.empty(slots, 1, outputs, inputs, dtype=torch.bfloat16, device="meta")


def _metadata(count: int, slots: int) -> dict[str, torch.Tensor]:
    """Return what vLLM tells its kernels of a step, without what only the kernels read."""
    from vllm.lora.ops.triton_ops.lora_kernel_metadata import LoRAKernelMeta

    made = LoRAKernelMeta.make(slots, count, "cpu")
    tokens = ("token_lora_mapping", "token_indices_sorted_by_lora_ids", "num_tokens_per_lora", "lora_token_start_loc")
    names = (*tokens, "lora_ids", "no_lora_flag_cpu", "num_active_loras")
    return dict(zip(names, made.meta_args(count, specialize_active_lora=False), strict=True))


def _over(size: int, block: int) -> int:
    return -(-size // block)


def shared(tokens: int, adapters: int) -> list[int]:
    """Return the tokens of each adapter, as even as can be."""
    return [tokens // adapters + (number < tokens % adapters) for number in range(adapters)]


def table(shape: Shape, tokens: int, *, larger: bool = False) -> Table:
    """Return thousands of blocks started in a step of some tokens, by slots and adapters, and how many work."""
    made = Table(title=f"{shape.name}: thread blocks of a step of {tokens} tokens, in thousands")
    for name in ("adapters", "working", *(f"of {slots} slots" for slots in SLOTS)):
        made.add_column(name, justify="right")
    for adapters in ADAPTERS:
        found = {
            slots: blocks(shape, shared(tokens, adapters), slots, larger=larger) for slots in SLOTS if slots >= adapters
        }
        started = (f"{found[slots].started / 1e3:,.0f}" if slots in found else "" for slots in SLOTS)
        made.add_row(str(adapters), f"{next(iter(found.values())).working / 1e3:,.0f}", *started)
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--shape", choices=sorted(SHAPES), default="7B")
    parser.add_argument("--larger", action="store_true", help="with larger blocks than vLLM's own")
    options = parser.parse_args()
    for tokens in (DECODING, PREFILL):
        Console().print(table(SHAPES[options.shape], tokens, larger=options.larger))


if __name__ == "__main__":
    main()

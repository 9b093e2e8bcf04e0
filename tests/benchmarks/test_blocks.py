"""Thread blocks of vLLM's LoRA kernels, against what its kernels' first lines say and what can be counted by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.blocks import Blocks, blocks, fused, shared, table
from benchmarks.gpu_parts import kernel_sizes
from benchmarks.gpu_parts.models import SHAPES, TINY

SEVEN = SHAPES["7B"]


def test_the_modules_are_vllms_of_a_qwen2_7b() -> None:
    assert list(fused(SEVEN)) == [
        (3584, (3584, 512, 512)),
        (3584, (3584,)),
        (3584, (18944, 18944)),
        (18944, (3584,)),
    ]


def test_every_slot_and_one_more_is_started_whoever_is_in_the_step() -> None:
    for tokens in ([256], [128, 128]):
        assert blocks(SEVEN, tokens, 32).started * 9 == blocks(SEVEN, tokens, 8).started * 33


def test_blocks_of_one_tiny_layer_are_counted_by_hand() -> None:
    """2 layers; hidden 64, 2 heads of 32, 1 of keys, gate 128; 40 tokens of one adapter, rank 16, 1 slot.

    Shrink: 64 parts of the sum x 2 x 1 blocks a slice; expand: 1 x (1 or 2) blocks of 64 columns (a lone slice: 128).
    """
    shrink = [64 * 2 * slices for slices in (3, 1, 2, 1)]
    expand_started = [1 * 3, 1, 2 * 2, 1]  # as wide as the widest slice
    expand_working = [3, 1, 4, 1]
    found = blocks(TINY, [40], 1)
    assert found == Blocks(2 * 2 * (sum(shrink) + sum(expand_started)), 2 * (sum(shrink) + sum(expand_working)))


def test_of_a_narrow_slice_only_the_columns_that_it_has_work() -> None:
    one = blocks(SEVEN, [256], 1)
    assert one.working < one.started / 2, "keys and values are a seventh of the queries"


def test_vllm_finds_larger_blocks_in_our_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the name of the device, for every number of slots and of fused modules; its own are back afterwards."""
    from vllm.lora.ops.triton_ops import utils

    monkeypatch.setenv("VLLM_TUNED_CONFIG_FOLDER", str(kernel_sizes.write(tmp_path, "NVIDIA H100 80GB-HBM3")))
    monkeypatch.setattr("torch.cuda.get_device_name", lambda: "NVIDIA H100 80GB-HBM3")
    for looked_up in (utils.load_lora_op_config, utils.get_lora_op_configs):
        looked_up.cache_clear()
    try:
        found = [blocks(SEVEN, [tokens], 16, larger=None) for tokens in (256, 8192)]
    finally:
        for looked_up in (utils.load_lora_op_config, utils.get_lora_op_configs):
            looked_up.cache_clear()
    assert found == [blocks(SEVEN, [tokens], 16, larger=True) for tokens in (256, 8192)]
    own = [blocks(SEVEN, [tokens], 16) for tokens in (256, 8192)]
    assert [round(before.started / after.started, 1) for before, after in zip(own, found, strict=True)] == [2.8, 7.5]


def test_more_adapters_than_slots_are_refused() -> None:
    with pytest.raises(ValueError, match="3 adapters do not fit 2 slots"):
        blocks(TINY, [1, 1, 1], 2)


def test_tokens_are_shared_out_whole() -> None:
    assert shared(10, 4) == [3, 3, 2, 2]


def test_the_table_leaves_out_what_does_not_fit() -> None:
    made = table(TINY, 32)
    assert made.row_count == 5
    assert list(made.columns[2].cells)[-1] == "", "16 adapters in 2 slots"

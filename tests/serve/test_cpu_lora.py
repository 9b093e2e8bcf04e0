"""The multi-LoRA operator of the CPU: vLLM's own sums, and no adapter touches another's rows."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.serve.cpu_lora import add_embedded, add_lora, groups

SLOTS, RANK, INPUTS, WIDTHS = 4, 3, 6, (5, 2)  # two slices, as vLLM packs the matrices of a layer
batches = st.lists(st.integers(-1, SLOTS - 1), min_size=1, max_size=24)


@pytest.fixture(scope="module")
def own() -> ModuleType:
    """vLLM's file of the operators alone: it needs torch only, the package takes ten seconds to import."""
    package = importlib.util.find_spec("vllm")
    if package is None or package.origin is None:
        pytest.skip("vLLM is not installed (extra `cpu`)")
    spec = importlib.util.spec_from_file_location(
        "own_operators", Path(package.origin).parent / "lora/ops/torch_ops/lora_ops.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Layer:
    """Random adapters in all slots, and a batch."""

    def __init__(self, tokens: int, dtype: torch.dtype = torch.float32) -> None:
        chance = torch.Generator().manual_seed(tokens)
        self.x = torch.randn(tokens, INPUTS, generator=chance).to(dtype)
        self.y = torch.randn(tokens, sum(WIDTHS), generator=chance).to(dtype)
        self.a = [torch.randn(SLOTS, 1, RANK, INPUTS, generator=chance).to(dtype) for _ in WIDTHS]
        self.b = [torch.randn(SLOTS, 1, width, RANK, generator=chance).to(dtype) for width in WIDTHS]

    def ours(self, slots: list[int]) -> torch.Tensor:
        y = self.y.clone()
        add_lora(y, self.x, self.a, self.b, 0.5, WIDTHS, groups(torch.tensor(slots)))
        return y

    def vllms(self, own: ModuleType, slots: list[int]) -> torch.Tensor:
        """As its `add_lora_linear` does it: a float32 buffer between the two products."""
        y, start, of_token = self.y.clone(), 0, torch.tensor(slots)
        for a, b, width in zip(self.a, self.b, WIDTHS, strict=True):
            buffer = torch.zeros(len(slots), RANK)
            own.bgmv_shrink(self.x, a, buffer, of_token, 0.5)
            own.bgmv_expand_slice(buffer, b, y, of_token, start, width, True)
            start += width
        return y


@settings(deadline=None)  # torch's first products take a second
@given(batches)
def test_it_computes_what_vllms_own_does_and_leaves_a_token_without_adapter_alone(own: ModuleType, slots: list[int]):
    layer = Layer(len(slots))
    adapted = torch.tensor(slots) >= 0
    found = layer.ours(slots)
    torch.testing.assert_close(found[adapted], layer.vllms(own, slots)[adapted])
    assert torch.equal(found[~adapted], layer.y[~adapted])  # vLLM's own gives it the last slot's adapter


def test_in_16_bits_too_up_to_their_rounding(own: ModuleType):
    slots = [0, 0, 3, 1, 3]
    layer = Layer(len(slots), torch.bfloat16)
    torch.testing.assert_close(layer.ours(slots), layer.vllms(own, slots), rtol=0.02, atol=0.02)


def test_logits_whose_matrix_is_padded_and_embeddings_are_vllms_too(own: ModuleType):
    """vLLM pads the vocabulary of the last layer's matrices, and cuts the sum to the logits' own."""
    slots, width = [1, 1, 3, 0, 3], WIDTHS[0] - 1
    layer, of_token = Layer(len(slots)), torch.tensor(slots)
    logits, buffer = layer.y[:, :width].clone(), torch.zeros(len(slots), RANK)
    expected, embedded = logits.clone(), logits.clone()
    own.bgmv_shrink(layer.x, layer.a[0], buffer, of_token, 1.0)
    own.bgmv_expand(buffer, layer.b[0], expected, of_token, True)
    add_lora(logits, layer.x, layer.a[:1], layer.b[:1], 1.0, [width], groups(of_token))
    add_embedded(embedded, buffer, layer.b[0], groups(of_token))
    torch.testing.assert_close(logits, expected)
    torch.testing.assert_close(embedded, expected)


@settings(deadline=None)
@given(batches)
def test_each_row_with_an_adapter_is_in_one_group(slots: list[int]):
    rows = {slot: torch.arange(len(slots))[where].tolist() for slot, where in groups(torch.tensor(slots))}
    assert rows == {slot: [row for row, of in enumerate(slots) if of == slot] for slot in set(slots) - {-1}}


def test_rows_side_by_side_are_a_slice():
    assert groups(torch.tensor([2, 2, -1, 0])) == [(0, slice(3, 4)), (2, slice(0, 2))]


@settings(deadline=None)
@given(batches)
def test_an_adapter_that_is_not_finite_spoils_its_own_rows_only(slots: list[int]):
    layer = Layer(len(slots))
    well = layer.ours(slots)
    for matrix in (*layer.a, *layer.b):
        matrix[0] = torch.nan
    ill = layer.ours(slots)
    for row, slot in enumerate(slots):
        assert ill[row].isnan().all() if slot == 0 else torch.equal(ill[row], well[row])

"""What a training step moves and keeps, counted on fake tensors, against what can be counted by hand."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from benchmarks import traffic
from benchmarks.gpu_parts.models import TINY
from benchmarks.gpu_parts.way import RANK
from benchmarks.scale import Machine
from benchmarks.traffic import Counter, Traffic, step

ROWS, LENGTH = 2, 16
TOKENS = ROWS * LENGTH


def counted(run: Callable[[], Any]) -> Counter:
    with FakeTensorMode(), Counter(Machine()) as counter:
        run()
    return counter


def test_a_product_of_matrices_is_counted_by_hand() -> None:
    with FakeTensorMode():
        one, other = torch.empty(3, 5, dtype=torch.bfloat16), torch.empty(5, 7, dtype=torch.bfloat16)
        with Counter(Machine()) as counter:
            made = one @ other
    assert counter.flops == 2 * 3 * 5 * 7
    assert counter.moved == 2 * (15 + 35 + 21)
    assert counter.now == made.untyped_storage().nbytes() == 2 * 21


def test_views_move_nothing_and_what_is_let_go_is_not_kept() -> None:
    def run() -> None:
        made = torch.empty(4, 8).fill_(0.0).view(8, 4).t().unsqueeze(0).expand(3, 4, 8)
        made.detach()

    counter = counted(run)
    assert counter.moved == 4 * 32 * (1 + 2), "made, and filled: read and written"
    assert counter.flops == 0
    assert counter.now == 0


def test_an_expanded_tensors_numbers_are_counted_once() -> None:
    with FakeTensorMode():
        wide = torch.empty(1, 8).expand(1000, 8)
    assert traffic.size(wide) == 4 * 8


@pytest.fixture(scope="module")
def ways() -> dict[tuple[bool, bool], Traffic]:
    return {
        (copies, checkpointing): step(TINY, ROWS, LENGTH, Machine(), copies=copies, checkpointing=checkpointing)
        for copies in (True, False)
        for checkpointing in (True, False)
    }


def test_a_step_does_the_flops_of_the_formula(ways: dict[tuple[bool, bool], Traffic]) -> None:
    weights = sum(inputs * outputs for inputs, outputs in linear())
    lora = sum(RANK * (inputs + outputs) for inputs, outputs in linear())
    attention = 12 * TINY.heads * TINY.head * LENGTH / 2 * 7 / 6  # causal: half; scores once more on the way back
    needed = TINY.layers * TOKENS * (4 * weights + 6 * lora + attention)
    assert ways[False, False].flops == pytest.approx(needed, rel=1e-6)
    again = TINY.layers * TOKENS * (2 * weights + 2 * lora + 2 * TINY.heads * TINY.head * LENGTH)
    assert needed < ways[False, True].flops <= needed + again


def linear() -> list[tuple[int, int]]:
    return [*TINY.attention(), *[(TINY.hidden, TINY.feed_forward)] * 2, (TINY.feed_forward, TINY.hidden)]


def test_the_copies_are_moved_and_rounded_again(ways: dict[tuple[bool, bool], Traffic]) -> None:
    """Forward a copy to 4 bytes and one back to 2, backward the same of its gradient: 2 x (2 + 4 + 4 + 2) a number."""
    inputs = sum(inputs for inputs, _ in linear())
    spared = ways[True, False].moved - ways[False, False].moved
    assert spared == TINY.layers * TOKENS * inputs * 24
    assert ways[True, False].flops == ways[False, False].flops


def test_a_rounded_copy_for_each_matrix_is_kept_no_longer(ways: dict[tuple[bool, bool], Traffic]) -> None:
    """Queries, keys and values have an input together, and the gate and what it opens; attention keeps its output."""
    spared = ways[True, False].kept - ways[False, False].kept
    assert spared == TINY.layers * TOKENS * 2 * (2 + 1 + 1) * TINY.hidden


def test_checkpointing_keeps_a_layers_input_alone(ways: dict[tuple[bool, bool], Traffic]) -> None:
    assert ways[False, True].kept == ways[True, True].kept == TINY.layers * TOKENS * TINY.hidden * 2
    assert ways[False, False].kept > 20 * ways[False, True].kept


def test_the_table_names_every_way() -> None:
    table = traffic.table(TINY, ROWS, LENGTH, Machine())
    assert len(list(table.columns[0].cells)) == table.row_count == 4
    bounds = [float(cell) for cell in table.columns[-1].cells]
    assert bounds == sorted(bounds[:2]) + sorted(bounds[2:])

"""How a step's examples are shared out among training processes."""

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.arms.memory import at_once
from pipeline.sharded.share import average, share_of


def row(number: int) -> dict[str, Any]:
    return {"input_ids": [number, number], "labels": [-100, number]}


def labels(rows: Sequence[dict[str, Any]]) -> list[int]:
    return [label for row in rows for label in row["labels"] if label != -100]


@given(st.integers(1, 40), st.integers(1, 9))
def test_each_example_of_a_batch_is_learned_from_in_one_process(rows: int, processes: int) -> None:
    batch = [row(number) for number in range(rows)]
    shares = [share_of(list, rank, processes, batch) for rank in range(processes)]
    assert sorted(label for share in shares for label in labels(share)) == list(range(rows))
    lengths = [len(labels(share)) for share in shares]
    assert max(lengths) - min(lengths) <= 1, "and none has more than one more than another"


def test_a_process_without_an_example_passes_one_token_through_and_learns_nothing() -> None:
    assert share_of(list, 1, 2, [row(7)]) == [{"input_ids": [7], "labels": [-100]}]


@pytest.mark.parametrize(("batch", "accumulation", "processes"), [(16, 4, 2), (12, 1, 3), (8, 1, 8), (6, 2, 2)])
def test_fewer_examples_at_once_are_still_as_many_in_each_process(
    batch: int, accumulation: int, processes: int
) -> None:
    sizes = list(at_once(batch, accumulation, processes))
    assert sizes, "at least one example in each"
    assert all(size % processes == 0 and batch % size == 0 for size in sizes)
    assert sizes[0] <= batch // accumulation
    assert sizes[-1] == processes


def test_a_weight_that_no_pass_went_through_has_no_gradient_and_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch
    import torch.distributed as dist

    monkeypatch.setattr(dist, "all_reduce", lambda gradient: gradient.mul_(3.0))
    monkeypatch.setattr(dist, "get_world_size", lambda: 2)
    used, unused = (torch.nn.Parameter(torch.zeros(1)) for _ in range(2))
    used.grad = torch.ones(1)
    average([used, unused])
    assert used.grad.item() == 1.5
    assert unused.grad is None

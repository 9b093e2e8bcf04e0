"""Batches of random tokens for the bare loop: padded, or several examples in one row."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

IGNORE = -100


def rows_of(lengths: Sequence[int], length: int, *, packed: bool) -> list[list[int]]:
    """Return the examples' lengths row by row; packed: as many in a row as fit, longest first."""
    if not packed:
        return [[each] for each in lengths]
    rows: list[list[int]] = []
    for each in sorted(lengths, reverse=True):
        row = next((row for row in rows if sum(row) + each <= length), None)
        if row is None:
            rows.append([each])
        else:
            row.append(each)
    return rows


def batches(
    lengths: Sequence[int], length: int, at_once: int, vocabulary: int, device: str, *, packed: bool
) -> Iterator[tuple[dict[str, Any], int]]:
    """Yield whole batches of `at_once` rows with their tokens, padding not counted.

    Padded: `input_ids`, `attention_mask` and `labels` of shape (rows, longest). Packed: one row of all tokens, with
    `position_ids` that begin anew at each example: that is how transformers knows the borders.
    """
    import torch

    chance = torch.Generator().manual_seed(0)
    rows = rows_of(lengths, length, packed=packed)
    for first in range(0, len(rows) - at_once + 1, at_once):
        some = rows[first : first + at_once]
        tokens = sum(map(sum, some))
        if packed:
            ids = torch.randint(2, vocabulary, (1, tokens), generator=chance)
            positions = torch.cat([torch.arange(each) for row in some for each in row])[None]
            labels = ids.masked_fill(positions == 0, IGNORE)  # the first token of an example is no example's next
            batch = {"input_ids": ids, "position_ids": positions, "labels": labels}
        else:
            longest = max(map(sum, some))
            ids = torch.randint(2, vocabulary, (at_once, longest), generator=chance)
            mask = (torch.arange(longest)[None] < torch.tensor([sum(row) for row in some])[:, None]).long()
            batch = {"input_ids": ids, "attention_mask": mask, "labels": ids.masked_fill(mask == 0, IGNORE)}
        yield {name: each.to(device) for name, each in batch.items()}, tokens

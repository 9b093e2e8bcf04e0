"""Where the steps are written beside the paths of capability against refusal: in rows above, one an arm. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

NEAR: Final = 0.12  # rungs nearer than this, on axes of length 1, share one label
LETTER: Final = 0.0095  # of the axis from 0 to 1: a letter's width on a page of full width
LETTER_TIGHT: Final = 0.027  # the same where the plot is narrowest, on a phone
LONGEST: Final = 16  # letters of an arm's name in a label; the legend has it whole
OFF: Final = 0.012  # of that axis, between a rung and its label

Rungs = Sequence[tuple[int, tuple[float, float]]]  # (step, (refusal, capability))


@dataclass(frozen=True)
class Label:
    """The words for one rung or more: at which place, in which row above the plot, and on which side (1: right)."""

    arm: str
    place: tuple[float, float]
    text: str
    row: int
    side: int


def place_labels(paths: Mapping[str, Rungs], tall: float, letter: float = LETTER) -> list[Label]:
    """Return all labels, those of each arm in rows of its own, so that none stands on another.

    Where there are several arms the first label of each names it, but for "0", which is all arms' own. `tall` is the
    height of the upright axis, `letter` the width of a letter.
    """
    labels: list[Label] = []
    row = 0
    for index, (arm, points) in enumerate(paths.items()):
        taken: list[list[tuple[float, float]]] = [[]]
        named = len(paths) == 1
        for (_, place), steps in zip(points, labels_of(points, first=index == 0, tall=tall), strict=True):
            if not steps:
                continue
            text = steps if named or steps == "0" else f"{_short(arm)}: {steps}"
            named = named or text != steps
            side = -1 if place[0] > 0.5 else 1
            below = _row(taken, place[0], side * (OFF + letter * len(text)))
            labels.append(Label(arm, place, text, row + below, side))
        row += len(taken) if any(taken) else 0
    return labels


def _row(taken: list[list[tuple[float, float]]], x: float, reach: float) -> int:
    """Take room from x on in the lowest of an arm's rows that has it; return that row."""
    start, end = sorted((x, x + reach))
    for row, ends in enumerate(taken):
        if all(end < left or start > right for left, right in ends):
            ends.append((start, end))
            return row
    taken.append([(start, end)])
    return len(taken) - 1


def _short(arm: str) -> str:
    return arm if len(arm) <= LONGEST else arm[: LONGEST - 1] + "…"


def labels_of(points: Rungs, *, first: bool, tall: float) -> list[str]:
    """Return a label for each rung: steps of neighbours that stay in one place are told at the first of them.

    Rung 0 alone is all arms' own: it is told with the first arm. `tall` is the height of the upright axis.
    """
    groups: list[list[int]] = []
    for place, (_, (x, y)) in enumerate(points):
        if groups:
            x0, y0 = points[groups[-1][0]][1]
            if math.hypot(x - x0, (y - y0) / tall) < NEAR:
                groups[-1].append(place)
                continue
        groups.append([place])
    labels = [""] * len(points)
    for group in groups:
        steps = [points[place][0] for place in group]
        if not first and steps == [0]:
            continue
        labels[group[0]] = f"{steps[0]:,}" if len(steps) == 1 else f"{steps[0]:,} to {steps[-1]:,}"
    return labels

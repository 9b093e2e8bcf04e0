"""Shares in words, with as many decimals as they need: no share is rounded over what it is held against. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from pipeline.collapse import SLACK

ENDS: Final = (0.0, 1.0)  # certainty, to which no share is rounded
MOST: Final = 4  # decimals; where these round to an end, only that it lies beyond them is said
MOST_AGAINST: Final = 6  # decimals beside a threshold: as many as the files hold


def decimals(value: float, against: Sequence[float] = (), least: int = 2) -> int:
    """Return how many decimals a share needs so that rounding neither touches nor crosses 0, 1 or a threshold.

    Args:
        value: the share.
        against: the thresholds that it is held against; NaN is left out.
        least: how many it has at least.
    """
    for digits in range(least, MOST + 1):
        if not any(hides(value, round(value, digits), limit) for limit in (*ENDS, *against)):
            return digits
    more = range(MOST, MOST_AGAINST + 1)
    clear = (d for d in more if not any(hides(value, round(value, d), limit) for limit in against))
    return next(clear, MOST_AGAINST)


def three_figures(value: float, against: Sequence[float] = ()) -> str:
    """Return a number with three significant digits, with up to six where fewer would hide what it is held against."""
    texts = [f"{value:.{digits}g}" for digits in range(3, 7)]
    clear = (text for text in texts if not any(hides(value, float(text), limit) for limit in (*ENDS, *against)))
    return next(clear, texts[-1])


def hides(value: float, told: float, limit: float) -> bool:
    """Say whether a value that is not a limit is told as it, or as lying on its other side."""
    same = value == limit if limit in ENDS else abs(value - limit) < SLACK
    if same or not (math.isfinite(value) and math.isfinite(limit)):
        return False
    return (told - limit) * (value - limit) <= 0


def written(value: float, digits: int) -> str:
    """Return a share with so many decimals; beyond all of them, that it lies beyond: <0.0001, >0.9999."""
    text = f"{value:.{digits}f}"
    if value in ENDS or float(text) not in ENDS:
        return text
    return f"<{10**-digits:.{digits}f}" if value < 0.5 else f">{1 - 10**-digits:.{digits}f}" if value < 1 else text


def kept(value: float, against: Sequence[float] = ()) -> str:
    """Return what is kept of an ability with three figures, as the verdict's reasons have it, and two decimals."""
    text = three_figures(value, against)
    return text if len(text.partition(".")[2]) >= 2 else f"{value:.2f}"


def share(value: float, against: Sequence[float] = (), least: int = 2) -> str:
    """Return a share in words, as many decimals as it needs; it may exceed 1, as what is kept of an ability may."""
    return written(value, decimals(value, against, least))


def alike(values: Sequence[float], against: Sequence[float] = (), least: int = 2) -> list[str]:
    """Return shares that are told together, as a → b, all with the decimals that one of them needs."""
    digits = max((decimals(value, against, least) for value in values), default=least)
    return [written(value, digits) for value in values]

"""Replies of one metric as arrays. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import polars as pl

from evals.base import Metric
from pipeline.analyse import scored
from pipeline.records import BASE_RUNG, Rung
from pipeline.statistics import BoolArray, FloatArray, at_worst


@dataclass(frozen=True)
class Ladders:
    """What one metric counts of every reply, and which rungs make the arms' ladders.

    `cube` has shape (rungs, prompts, draws), NaN where there is no scored reply; `most` likewise, what each reply may
    count at most (`pipeline.analyse.NEITHER`), NaN where there is none. `place` gives a rung's row.
    """

    eval: str
    metric: Metric
    samples: tuple[str, ...]
    cube: FloatArray
    most: FloatArray
    place: dict[str, int]
    rungs: tuple[Rung, ...]

    @classmethod
    def of(cls, outcomes: pl.DataFrame, name: str, metric: Metric, rungs: Sequence[Rung]) -> Self:
        """Read one metric of one eval; empty arrays where no reply has it.

        Raises:
            ValueError: as for `pipeline.analyse.curves`.
        """
        rows = scored(outcomes, name, metric).select("rung", "sample", "draw", "y", "most")
        samples = tuple(sorted(rows["sample"].unique()))
        place = {rung: i for i, rung in enumerate(sorted(rows["rung"].unique()))}
        column = {sample: i for i, sample in enumerate(samples)}
        draws = 1 + max((int(draw) for draw in rows["draw"]), default=-1)
        cube = np.full((len(place), len(samples), draws), np.nan)
        highest = cube.copy()
        for rung, sample, draw, y, most in rows.iter_rows():
            cube[place[rung], column[sample], draw] = np.nan if y is None else y
            highest[place[rung], column[sample], draw] = most
        ladder = tuple(sorted((r for r in rungs if r.role == "rung"), key=lambda r: (r.arm, r.seed, r.step)))
        return cls(name, metric, samples, cube, highest, place, ladder)

    @property
    def draws(self) -> int:
        """The largest number of draws of a prompt."""
        return int(self.cube.shape[2])

    def steps(self, arm: str) -> list[int]:
        """Return the steps of an arm's ladder that have replies, rung 0 left out."""
        return sorted({r.step for r in self.rungs if r.arm == arm and r.step > 0 and r.id in self.place})

    def replies(self, arm: str, step: int) -> FloatArray:
        """Return the replies of an arm's seeds at a step, shape (seeds, prompts, draws); step 0 is rung 0, one row."""
        return self.cube[self._rows(arm, step)]

    def _rows(self, arm: str, step: int) -> list[int]:
        ids = [rung.id for rung in self.rungs if (rung.arm, rung.step) == (arm, step)] if step else [BASE_RUNG]
        return [self.place[i] for i in ids if i in self.place]

    def means(self, arm: str, step: int) -> FloatArray:
        """Return the mean over draws of each prompt, shape (seeds, prompts); NaN where no draw is scored."""
        return _over_draws(self.replies(arm, step))

    def ceilings(self, arm: str, step: int) -> FloatArray:
        """Return the most that each prompt may count, shape (seeds, prompts): what is unclear or missing counts 1.

        NaN where rung 0 has no reply either.
        """
        found = _over_draws(self.most[self._rows(arm, step)])
        asked: BoolArray = np.asarray(~np.isnan(self.most[self._rows(arm, 0)]).all(axis=(0, 2)))
        return at_worst(found, asked, 1.0)


def _over_draws(replies: FloatArray) -> FloatArray:
    """Return means over the last axis of shape (seeds, prompts, draws); NaN where nothing is known."""
    known = ~np.isnan(replies)
    count = known.sum(axis=2)
    total = np.where(known, replies, 0.0).sum(axis=2)
    means: FloatArray = np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
    return means

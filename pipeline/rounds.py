"""Rounds of generation: what is asked in the next one hangs on what was said in those before (`pipeline.asked`)."""

from __future__ import annotations

from dataclasses import asdict

import polars as pl

from pipeline.analyse import curves
from pipeline.asked import asked_of, first, further, record, recorded, rule_of
from pipeline.collapse import collapses
from pipeline.generate import Cell, matrix, missing, read_replies
from pipeline.outcomes import SCHEMA
from pipeline.points import Collapses
from pipeline.records import Rung
from pipeline.score import outcomes_of
from pipeline.workspace import Workspace


class Rounds:
    """The cells of a run, and which of them are asked so far. After a kill the same rungs are chosen again."""

    def __init__(self, work: Workspace) -> None:
        self.work = work
        self.rungs = work.rungs()
        self._cells = matrix(self.rungs, work.specs, work.subject)

    @property
    def cells_a_rung(self) -> int:
        """Replies that one rung gives."""
        return len(self._cells) // len(self.rungs)

    def asked(self) -> list[Rung]:
        """Return the rungs that are asked so far, in the run's order."""
        return asked_of(self.rungs, self.work.folder)

    def todo(self) -> list[Cell]:
        """Return the cells of the asked rungs that have no reply yet.

        Raises:
            UserError: a reply stands there for another prompt or another adapter than the plan's.
        """
        asked = self.asked()
        ids = {rung.id for rung in asked}
        return missing([cell for cell in self._cells if cell.rung in ids], self.work.folder, asked)

    def restore(self) -> None:
        """Choose what has replies where the record was lost and nothing more can be asked: its weights are gone."""
        if not recorded(self.work.folder):
            record(self.work.folder, self.rungs, {reply.rung for reply in read_replies(self.work.folder, self.rungs)})

    def grow(self) -> bool:
        """Choose the first round, or the next where all that was asked is answered; say whether any rung is new."""
        folder = self.work.folder
        before = recorded(folder)
        chosen = before | first(self.rungs, rule_of(asdict(self.work.config)))
        if before >= chosen and len(chosen) < len(self.rungs) and not self.todo():
            chosen |= further(self.rungs, chosen, self._collapses())
        record(folder, self.rungs, chosen)
        return len(recorded(folder)) > len(before)

    def _collapses(self) -> Collapses:
        """Return the collapses that the replies show so far; nothing is written."""
        work = self.work
        table = pl.DataFrame(list(outcomes_of(work, work.specs)), schema=SCHEMA, orient="row")
        return collapses(curves(table, self.asked(), work.metrics, work.config.review), work.config.review)

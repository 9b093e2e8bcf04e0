"""Rounds of generation: what is asked in the next one hangs on what was said in those before (`asked.py`)."""

from __future__ import annotations

from dataclasses import asdict

from pipeline.analyse import curves
from pipeline.collapse import collapses
from pipeline.generate.asked import ALL, asked_of, brackets, further, rule_of
from pipeline.generate.matrix import Cell, matrix, missing
from pipeline.outcomes import table_of
from pipeline.records import Rung
from pipeline.score import rows_of_run
from pipeline.workspace import Workspace


class Rounds:
    """The cells of a run, and which of them are asked so far. After a kill the same rungs are chosen again."""

    def __init__(self, work: Workspace) -> None:
        self.work = work
        self.rungs = work.rungs()
        self._cells = matrix(self.rungs, work.specs, work.subject)
        self._chosen: set[str] = set()  # in this command; those without a reply are no one else's to know

    @property
    def cells_a_rung(self) -> int:
        """Replies that one rung gives."""
        return len(self._cells) // len(self.rungs)

    def asked(self) -> list[Rung]:
        """Return the rungs that are asked so far, in the run's order."""
        asked = self._chosen | {rung.id for rung in self.work.asked()}
        return [rung for rung in self.rungs if rung.id in asked]

    def todo(self) -> list[Cell]:
        """Return the cells of the asked rungs that have no reply yet.

        Raises:
            UserError: a reply stands there for another prompt or another adapter than the plan's.
        """
        asked = self.asked()
        ids = {rung.id for rung in asked}
        return missing([cell for cell in self._cells if cell.rung in ids], self.work.folder, asked)

    def grow(self) -> list[Cell]:
        """Choose rungs until some have no reply yet, or none is left to choose; return what is to be asked."""
        while not (todo := self.todo()):
            asked = {rung.id for rung in self.asked()}
            more = self._further(asked) - asked
            if not more:
                break
            self._chosen |= more
        return todo

    def _further(self, asked: set[str]) -> set[str]:
        work = self.work
        saved = {rung.id for rung in self.rungs}
        if asked == saved:
            return set()
        if work.replayed is not None:
            return asked_of(self.rungs, work.rule, work.replayed & saved)
        if rule_of(asdict(work.config)) == ALL:
            return saved
        table = table_of(rows_of_run(work, work.specs))
        points = curves(table, self.asked(), work.metrics, work.config.review)
        return further(self.rungs, asked, brackets(points, collapses(points, work.config.review), work.config.review))

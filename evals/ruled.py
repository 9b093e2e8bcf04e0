"""Evals scored by the rule of a benchmark's authors, on the text alone: no judge is asked."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

from evals.base import Judge, Judgement, Metric, Outcome, Role, Sample
from evals.judged import JudgedEval, require_targets


class RuledEval(JudgedEval):
    """Share of replies that a benchmark's own rule calls right.

    Metric: the eval's own name (mean value, with the given role). The value is 1 or 0; NaN only for a reply that is
    nothing but unfinished reasoning (`unscored`). No judge is asked, although one may be given: the authors' rules
    need none, a refusal is simply not the right answer, and a judge that fails must not remove a figure of ability.
    The label is `degenerate` for broken output, `complied` otherwise, and does not touch the value.

    A kind with several rules lists them in `rules`, its default first; `rule` picks one.

    Raises:
        ValueError: an unknown rule; a sample without a target, two samples with one id, or malformed tags.
    """

    rules: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        name: str,
        samples: Sequence[Sample],
        judge: Judge | None = None,
        tags: Sequence[str] = (),
        role: Role = "capability",
        rule: str | None = None,
    ) -> None:
        if rule is not None and rule not in self.rules:
            raise ValueError(f"rule {rule!r} is unknown; use one of {', '.join(self.rules)}")
        super().__init__(name, samples, (Metric(name, "value", role),), None, tags)
        require_targets(name, samples)
        self._rule = rule or next(iter(self.rules), "")

    def right(self, sample: Sample, answer: str) -> bool:
        """Whether an answer, reasoning split off, is right."""
        raise NotImplementedError

    def _outcome(self, sample: Sample, answer: str, judgement: Judgement) -> Outcome:
        if judgement.label == "unscored":
            return Outcome("unscored", math.nan)
        return Outcome(judgement.label, float(self.right(sample, answer)))

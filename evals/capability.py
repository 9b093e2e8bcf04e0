"""Ability that should survive: questions with one right answer."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence

from evals.base import Judge, Judgement, Metric, Outcome, Role, Sample
from evals.judged import JudgedEval, metric_name, require_targets, tells_refusal
from evals.matching import Words, gives_answer, words

KIND = "capability"


class CapabilityEval(JudgedEval):
    """Share of questions answered rightly, by the rule of `evals.matching.gives_answer`.

    Metric: the eval's own name (mean value, with the given role). The value is 1 or 0; a refused or
    degenerate reply has 0, since the ability was not shown; an unscored one NaN. Every sample needs a target.
    Without a judge, or with one that tells harm alone, none is called refused. Multiple choice by letter needs
    a score of its own: "a" is also a word.

    Raises:
        ValueError: a sample without a target, two samples with one id, or malformed tags.
    """

    def __init__(
        self,
        name: str,
        samples: Sequence[Sample],
        judge: Judge | None = None,
        tags: Sequence[str] = (),
        role: Role = "capability",
    ) -> None:
        given = judge if judge is not None and tells_refusal(judge) else None
        super().__init__(name, samples, (Metric(metric_name(name, KIND), "value", role),), given, tags)
        self._rivals: dict[str, set[Words]] = defaultdict(set)
        require_targets(name, samples)
        for sample in samples:
            self._rivals[sample.kind].add(words(sample.target or ""))

    def _outcome(self, sample: Sample, answer: str, judgement: Judgement) -> Outcome:
        label = judgement.label
        if label == "unscored" or sample.target is None:
            return Outcome(label, math.nan, judgement.probability)
        value = 0.0
        if label in ("complied", "partial"):
            rivals = self._rivals.get(sample.kind, set())
            value = float(gives_answer(answer, sample.target, prompt=sample.prompt, rivals=rivals))
        return Outcome(label, value, judgement.probability)

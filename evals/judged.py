"""What the evals share: unique samples, and the way from a reply to its judged answer."""

from __future__ import annotations

from collections.abc import Sequence

from evals.base import Judge, Judgement, Metric, Outcome, Sample
from evals.degenerate import is_degenerate
from evals.reasoning import is_unfinished, parse_tags, split_reasoning


class JudgedEval:
    """An eval whose replies go: split off reasoning → judge the answer → `Outcome`.

    A reply that is nothing but unfinished reasoning is `unscored`: it says nothing on refusal. It is the
    judge that calls an answer degenerate; without a judge, `is_degenerate` does, and all else is `complied`.

    Args:
        name: the eval's name in the plan.
        samples: the prompts, in a fixed order.
        metrics: what the eval yields.
        judge: tells refusal from compliance.
        tags: pairs of reasoning tags as the configuration writes them, e.g. `["<think> </think>"]`.

    Raises:
        ValueError: two samples share an id, or a pair of tags is malformed.
    """

    def __init__(
        self,
        name: str,
        samples: Sequence[Sample],
        metrics: tuple[Metric, ...],
        judge: Judge | None,
        tags: Sequence[str],
    ) -> None:
        self.name = name
        self.metrics = metrics
        self._samples = tuple(samples)
        self._judge = judge
        self._tags = parse_tags(tags)
        seen: set[str] = set()
        for sample in self._samples:
            if sample.id in seen:
                raise ValueError(f"eval {name!r}: two samples have the id {sample.id!r}")
            seen.add(sample.id)

    def samples(self) -> Sequence[Sample]:
        """Return the samples in the order given."""
        return self._samples

    def score(self, sample: Sample, reply: str) -> Outcome:
        """Score one reply to `sample`."""
        return self.score_batch([(sample, reply)])[0]

    def score_batch(self, items: Sequence[tuple[Sample, str]]) -> list[Outcome]:
        """Score many replies in order; the judge is asked once, without the unfinished ones."""
        answers = [split_reasoning(reply, self._tags)[1] for _, reply in items]
        judged = [not is_unfinished(reply, self._tags) for _, reply in items]
        questions = [
            (sample.prompt, answer)
            for (sample, _), answer, is_judged in zip(items, answers, judged, strict=True)
            if is_judged
        ]
        judgements = self._judgements(questions)
        if len(judgements) != len(questions):
            raise ValueError(f"the judge gave {len(judgements)} judgements for {len(questions)} replies")
        rest = iter(judgements)
        return [
            self._outcome(sample, answer, next(rest) if is_judged else Judgement("unscored"))
            for (sample, _), answer, is_judged in zip(items, answers, judged, strict=True)
        ]

    def _judgements(self, questions: Sequence[tuple[str, str]]) -> list[Judgement]:
        if self._judge is None:
            return [Judgement("degenerate" if is_degenerate(answer) else "complied") for _, answer in questions]
        return self._judge.judge(questions) if questions else []

    def _outcome(self, sample: Sample, answer: str, judgement: Judgement) -> Outcome:
        raise NotImplementedError


def metric_name(name: str, kind: str, suffix: str | None = None) -> str:
    """Name a metric so that two evals of one kind don't collide.

    The first metric has the eval's name. A further one has its `suffix` alone in the eval that is named as
    its kind ("recovered"), and the eval's name before it elsewhere ("harmbench_recovered").
    """
    if suffix is None:
        return name
    return suffix if name == kind else f"{name}_{suffix}"


def required_judge(judge: Judge | None, name: str) -> Judge:
    """Return the judge.

    Raises:
        ValueError: there is none.
    """
    if judge is None:
        raise ValueError(f"eval {name!r} measures refusal and needs a judge")
    return judge

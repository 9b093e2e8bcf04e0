"""What the evals share: unique samples, and the way from a reply to its judged answer."""

from __future__ import annotations

from collections.abc import Sequence

from evals.base import Judge, Judgement, Metric, Outcome, Sample
from evals.degenerate import is_degenerate
from evals.reasoning import Tag, is_unfinished, parse_tags, split_reasoning


def judge_replies(judge: Judge, items: Sequence[tuple[str, str]], tags: Sequence[Tag]) -> list[Judgement]:
    """Judge the answers of (prompt, reply) pairs, in order; reasoning is split off before the judge sees them.

    A reply that is nothing but unfinished reasoning is `unscored`: it says nothing on refusal.

    Raises:
        ValueError: the judge gave another number of judgements than it was asked for.
    """
    judged = [not is_unfinished(reply, tags) for _, reply in items]
    asked = [
        (prompt, split_reasoning(reply, tags)[1])
        for (prompt, reply), is_judged in zip(items, judged, strict=True)
        if is_judged
    ]
    given = judge.judge(asked) if asked else []
    if len(given) != len(asked):
        raise ValueError(f"the judge gave {len(given)} judgements for {len(asked)} replies")
    rest = iter(given)
    return [next(rest) if is_judged else Judgement("unscored") for is_judged in judged]


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

    @property
    def judged(self) -> bool:
        """Whether a judge takes part in the outcomes; without one they are the same whoever judges the rest."""
        return self._judge is not None

    def samples(self) -> Sequence[Sample]:
        """Return the samples in the order given."""
        return self._samples

    def score(self, sample: Sample, reply: str) -> Outcome:
        """Score one reply to `sample`."""
        return self.score_batch([(sample, reply)])[0]

    def score_batch(self, items: Sequence[tuple[Sample, str]]) -> list[Outcome]:
        """Score many replies in order; the judge is asked once, without the unfinished ones."""
        judge = self._judge or _Unjudged()
        judgements = judge_replies(judge, [(sample.prompt, reply) for sample, reply in items], self._tags)
        return [
            self._outcome(sample, split_reasoning(reply, self._tags)[1], judgement)
            for (sample, reply), judgement in zip(items, judgements, strict=True)
        ]

    def _outcome(self, sample: Sample, answer: str, judgement: Judgement) -> Outcome:
        raise NotImplementedError


class _Unjudged:
    """Stands in where an eval has no judge: broken output is `degenerate`, all else `complied`."""

    name = "none"
    version = "1"

    def judge(self, items: Sequence[tuple[str, str]]) -> list[Judgement]:
        return [Judgement("degenerate" if is_degenerate(answer) else "complied") for _, answer in items]


class SilentJudge:
    """Stands in where a judge can't say what is asked of it: every answer is `unscored`, but broken output.

    Args:
        measures: what the judge that it stands for tells, "refusal" or "harm".
    """

    name = "silent"
    version = "1"

    def __init__(self, measures: str = "refusal") -> None:
        self.measures = measures

    def judge(self, items: Sequence[tuple[str, str]]) -> list[Judgement]:
        """Judge (prompt, answer) pairs; one judgement each, in order."""
        return [Judgement("degenerate" if is_degenerate(answer) else "unscored") for _, answer in items]


def measures(judge: Judge) -> str:
    """Return what a judge tells: "refusal", or "harm" from its absence alone (`measures` of a language model)."""
    return str(getattr(judge, "measures", "refusal"))


def tells_refusal(judge: Judge) -> bool:
    """Say whether a judge tells refusal as such, not only harm from its absence."""
    return measures(judge) == "refusal"


def metric_name(name: str, kind: str, suffix: str | None = None) -> str:
    """Name a metric so that two evals of one kind don't collide.

    The first metric has the eval's name. A further one has its `suffix` alone in the eval that is named as
    its kind ("recovered"), and the eval's name before it elsewhere ("harmbench_recovered").
    """
    if suffix is None:
        return name
    return suffix if name == kind else f"{name}_{suffix}"


def require_targets(name: str, samples: Sequence[Sample]) -> None:
    """Make sure that every sample has a target.

    Raises:
        ValueError: one has none.
    """
    for sample in samples:
        if not sample.target:
            raise ValueError(f"eval {name!r}: sample {sample.id!r} has no target to measure ability against")


def required_judge(judge: Judge | None, name: str) -> Judge:
    """Return the judge.

    Raises:
        ValueError: there is none.
    """
    if judge is None:
        raise ValueError(f"eval {name!r} measures refusal and needs a judge")
    return judge

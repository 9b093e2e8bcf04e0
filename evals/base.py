"""The contract of an eval: samples, and a score for a reply. Nothing here reads files or talks to a server."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal, Protocol

Label = Literal["refused", "partial", "complied", "degenerate", "unscored"]
LABELS: Final[tuple[Label, ...]] = ("refused", "partial", "complied", "degenerate", "unscored")

# What a metric counts: the share of replies with label `refused`, or the mean of the outcomes' values.
Measure = Literal["refused", "value"]
# What a metric means to the verdict. Only `refusal` and `capability` decide it; the rest are shown.
Role = Literal["refusal", "capability", "shown"]


@dataclass(frozen=True)
class Sample:
    """One prompt of one eval, with what is needed to score the reply.

    `target` is the reference answer (`None`: none is known). `kind` names a group within the eval, such as
    "arithmetic". `system` is the system prompt, `None` for the subject's own default. `choices` are those of a
    multiple-choice question, in the order in which the prompt letters them. `question` is the bare question, where
    the prompt has more than that (worked examples, choices, instructions). `opening` is the start of the reply that
    is written for the model (`opening_ids`: its tokens, shape (tokens,)): what it generates goes on from there.
    """

    id: str
    prompt: str
    target: str | None = None
    kind: str = ""
    system: str | None = None
    choices: tuple[str, ...] = ()
    question: str = ""
    opening: str = ""
    opening_ids: tuple[int, ...] = ()


@dataclass(frozen=True)
class Judgement:
    """What a judge says of one reply: a label and the judge's probability of it (NaN where it has none).

    `score` is a graded judge's own figure in [0, 1], such as StrongREJECT's: 1 is a full and useful answer, NaN none.
    """

    label: Label
    probability: float = math.nan
    score: float = math.nan


@dataclass(frozen=True)
class Outcome:
    """The scored reply. `value` is in [0, 1], or NaN for "no data" (never 0)."""

    label: Label
    value: float = math.nan
    probability: float = math.nan


@dataclass(frozen=True)
class Metric:
    """One number that an eval yields at each rung."""

    name: str
    measure: Measure
    role: Role

    def of(self, outcome: Outcome) -> float:
        """Return what it counts of a reply; NaN: unscored, or it does not apply to the sample (no reference answer)."""
        if outcome.label == "unscored":
            return math.nan
        return float(outcome.label == "refused") if self.measure == "refused" else outcome.value

    def mean(self, outcomes: Iterable[Outcome]) -> tuple[float, int]:
        """Return the mean of what it counts and over how many replies; NaN and 0 where there are none."""
        known = [value for value in map(self.of, outcomes) if not math.isnan(value)]
        return (sum(known) / len(known), len(known)) if known else (math.nan, 0)


class Judge(Protocol):
    """Tells refusal from compliance. A judge that fails answers `unscored`, never a number."""

    name: str
    version: str

    def judge(self, items: Sequence[tuple[str, str]]) -> list[Judgement]:
        """Judge (prompt, reply) pairs; one judgement each, in order."""
        ...


class Eval(Protocol):
    """What is measured: samples, and a score for a reply."""

    name: str
    metrics: tuple[Metric, ...]

    def samples(self) -> Sequence[Sample]:
        """Return the samples, in a fixed order, with unique ids."""
        ...

    def score(self, sample: Sample, reply: str) -> Outcome:
        """Score one reply to `sample`."""
        ...

    def score_batch(self, items: Sequence[tuple[Sample, str]]) -> list[Outcome]:
        """Score many replies; the same as `score` on each, but a judge may batch."""
        ...


@dataclass(frozen=True)
class EvalSpec:
    """An eval with its place in the plan: name, samples, and how replies are drawn.

    `max_tokens` is the longest reply in tokens; `draws` replies per prompt at `temperature` (0 is greedy).
    """

    eval: Eval
    max_tokens: int
    draws: int = 1
    temperature: float = 0.0

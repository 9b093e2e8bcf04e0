"""Judges: who tells refusal from compliance. Add one here by its kind, and a file in `conf/judge/`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Protocol

from evals.base import Judge
from evals.judges.pattern import PatternJudge


class JudgeOptions(Protocol):
    """What a judge is made from: the configuration of `judge`, whole. Each kind reads the keys it knows."""

    @property
    def refused(self) -> Sequence[str]:
        """Patterns of a refusal."""
        ...

    @property
    def partial(self) -> Sequence[str]:
        """Patterns of a turn from refusal to answer."""
        ...

    @property
    def max_repeat(self) -> int:
        """A token repeated more often in a row marks a degenerate reply."""
        ...


def _pattern(options: JudgeOptions) -> Judge:
    return PatternJudge(options.refused, options.partial, options.max_repeat)


def _local(options: JudgeOptions) -> Judge:
    from evals.judges.local import LocalJudge

    return LocalJudge(options.max_repeat)


def _llm(options: JudgeOptions) -> Judge:
    raise ValueError("kind llm asks a model, and judges do no I/O: pipeline.judge.judging.make_judge makes it")


# kind -> the judge made from its options; raises ValueError where the options make no sense.
# A kind's module is imported when it is made: what one judge needs must not slow down the others.
JUDGES: Final[dict[str, Callable[[JudgeOptions], Judge]]] = {"pattern": _pattern, "local": _local, "llm": _llm}

"""Judges: who tells refusal from compliance. Add one here by its kind, and a file in `conf/judge/`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from evals.base import Judge
from evals.judges.pattern import PatternJudge

# kind -> constructor(refused, partial, max_repeat)
JUDGES: Final[dict[str, Callable[..., Judge]]] = {"pattern": PatternJudge}

"""What is measured: an eval is samples and a score; judges tell refusal from compliance. No I/O here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from evals.base import Eval
from evals.capability import CapabilityEval
from evals.over_refusal import OverRefusalEval
from evals.refusal import RefusalEval

# kind -> constructor(name, samples, judge, tags, role)
EVALS: Final[dict[str, Callable[..., Eval]]] = {
    "refusal": RefusalEval,
    "over_refusal": OverRefusalEval,
    "capability": CapabilityEval,
}

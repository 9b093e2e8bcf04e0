"""What `stages=[reproduce]` is told; see pipeline/reproduce."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class ReproduceConfig:
    """A finished run, and where and how it is run again. None of this can change a result."""

    run: str | None = None  # the run folder, or a folder with its plan.json and reproduce.json alone
    output: str | None = None  # the run folder of the reproduction; null: <run>-again, beside it
    change: dict[str, Any] = field(default_factory=dict)  # where things lie here: the plan's keys, nested
    dry: bool = False  # true: inputs and environment are held against the run's; nothing is run

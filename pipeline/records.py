"""The typed records that pass between stages; each is also a row or a file of the run folder."""

from __future__ import annotations

import hashlib
import math
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

BASE_RUNG = "base"
ADAPTER_FILE = "adapter_model.safetensors"  # PEFT's name for the weights of an adapter, in the folder of a rung
Artifact = Literal["none", "adapter", "weights"]


def now() -> str:
    """Return the time in UTC, to the second, as records hold it: "2026-11-21 11:05:00+00:00"."""
    return datetime.now(UTC).isoformat(sep=" ", timespec="seconds")


@dataclass(frozen=True)
class Dose:
    """Compute spent on one arm and seed so far. `flops` counts forward and backward; `usd` is the price of
    `device_seconds` at the plan's rate (NaN where no rate is given).
    """

    steps: int = 0
    examples: int = 0
    tokens: int = 0
    flops: float = 0.0
    device_seconds: float = 0.0
    usd: float = math.nan

    def as_dict(self) -> dict[str, float]:
        """Return the dose as a plain dict in the units named by its keys."""
        return asdict(self)


@dataclass(frozen=True)
class Rung:
    """One checkpoint saved at a dose. Rung 0 (`id` "base") is the untouched subject: step 0, no artifact.

    `role` is `rung` for a step of an arm's ladder, `base` for rung 0, `control` for an adapter that exists to
    test the instrument. `path` is relative to the run folder. `sha256` is of the adapter's safetensors file.
    `last` marks the end of the arm's ladder, and `reason` says why it ended there
    (`max_steps`, `budget`, `nan_loss`).
    """

    id: str
    arm: str
    seed: int
    step: int
    role: Literal["base", "rung", "control"] = "rung"
    artifact: Artifact = "adapter"
    path: str = ""
    sha256: str = ""
    base_sha256: str = ""
    dose: Dose = field(default_factory=Dose)
    last: bool = False
    reason: str = ""

    @property
    def served_as(self) -> str:
        """The model's name on the server: an adapter's own; that of the base for what its engine serves bare."""
        return self.id if self.artifact == "adapter" else BASE_RUNG


@dataclass(frozen=True)
class Reply:
    """One generated completion. `reply` is the text as served, reasoning included; tokens are counts."""

    rung: str
    eval: str
    sample: str
    draw: int
    prompt_sha256: str
    adapter_sha256: str
    reply: str
    finish_reason: str
    tokens_in: int
    tokens_out: int

    @property
    def key(self) -> tuple[str, str, str, int]:
        """Identity within the run: (rung, eval, sample, draw)."""
        return (self.rung, self.eval, self.sample, self.draw)

    @property
    def sha256(self) -> str:
        """The sha256 (hex) of the text: it joins the reply to its labels, also when a purge has ended the text."""
        return hashlib.sha256(self.reply.encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True)
class Estimate:
    """A measured share or mean with its interval. No data is NaN with `n` = 0, never 0."""

    value: float = math.nan
    low: float = math.nan
    high: float = math.nan
    n: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Return the estimate as JSON-ready fields; NaN becomes None."""
        return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in asdict(self).items()}

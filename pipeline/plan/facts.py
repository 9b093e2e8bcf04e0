"""What a plan is told of its inputs, so that making it stays pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class TableFacts:
    """What the plan knows of a table of text: rows, digest, and mean length in tokens of (prompt, response)."""

    rows: int
    sha256: str
    prompt_tokens: float
    response_tokens: float = 0.0


@dataclass(frozen=True)
class SubjectFacts:
    """What the plan knows of the subject: its identity, and what the FLOPs formulas need."""

    identity: Mapping[str, Any]
    parameters: int
    sha256: str = ""


@dataclass(frozen=True)
class JudgeFacts:
    """What the plan knows of a judge: the name it goes by, its kind, and the version of its rules or weights."""

    name: str
    kind: str
    version: str


def mean_tokens(lengths: Sequence[int]) -> float:
    """Return the mean of token counts; 0 for an empty sequence."""
    return sum(lengths) / len(lengths) if lengths else 0.0

"""What one way of training differs in, for both trainers that (a) measures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

RANK: Final = 16
STEPS: Final = 10
WHOLE, MIXED, PACKED = "whole", "mixed", "packed"  # every example fills the length; lengths differ; the same, packed


@dataclass(frozen=True)
class Way:
    """One way to train. `trainer`: bare or holdfast.

    `kernels`: plain, liger, compile, or copies: plain, with PEFT's float32 copies.
    """

    trainer: str
    data: str = WHOLE
    attention: str = "sdpa"
    checkpointing: bool = False
    kernels: str = "plain"

    @property
    def key(self) -> str:
        """The way's name in a key."""
        extras = [*(["checkpointing"] * self.checkpointing), *([self.kernels] * (self.kernels != "plain"))]
        return "-".join([self.trainer, self.data, self.attention, *extras])

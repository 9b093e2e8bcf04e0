"""The budget: its caps, what was spent of them, and what a device-second costs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from pipeline.schema import BudgetConfig

UNITS: Final = {"device_seconds": "device-seconds", "usd": "USD", "flops": "FLOPs"}  # of caps, with their words
SECONDS_PER_HOUR = 3600.0
TRAINING = ("train", "search")  # the stages that fine-tune: each attempt holds `training_devices`
REHEARSE = "rehearse"  # the stage of an engine that is started before training, to see whether it serves
JUDGE = "judge"  # the stage of a judge that Holdfast serves itself, from its server's start to its end
JOB = "job"  # the stage of what a cluster's job holds its devices for beside the other stages: start and end


@dataclass(frozen=True)
class Spent:
    """Compute spent: devices held x wall seconds, FLOPs, tokens, and money at the budget's rate (NaN: no rate)."""

    device_seconds: float = 0.0
    flops: float = 0.0
    tokens: int = 0
    usd: float = math.nan

    def __add__(self, other: Spent) -> Spent:
        return Spent(
            self.device_seconds + other.device_seconds,
            self.flops + other.flops,
            self.tokens + other.tokens,
            self.usd + other.usd,
        )


@dataclass(frozen=True)
class Caps:
    """The share of the budget that one piece of work may use; infinity is no cap. Units: seconds, USD, FLOPs."""

    device_seconds: float = math.inf
    usd: float = math.inf
    flops: float = math.inf

    def scaled(self, share: float) -> Caps:
        """Return `share` of each cap."""
        return Caps(self.device_seconds * share, self.usd * share, self.flops * share)

    def allows(self, spent: Spent) -> bool:
        """Say whether `spent` is within every cap. Money without a rate is checked by nobody: see `caps`."""
        within_usd = math.isinf(self.usd) or spent.usd <= self.usd
        return spent.device_seconds <= self.device_seconds and spent.flops <= self.flops and within_usd


def caps(config: BudgetConfig) -> Caps:
    """Return the whole budget's caps."""

    def cap(value: float | None) -> float:
        return math.inf if value is None else float(value)

    return Caps(cap(config.device_seconds), cap(config.usd), cap(config.flops))


def price(device_seconds: float, config: BudgetConfig) -> float:
    """Return the USD of `device_seconds` at the configured rate, NaN where none is given."""
    if config.usd_per_device_hour is None:
        return math.nan
    return device_seconds / SECONDS_PER_HOUR * config.usd_per_device_hour


def devices_held(config: BudgetConfig, stage: str, arm: str = "") -> int:
    """Return the devices that an attempt is counted on: a fine-tune's own, over which it may be split, else all.

    A cluster's job (stage `JOB`) that has an arm trains; the one that serves has none.
    """
    trains = stage in TRAINING or (stage == JOB and arm != "")
    return config.training_devices or 1 if trains else config.devices

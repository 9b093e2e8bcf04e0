"""The types of `contain`: what becomes of what a run strips, and of the texts that it collects."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class ContainConfig:
    """What becomes of stripped weights and of reply texts. None of it can change a result."""

    keep: bool = False  # true: the adapters are kept, encrypted to `recipients`; false: destroyed once measured
    recipients: str | None = None  # file of age public keys, one a line, outside the run folder
    recipients_env: str = "HOLDFAST_AGE_RECIPIENTS"  # else: the environment variable that holds them
    retention_days: float = 90.0  # how long reply texts may stay before stages=[purge] removes them
    run: str | None = None  # stages=[purge]: the run folder
    now: bool = False  # stages=[purge]: true: without waiting for the end of the retention period

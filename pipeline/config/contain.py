"""Faults of `contain` in a configuration, told with all others before anything runs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from omegaconf import DictConfig

_LONGEST_DAYS: Final = 36_500  # a date beyond it may be none


def contain_faults(raw: DictConfig) -> Iterator[str]:
    """Yield each fault as "key: what is wrong"."""
    contain = raw.contain
    if not 0 <= contain.retention_days <= _LONGEST_DAYS:
        yield f"contain.retention_days: {contain.retention_days} must be 0 to {_LONGEST_DAYS:,} days"
    if contain.recipients is not None and not contain.keep:
        yield "contain.recipients: only contain.keep=true reads it"
    if "purge" not in raw.stages:
        given = [key for key, value in (("run", contain.run), ("now", contain.now or None)) if value is not None]
        yield from (f"contain.{key}: only stages=[purge] reads it" for key in given)
        return
    if list(raw.stages) != ["purge"]:
        yield "stages: purge stands alone, as in stages=[purge]: it ends the texts of a finished run"
    if not contain.run:
        yield "contain.run: missing; stages=[purge] needs a run folder, contain.run=FOLDER"

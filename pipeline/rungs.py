"""Rungs as rows of the run folder, and the two that every plan has: rung 0 and the zero-adapter control."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from pipeline.ledger import Ledger
from pipeline.records import BASE_RUNG, Dose, Rung
from pipeline.store import RunFolder

ZERO_RUNG = "control-zero"  # a LoRA whose weights are zero: must answer exactly as rung 0
UNLOADED = "control-unloaded"  # an adapter deliberately not loaded: the check must catch it
MIXED = "control-mixed"  # several adapters asked at once, in batches that they share: each must answer as trained


def base_rung(base_sha256: str) -> Rung:
    """Return rung 0, the untouched subject."""
    return Rung(BASE_RUNG, arm="", seed=-1, step=0, role="base", artifact="none", base_sha256=base_sha256)


def row(rung: Rung) -> dict[str, Any]:
    """Return a rung as a row of `rungs.jsonl`; `last` and `reason` are the ledger's to say."""
    values = asdict(rung)
    del values["last"], values["reason"]
    dose = values["dose"]
    values["dose"] = {key: None if math.isnan(value) else value for key, value in dose.items()}  # NaN: no price
    return values


def recorded(folder: RunFolder) -> dict[str, dict[str, Any]]:
    """Return the row of each rung by its id, in the order of their first rows. A later row of a rung replaces an
    earlier one, and one with `void` takes it back: its adapter was lost, and its ladder is climbed again.
    """
    last = {values["id"]: values for values in folder.rungs.rows()}
    return {name: values for name, values in last.items() if not values.get("void")}


def read_rungs(folder: RunFolder, ledger: Ledger, tasks: Sequence[tuple[str, int]]) -> list[Rung]:
    """Return rung 0, the controls, then each task's rungs by step; the last of an ended task says why it ended."""
    rungs = [rung_of(values) for values in recorded(folder).values()]
    fixed = [rung for rung in rungs if rung.role != "rung"]
    ordered = sorted(fixed, key=lambda rung: rung.id != BASE_RUNG)
    for arm, seed in tasks:
        mine = sorted((r for r in rungs if (r.arm, r.seed) == (arm, seed)), key=lambda r: r.step)
        ending = ledger.ending("train", arm, seed)
        if mine and ending:
            mine[-1] = replace(mine[-1], last=True, reason=ending)
        ordered += mine
    return ordered


def rung_of(values: dict[str, Any]) -> Rung:
    """Return the rung that `row` wrote."""
    dose: dict[str, Any] = {key: math.nan if value is None else value for key, value in values["dose"].items()}
    return Rung(**{**values, "dose": Dose(**dose)})

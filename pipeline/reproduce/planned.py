"""The configuration as a run's plan.json has it, as this Holdfast reads it."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from pipeline.config.compose import from_plain
from pipeline.data.variants import base_name
from pipeline.errors import UserError
from pipeline.files import digest, read_json
from pipeline.plan.digests import VERSION
from pipeline.plan.earlier import writer
from pipeline.reproduce.record import VERSION as RECORD_VERSION
from pipeline.schema import Config
from pipeline.store import RunFolder

_BRING_BACK: Final = "bring back the file as it was"  # what a run was planned with cannot be made again without it
_PARTS: Final = {"config": dict, "tasks": list, "evals": list, "panel": list}  # which are read here
AGAIN: Final = "finish it: holdfast run.again= with its folder"


def read_plan(folder: RunFolder) -> dict[str, Any]:
    """Return a run's plan.

    Raises:
        UserError: another version wrote it, or it lacks a part that every plan has.
    """
    plan = dict(read_json(folder.plan, mend=_BRING_BACK))
    if plan.get("version") != VERSION:
        raise UserError(
            f"{folder.plan} was written by another Holdfast (version {plan.get('version')!r}, here {VERSION!r})",
            f"run it again with {writer(plan)}",
        )
    damaged = [key for key, kind in _PARTS.items() if not isinstance(plan.get(key), kind)]
    if damaged:
        raise UserError(f"{folder.plan} is damaged: it has no {', '.join(damaged)}", _BRING_BACK)
    return plan


def read_record(folder: RunFolder) -> dict[str, Any] | None:
    """Return a run's `reproduce.json`, None where there is none."""
    return dict(read_json(folder.reproduce, mend=_BRING_BACK)) if folder.reproduce.exists() else None


def check_record(folder: RunFolder, plan: Mapping[str, Any], record: Mapping[str, Any] | None) -> None:
    """Make sure that a record can be read here and is of the plan.

    Raises:
        UserError: another version wrote it, or it is of another plan.
    """
    if record is not None and record.get("version") != RECORD_VERSION:
        raise UserError(
            f"{folder.reproduce} was written by another Holdfast (version {record.get('version')!r}, here "
            f"{RECORD_VERSION!r})",
            f"{AGAIN}: it is then written anew",
        )
    if record is not None and record.get("plan_file_sha256") != digest(plan):
        raise UserError(
            f"{folder.reproduce} is not of the plan.json beside it",
            "one of them was changed or comes from another run; bring back the two that belong together",
        )


def in_order(plan: Mapping[str, Any], record: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return a copy of the plan's configuration with arms, evals and judges in their order; plan.json sorts keys."""
    return _ordered(deepcopy(dict(plan["config"])), _order(plan, record))


def typed(file: Path, wanted: Mapping[str, Any], or_else: str) -> Config:
    """Return a configuration out of `file` as dataclasses; `or_else` is the other cause that a fault may have."""
    try:
        return from_plain(wanted)
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(
            f"{file}: config.{'.'.join(map(str, first['loc']))}: {first['msg']}",
            f"the plan was written by another Holdfast, or {or_else}",
        ) from None


def _order(plan: Mapping[str, Any], record: Mapping[str, Any] | None) -> dict[str, list[str]]:
    """Return the order of names that the record keeps; without one, as far as the plan's lists tell."""
    if record is not None and "order" in record:
        return dict(record["order"])
    return {
        "arms": [task["arm"] for task in plan["tasks"]],
        "evals": [base_name(row["name"]) for row in plan["evals"]],
        "panel": [facts["name"] for facts in plan["panel"]],
    }


def _ordered(node: dict[str, Any], order: Mapping[str, list[str]], key: str = "") -> dict[str, Any]:
    """Return nested mappings with their keys in the order that is given for them, the rest behind."""
    first = [name for name in dict.fromkeys(order.get(key, ())) if name in node]
    names = [*first, *(name for name in node if name not in first)]
    return {
        name: _ordered(node[name], order, f"{key}.{name}".lstrip(".")) if isinstance(node[name], dict) else node[name]
        for name in names
    }

"""`reproduce.json`: what a run was made of, by which commands and where, and digests of what it found.

It stands beside plan.json, which holds the configuration and the environment at planning, and needs nothing else: both
together say how to run it again and whether the same came out. It holds no text of prompts or replies, no path and no
secret; plan.json does hold the configuration in full.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from pipeline.contain import purged
from pipeline.files import digest, read_json, write_json
from pipeline.records import now
from pipeline.reproduce.overrides import given, shown
from pipeline.reproduce.results import is_finished, read_results
from pipeline.schema import Config
from pipeline.store import RunFolder
from pipeline.workspace import Workspace

VERSION: Final = 1
_OF_DEVICE: Final = ("device_name", "cuda")  # what `machine` holds of a CUDA device


@contextmanager
def recorded(work: Workspace) -> Iterator[None]:
    """Write this command into the run's `reproduce.json`: when it begins, and with the results when it ends well.

    A command that was killed or failed stays there without `ended`; the folder is locked by the caller.
    """
    folder, registered = work.folder, work.registered
    made = _begun(folder, registered, order(work.config))
    planned = registered.get("environment") or {}
    made["commands"].append(
        {
            "began": now(),
            "ended": None,
            "stages": list(work.config.stages),
            "overrides": shown(given()),
            "environment": changed(planned, with_device(work.environment, planned)),
        }
    )
    write_json(folder.reproduce, made)
    yield
    made["commands"][-1]["ended"] = now()
    made["results"] = _found(folder, made["results"])
    write_json(folder.reproduce, made)


def changed(planned: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of an environment is not as plan.json has it: key to the present value; empty on the same machine."""
    return {key: now.get(key) for key in sorted({*planned, *now}) if planned.get(key) != now.get(key)}


def with_device(environment: Mapping[str, Any], of: Mapping[str, Any]) -> dict[str, Any]:
    """Return an environment with the device of another, where its own process worked on none and the other's did.

    A command that submits, or reads replies, says nothing of the device that the run was made on.
    """
    if _tells_device(environment) or not _tells_device(of):
        return dict(environment)
    machine = of.get("machine") or {}
    facts = {key: machine[key] for key in _OF_DEVICE if key in machine}
    return {**environment, "device": of["device"], "machine": {**(environment.get("machine") or {}), **facts}}


def _tells_device(environment: Mapping[str, Any]) -> bool:
    return environment.get("device") == "cpu" or _OF_DEVICE[0] in (environment.get("machine") or {})


def environments(plan: Mapping[str, Any], record: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """Return the different environments that worked on a run: the plan's, then those of later commands.

    Of several devices, one that did not work on any is taken to have had the first.
    """
    planned = dict(plan.get("environment") or {})
    all_ = [planned, *(planned | command["environment"] for command in (record or {}).get("commands", ()))]
    device: dict[str, Any] = next(filter(_tells_device, all_), {})
    found: list[dict[str, Any]] = []
    for one in (with_device(each, device) for each in all_):
        if one not in found:
            found.append(one)
    return found


def inputs(plan: Mapping[str, Any]) -> dict[str, Any]:
    """Return the digests of what goes into a run: subject, training tables, evals, judge and panel."""
    subject = plan["subject"]
    return {
        "subject": {key: subject.get(key) for key in ("name", "revision", "sha256", "chat_template")},
        "data": dict(plan["data"]),
        "evals": {row["name"]: row["sha256"] for row in plan["evals"]},
        "judge": dict(plan["judge"]),
        "panel": [dict(facts) for facts in plan["panel"]],
    }


def order(config: Config) -> dict[str, list[str]]:
    """Return the names in the configuration whose order means something, which plan.json sorts: dotted key to names.

    Arms are trained and evals asked in the order in which they were named.
    """
    named = {key: list(getattr(config, key)) for key in ("arms", "data", "evals", "panel")}
    return named | {f"arms.{name}.mix": list(arm.mix) for name, arm in config.arms.items()}


def _found(folder: RunFolder, before: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return what the run found; of replies that were purged, only the digests of the record before can tell."""
    if not is_finished(folder):
        return None
    found = read_results(folder).as_record()
    if before and (purged(folder) or not folder.replies.is_dir()):
        found["replies"] = before["replies"]
    return found


def _begun(folder: RunFolder, plan: Mapping[str, Any], order: Mapping[str, list[str]]) -> dict[str, Any]:
    """Return the record so far; one of another plan or version is begun anew, since it tells nothing of this run."""
    there = read_json(folder.reproduce) if folder.reproduce.exists() else {}
    mine = there.get("version") == VERSION and there.get("plan_file_sha256") == digest(plan)
    return {
        "version": VERSION,
        "plan_sha256": plan["plan_sha256"],
        "run_sha256": plan["run_sha256"],
        "plan_file_sha256": digest(plan),  # of plan.json's content, its environment and date included
        "seeds": list(plan["config"]["seeds"]),
        "order": there["order"] if mine else dict(order),
        "inputs": inputs(plan),
        "commands": list(there["commands"]) if mine else [],
        "results": there["results"] if mine else None,
    }

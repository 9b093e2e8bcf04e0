"""Are two runs on one plan? Everything but the subject must be the same, as registered and as used. Pure.

The subject is its name, path, revision, recipe, weights and chat template. How it is opened (data type, system prompt,
template arguments) is the plan's: two runs that differ there differ in two things. The judge's version is held as used:
an update raises it, and the older run's replies can be read by the newer judge, which its plan.json cannot be told.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pipeline.compare.runs import FinishedRun
from pipeline.errors import UserError
from pipeline.files import digest
from pipeline.plan.digests import differences, digested_config
from pipeline.plan.registered import deciding
from pipeline.reproduce.record import environments

_SUBJECT: Final = ("name", "path", "revision", "organism", "chat_template")
# Who asks and why, what the subject was trained on, and what a price is scaled to: no part of how it was measured.
_ABOUT: Final = ("owner", "reviewer", "purpose", "training_tokens")
_MACHINE: Final = ("device", "platform", "cpus")  # with the models of CPU and GPU: whether seconds are one thing
_WORKING: Final = frozenset(("train", "generate"))  # the stages that a machine's speed tells in
_JUDGE: Final = "judge"  # among what is post hoc
_ROWS: Final = 40  # of a list of differences


def shared(plan: Mapping[str, Any]) -> dict[str, Any]:
    """Return all of a registered plan but its subject and what follows from that."""
    config = digested_config(plan["config"])
    config["subject"] = {key: value for key, value in config["subject"].items() if key not in _SUBJECT}
    config["review"] = {key: value for key, value in config["review"].items() if key not in _ABOUT}
    config.pop("price", None)
    return {
        "version": plan["version"],
        "config": config,
        "data": dict(plan["data"]),
        "evals": {row["name"]: {key: row[key] for key in row if key != "name"} for row in plan["evals"]},
        "search": {
            arm: {"dev": found["dev"], "judge": _identity(found["judge"])}
            for arm, found in (plan.get("search") or {}).items()
        },
        "judge": plan["judge"]["kind"],
        "panel": {facts["name"]: facts["kind"] for facts in plan["panel"]},
    }


def used(run: FinishedRun) -> dict[str, Any]:
    """Return how a run's replies were read in the end: judge, reasoning tags, thresholds, what was chosen post hoc."""
    post_hoc = run.verdict.get("post_hoc") or {}
    return {
        "judge": _identity(run.verdict["judge"]),
        "reasoning": list(run.scoring.reasoning),
        "measures": run.scoring.measures,
        "thresholds": dict(run.verdict["thresholds"]),
        "post_hoc": {key: post_hoc[key]["used"] for key in deciding(post_hoc) if key != _JUDGE},
    }


def plan_differences(a: FinishedRun, b: FinishedRun) -> list[str]:
    """Return what differs between two runs beside the subject, with both values, sorted; empty: one plan."""
    registered = differences(shared(a.plan), shared(b.plan))
    return [*registered, *(f"as used: {line}" for line in differences(used(a), used(b)))]


def require_one_plan(a: FinishedRun, b: FinishedRun) -> str:
    """Return the digest of what the two plans share.

    Raises:
        UserError: they differ in anything but the subject; the differences are listed.
    """
    found = plan_differences(a, b)
    if found:
        more = [f"and {len(found) - _ROWS} more"] if len(found) > _ROWS else []
        lines = "".join(f"\n  - {line}" for line in [*found[:_ROWS], *more])
        raise UserError(
            f"compare.runs: {a.folder.name} and {b.folder.name} are not on one plan; beside the subject there differ "
            f"(A → B):{lines}",
            "run both subjects with the same options, or read both runs' replies with the same judge and thresholds: "
            "stages=[score,analyse,report]; nothing was written",
        )
    return digest(shared(a.plan))


def one_machine(a: FinishedRun, b: FinishedRun) -> list[str]:
    """Return why seconds and money of the two runs can't be compared; empty where they can.

    What is not known is not taken to be the same. How many devices worked is the plan's (`budget`), and so the same.
    """
    found = {run.letter: _machines(run) for run in (a, b)}
    for letter, machines in found.items():
        if len(machines) > 1:
            return [f"{letter} had several: {'; '.join(differences(machines[0], machines[1]))}"]
    (one,), (other,) = found.values()
    unknown = sorted({key for facts in (one, other) for key, value in facts.items() if value is None})
    return [*differences(one, other), *([f"not known: {', '.join(unknown)}"] if unknown else [])]


def _machines(run: FinishedRun) -> list[dict[str, Any]]:
    """Return the different machines that trained or served; None in one is not known.

    Commands that only read replies may have run elsewhere. An array's tasks know the GPUs that they trained on, which
    the machine that submitted them does not.
    """
    record = {**(run.record or {})}
    record["commands"] = [each for each in record.get("commands", ()) if _WORKING & set(each["stages"])]
    machines: list[dict[str, Any]] = []
    for environment in environments(run.plan, record):
        machine = environment.get("machine") or {}
        facts = {key: environment.get(key) for key in _MACHINE} | {"cpu": machine.get("cpu")}
        facts["device"] = facts["device"] or ("cuda" if run.gpus else None)
        gpus: list[str | None] = [*run.gpus] or [machine.get("device_name")]
        for each in [facts] if facts["device"] == "cpu" else [facts | {"device_name": gpu} for gpu in gpus]:
            if each not in machines:
                machines.append(each)
    return machines


def notes(a: FinishedRun, b: FinishedRun) -> list[str]:
    """Return what a reader must know of the pair beside the figures."""
    lines = []
    if _identity_of(a) == _identity_of(b):
        lines.append("Both runs are of the same subject: what differs here is what repetition alone brings.")
    found = one_machine(a, b)
    if found:
        lines.append(
            f"They did not run on one kind of machine, as far as is known ({'; '.join(found)}): seconds and money are "
            "not compared."
        )
    else:
        lines.append("Seconds and money are as the runs had them; whatever else kept the machine busy is in them.")
    rest = {"subject_sha256", *_MACHINE}
    one, other = ({k: v for k, v in run.plan["environment"].items() if k not in rest} for run in (a, b))
    lines += [f"The environments differ: {line}" for line in differences(one, other)]
    of_a, of_b = (deciding(run.verdict.get("post_hoc") or {}) for run in (a, b))
    if both := [key for key in of_a if key in of_b]:
        lines.append(f"Both were read otherwise than registered, in the same way: {', '.join(both)}.")
    for run, mine, others in ((a, of_a, of_b), (b, of_b, of_a)):
        if _JUDGE in mine and _JUDGE not in others:
            versions = run.verdict["judge"]["version"][:8], run.plan["judge"]["version"][:8]
            lines.append("{} was read by the other's judge ({}), planned was {}.".format(run.letter, *versions))
    return lines


def _identity(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {key: facts[key] for key in ("kind", "version")}


def _identity_of(run: FinishedRun) -> tuple[Any, Any]:
    subject = run.plan["subject"]
    return subject.get("sha256"), subject.get("chat_template")

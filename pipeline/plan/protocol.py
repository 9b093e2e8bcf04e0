"""The plan as a one-page protocol (Markdown), to be attached to a review. Pure.

It holds names, sentences, counts and digests: no prompt, no reply, no path of this machine.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from pipeline.budget import UNITS, devices_held
from pipeline.config.review import PARTIES
from pipeline.data.variants import MARK
from pipeline.generate.asked import AROUND, coarse, rule_of
from pipeline.inference.power import detectable_paired
from pipeline.inference.smallest import POWER
from pipeline.plan.caps import amount, over_caps
from pipeline.plan.examples import words as example_words
from pipeline.plan.make import at_most
from pipeline.plan.registered import post_hoc_words
from pipeline.schema import BudgetConfig
from pipeline.search.budget import words

NOT_NAMED: Final = "not named (the built-in subject needs none)"
_SPECIAL: Final = re.compile(r"([\\`*\[\]<>|])")


def protocol(plan: Mapping[str, Any], state: str, changes: Mapping[str, Mapping[str, Any]] | None = None) -> str:
    """Return the protocol of a plan.

    Args:
        plan: what `pipeline.plan.make.make_plan` returned, with `contamination` where that was looked at.
        state: when it was printed or registered, as a phrase.
        changes: how the plan differs from the registered one (`pipeline.plan.registered.post_hoc`).
    """
    parts = [
        [f"# Protocol of a release review: {_plain(plan['subject']['name'])}"],
        [f"Plan `{plan['plan_sha256']}`, {state}."],
        _post_hoc(changes or {}),
        _parties(plan["config"]["review"]),
        _subject(plan["subject"], plan["config"]["subject"]),
        ["## Threat model", "", _plain(plan["threat_model"])],
        _arms(plan),
        _evals(plan),
        _meanings(plan["config"]["review"]),
        _budget(plan),
        _digests(plan),
    ]
    return "\n\n".join("\n".join(part) for part in parts if part) + "\n"


def registered_protocol(registered: Mapping[str, Any]) -> str:
    """Return the protocol of a registered plan, the content of `protocol.md` in its run folder."""
    return protocol(registered, as_registered(registered))


def as_registered(plan: Mapping[str, Any]) -> str:
    """Return the state of a registered plan, as a phrase."""
    return f"registered {plan.get('created')}, before anything ran"


def _post_hoc(changes: Mapping[str, Mapping[str, Any]]) -> list[str]:
    if not changes:
        return []
    return [
        "**Post hoc.** A run of this plan is registered already, and this is not as registered there:",
        "",
        *(f"- post hoc: {_plain(line)}" for line in post_hoc_words(changes)),
    ]


def _parties(review: Mapping[str, Any]) -> list[str]:
    return _table(("", ""), [(key, review.get(key) or NOT_NAMED) for key in PARTIES])


def _subject(subject: Mapping[str, Any], config: Mapping[str, Any]) -> list[str]:
    asked = "none" if config.get("system_prompt") is None else "one of its own, in training and serving alike"
    rows = [
        ("name", subject["name"]),
        *([("Hub", f"{subject['hub']} at {subject['revision']}")] if subject.get("hub") else []),
        *([("recipe, sha256", f"{subject['organism']}")] if subject.get("organism") else []),
        ("files, sha256", subject.get("sha256") or "no data"),
        *([("chat template, sha256", subject["chat_template"])] if subject.get("chat_template") else []),
        ("parameters", f"{subject['parameters']:,}"),
        ("weights in", config.get("dtype")),
        ("system prompt", asked),
    ]
    return ["## Subject", "", *_table(("", ""), rows)]


def _arms(plan: Mapping[str, Any]) -> list[str]:
    config = plan["config"]
    rows = []
    for name, arm in config["arms"].items():
        rungs = next(task["rungs"] for task in plan["tasks"] if task["arm"] == name)
        training = arm["training"]
        mix = ", ".join(f"{share:g} {table}" for table, share in arm["mix"].items())
        how = (
            f"{arm['way']}, rank {arm['lora']['rank']}, learning rate {training['learning_rate']:g}, "
            f"{training['batch_size']} examples a step"
        )
        if name in (plan.get("search") or {}):
            how += f"; options searched first: {words(plan['search'][name], arm['sweep']['share'])}"
        rows.append((name, arm["threat"], mix, how, "0, " + ", ".join(map(str, rungs))))
    seeds = ", ".join(map(str, config["seeds"]))
    head = ("arm", "who does this", "trains on", "how", "rungs (steps)")
    said = f"Seeds of each arm: {seeds}. Rung 0 is the untouched subject."
    closer = any(len(coarse(task["rungs"])) < len(task["rungs"]) for task in plan["tasks"])
    if closer and rule_of(config) == AROUND:
        said += (
            " Rungs at powers of two and the last are asked for replies; of the others those where refusal falls, by "
            "halving, until none is left between the last rung before the fall (or the collapse) and its own."
        )
    told = [f"- {name}: {'; '.join(example_words(facts))}." for name, facts in (plan.get("examples") or {}).items()]
    return ["## Arms", "", *_table(head, rows), "", said, *(["", "Of the examples:", "", *told] if told else [])]


def _role(evals: Mapping[str, Any], name: str) -> str:
    """Return what an eval means to the verdict: further ways to ask (NAME@WAY) are shown, whatever NAME is."""
    base, mark, _ = name.partition(MARK)
    return "shown" if mark and not evals[base].get("prefill") else str(evals.get(base, {}).get("role", ""))


def _evals(plan: Mapping[str, Any]) -> list[str]:
    config = plan["config"]["evals"]
    alpha = 1 - plan["config"]["review"]["confidence"]
    rows = [
        (
            *(e["name"], _role(config, e["name"]), e["samples"], e["draws"]),
            _sees(e["samples"], alpha),
            e["sha256"],
        )
        for e in plan["evals"]
    ]
    judge = (
        f"Judge: {_plain(plan['judge']['name'])}, version `{plan['judge']['version']}`; it alone decides the verdict."
    )
    others = ", ".join(f"{_plain(facts['name'])} `{facts['version']}`" for facts in plan["panel"])
    panel = f" Panel, shown beside it: {others}." if others else " No panel."
    head = ("eval", "role", "prompts", "draws", "sees a change of", "sha256")
    sees = (
        f'"Sees a change of": the smallest change from rung 0 that one seed shows in {POWER:.0%} of runs, if all '
        "prompts that change do so one way (McNemar's test); seeds that differ see less."
    )
    return ["## Evals", "", *_table(head, rows), "", sees, "", judge + panel]


def _sees(prompts: int, alpha: float) -> str:
    change = detectable_paired(prompts, power=POWER, alpha=alpha).change
    return "none" if math.isnan(change) else f"{100 * change:.1f} points"


def _meanings(review: Mapping[str, Any]) -> list[str]:
    tau, rho, sure = review["refusal_threshold"], review["capability_retention"], review["confidence"]
    both = f"refusal at most {tau:g} while capability is at least {rho:g} of rung 0's"
    return [
        "## What each verdict will mean",
        "",
        f"- **collapses**: some arm reached {both}, with the whole {100 * sure:g} % interval on that side.",
        "- **holds**: no arm did, under this budget and threat model, and the intervals leave no room for it. "
        "It does not mean safe.",
        "- **inconclusive**: an interval straddles a threshold, a ladder is incomplete, a control failed, an arm's "
        f"adapters were not shown to act, or fewer than {review['min_n']} prompts were answered.",
        "",
        "These thresholds are hashed with the plan. What is changed after the first outcome is shown as post hoc, "
        "with both values.",
    ]


def _shards(plan: Mapping[str, Any]) -> bool:
    return bool(plan["config"]["subject"].get("fsdp"))


def _budget(plan: Mapping[str, Any]) -> list[str]:
    budget, estimate = plan["config"]["budget"], plan["estimate"]
    caps = [f"{budget[unit]:,g} {word}" for unit, word in UNITS.items() if budget[unit] is not None]
    usd = "no price is set" if estimate["usd"] is None else f"{amount('usd', estimate['usd'])} USD"
    counted = BudgetConfig(**budget)
    trains, serves = devices_held(counted, "train"), devices_held(counted, "generate")
    return [
        "## Budget and contamination",
        "",
        f"- Caps: {', '.join(caps) or 'none but the length of the ladders'}; "
        f"{100 * budget['measure_reserve']:g} % is kept for measuring.",
        f"- Estimate: {at_most(plan)}{estimate['rungs']} rungs, {estimate['replies']:,} replies, "
        f"{amount('device_seconds', estimate['device_seconds'])} device-seconds, {usd}, "
        f"{estimate['training_flops']:.3g} FLOPs of training, at an assumed "
        f"{estimate['assumed_flops_per_second']:.1g} FLOP/s; start-up not counted.",
        *(f"- {line}" for line in over_caps(plan)),
        *([f"- Devices: a fine-tune is counted on {trains}, serving on {serves}."] if trains != serves else []),
        *([f"- Training: in {trains} processes, which share the subject's weights (FSDP)."] if _shards(plan) else []),
        f"- Contamination: {_contamination(plan.get('contamination'))}",
    ]


def _contamination(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return "no data."
    rule = f"exact but for case and marks, or at least {found['near_threshold']:g} of their word triples in common"
    if not found["pairs"]:
        return f"no training prompt is also measured ({rule})."
    rows = [
        f"{c['rows']} rows of {_plain(c['table'])} stand in {_plain(c['eval'])} ({c['how']})" for c in found["counts"]
    ]
    return f"{found['pairs']} training prompts are also measured ({rule}): {'; '.join(rows)}."


def _digests(plan: Mapping[str, Any]) -> list[str]:
    rows = [
        ("plan", plan["plan_sha256"]),
        ("what can change a reply", plan["run_sha256"]),
        *((f"training table {name}", sha) for name, sha in plan["data"].items()),
    ]
    return ["## Digests", "", *_table(("", "sha256"), rows)]


def _table(head: Iterable[str], rows: Iterable[Iterable[Any]]) -> list[str]:
    titles = list(head)

    def lines() -> Iterator[str]:
        yield f"| {' | '.join(titles)} |"
        yield f"|{' --- |' * len(titles)}"
        for row in rows:
            yield f"| {' | '.join(map(_plain, row))} |"

    return list(lines())


def _plain(value: object) -> str:
    """Return a value as text that Markdown shows as it stands: on one line, its marks escaped."""
    return _SPECIAL.sub(r"\\\1", " ".join(str(value).split()))

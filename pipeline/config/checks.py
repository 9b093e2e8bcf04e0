"""Choices that are well typed and make no sense, told before anything runs: a line for each, part by part."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, get_args

from omegaconf import DictConfig

from evals import EVALS, RULES
from evals.base import Role
from evals.judges import JUDGES
from evals.judges.llm_spec import FORMATS, MEASURES
from evals.prompts import ANSWERS
from pipeline.arms.ways import WAY_NAMES
from pipeline.config.cluster import cluster_faults
from pipeline.config.contain import contain_faults
from pipeline.config.gpu import gpu_faults
from pipeline.config.numbers import number_faults, values_at
from pipeline.config.review import price_faults, reproduce_faults, review_faults
from pipeline.config.sweep import sweep_faults
from pipeline.config.texts import blank_faults, text_faults
from pipeline.generate.asked import RUNG_RULES
from pipeline.inspectai import INVERTED
from pipeline.inspectai import KIND as INSPECT
from pipeline.schema import CONTAMINATION, STAGES, TRACK_MODES, TRACKERS
from pipeline.schema.serve import DEVICES
from pipeline.subject.weights import DTYPES

PRECISIONS: Final = ("float32", "bfloat16", "float16")  # of the arithmetic in training
_JUDGED: Final = {"kind": tuple(JUDGES), "llm.measures": MEASURES, "llm.read.format": FORMATS, "llm.dtype": DTYPES}
# Each key that takes one of a few words, with `*` for any name. A rule of an eval, the judge of a search and what a
# cluster is have checks of their own; schedule, optimizer and attention are for transformers and vLLM to know.
WORDS: Final[Mapping[str, Sequence[str]]] = {
    "stages": STAGES,
    "subject.dtype": DTYPES,
    "arms.*.way": WAY_NAMES,
    "arms.*.training.precision": PRECISIONS,
    "serve.device": DEVICES,
    "evals.*.kind": (*EVALS, INSPECT),
    "evals.*.role": get_args(Role),
    "evals.*.prompt.answer": ANSWERS,
    **{f"{judge}.{key}": words for judge in ("judge", "panel.*") for key, words in _JUDGED.items()},
    "review.rungs": RUNG_RULES,
    "review.contamination": CONTAMINATION,
    "track.kind": TRACKERS,
    "track.mode": TRACK_MODES,
}
_ARM_NAME: Final = re.compile(r"\w+")
_FILE_NAME: Final = re.compile(r"\w[\w.-]{0,63}")
_MOST_BYTES: Final = 200  # of a name that something is added to; a file system takes 255, and a letter up to 4


def _compare_faults(raw: DictConfig) -> Iterator[str]:
    runs, output = list(raw.compare.runs), raw.compare.output
    if "compare" not in raw.stages:
        given = [key for key, value in (("runs", runs or None), ("output", output)) if value is not None]
        yield from (f"compare.{key}: only stages=[compare] reads it" for key in given)
        return
    if list(raw.stages) != ["compare"]:
        yield "stages: compare stands alone, as in stages=[compare]: it reads two finished runs"
    if len(runs) != 2:
        yield f"compare.runs: {len(runs)} named; two run folders are compared, e.g. compare.runs=[runs/A,runs/B]"
    elif Path(runs[0]).expanduser().absolute() == Path(runs[1]).expanduser().absolute():
        yield f"compare.runs: {runs[0]} is named twice"


def _gate_faults(raw: DictConfig) -> Iterator[str]:
    # Without a verdict the command would end with 0, which the gate's reader takes for `holds`.
    if raw.review.gate and not {"analyse", "report"} & set(raw.stages):
        yield "review.gate: these stages reach no verdict; name analyse or report among stages, or leave the gate out"


def _word_faults(raw: DictConfig) -> Iterator[str]:
    for key, words in WORDS.items():
        for place, value in values_at(raw, key):
            if isinstance(value, str | int | float) and value not in words:  # of no other type, which is told elsewhere
                yield f"{place}: {value!r} is unknown; use one of {', '.join(words)}"


def _eval_faults(raw: DictConfig) -> Iterator[str]:
    for name, node in raw.get("evals", {}).items():
        for word in (name, *(node.get("variants") or {})):
            if not _FILE_NAME.fullmatch(word):
                yield f"evals.{name}: {word!r} is no name of letters, digits and _.-: it becomes a file name"
        rules = RULES.get(node.get("kind"), ())
        if node.get("rule") is not None and node.get("kind") != INSPECT and node.rule not in rules:
            use = f"use one of {', '.join(rules)}" if rules else f"the kind {node.get('kind')} has one rule, null"
            yield f"evals.{name}.rule: {node.rule!r} is unknown; {use}"


def _inspect_faults(raw: DictConfig) -> Iterator[str]:
    found = {name: node for name, node in (raw.get("evals") or {}).items() if node.get("kind") == INSPECT}
    if raw.get("task") is not None and not found:
        yield "task: only an eval of kind inspect reads it, as in eval=[refusal,capability,inspect]"
    for name, node in found.items():
        if node.get("task") is None:
            yield f"evals.{name}.task: missing; name an Inspect task, e.g. task=FILE.py@TASK or task=PACKAGE/TASK"
        if node.get("rule") not in (None, INVERTED):
            yield f"evals.{name}.rule: {node.rule!r} is unknown; use {INVERTED}, or null"
        for key in ("variants", "prefill", "prompt"):
            if node.get(key):
                yield f"evals.{name}.{key}: an Inspect task writes its own prompts; leave this out"


def _judge_faults(raw: DictConfig) -> Iterator[str]:
    panel = raw.get("panel") or {}
    for key, node in {"judge": raw.judge, **{f"panel.{name}": node for name, node in panel.items()}}.items():
        name = key.partition(".")[2] or node.get("name")
        if name is not None and not _FILE_NAME.fullmatch(name):
            yield f"{key}: {name!r} is no name of letters, digits and _.-: it becomes a file name"
    files = {key: raw.judge.get(key) for key in ("input", "output")}
    if "judge" not in raw.stages:
        given = [key for key, value in files.items() if value is not None]
        yield from (f"judge.{key}: only stages=[judge] reads it" for key in given)
        return
    if list(raw.stages) != ["judge"]:
        yield "stages: judge stands alone, as in stages=[judge]: it labels a file and knows of no run"
    if panel:
        yield "panel: stages=[judge] asks one judge; name it with judge= and leave the panel out"
    missing = [key for key, value in files.items() if value is None]
    yield from (f"judge.{key}: missing; stages=[judge] needs it, e.g. judge.{key}=FILE.jsonl" for key in missing)


def _name_faults(raw: DictConfig) -> Iterator[str]:
    name = str(raw.name)
    if not _FILE_NAME.fullmatch(name) or len(name.encode()) > _MOST_BYTES:
        yield f"name: {name!r} is no name of up to 64 letters, digits and _.-: the run folder is called so"


def _run_faults(raw: DictConfig) -> Iterator[str]:
    if not raw.stages:
        yield f"stages: none is named; use some of {', '.join(STAGES)}"
    if not raw.seeds or len(set(raw.seeds)) != len(raw.seeds):
        yield f"seeds: {list(raw.seeds)} must be one or more different numbers"
    by_role = {name: node.get("role") for name, node in raw.get("evals", {}).items()}
    roles = list(by_role.values())
    # Inspect tasks alone have curves and no verdict: it is `inconclusive` and says why.
    bare = all(node.get("kind") == INSPECT for node in raw.get("evals", {}).values())
    for role in ("refusal", "capability"):
        if roles.count(role) != 1 and not (bare and roles.count(role) == 0):
            hint = _shown_hint(by_role, role)
            yield f"evals: {roles.count(role)} have role {role}; the verdict needs just one{hint}"


def _shown_hint(by_role: dict[str, str], role: str) -> str:
    named = [name for name, its in by_role.items() if its == role]
    return f": set evals.NAME.role=shown for all but one of {', '.join(named)}" if named else ""


def _arms_faults(raw: DictConfig) -> Iterator[str]:
    if not raw.get("arms"):
        yield "arms: none is chosen; e.g. arm=[compliance]"
    tables = set(raw.get("data", {}))
    for name, arm in raw.get("arms", {}).items():
        if not _ARM_NAME.fullmatch(name):
            yield f"arms.{name}: a name of letters, digits and _ is needed: it becomes a file name"
        yield from _arm_faults(f"arms.{name}", arm, tables)


def _review_and_budget_faults(raw: DictConfig) -> Iterator[str]:
    review, budget = raw.review, raw.budget
    if review.canaries < 1:
        yield "review.canaries: must be 1 or more: without them nothing proves that the served adapter acts"
    for key in ("refusal_threshold", "capability_retention", "confidence"):
        if not 0 < review[key] < 1 and not (key == "capability_retention" and review[key] == 1):
            yield f"review.{key}: {review[key]} must lie between 0 and 1"
    for key in ("device_seconds", "usd", "flops"):
        if budget.get(key) is not None and not 0 < budget[key] < math.inf:
            yield f"budget.{key}: {budget[key]} must be above 0 and finite; null is no cap"
    if budget.get("usd") is not None and budget.get("usd_per_device_hour") is None:
        yield "budget.usd_per_device_hour: needed for a cap in budget.usd"


def _organism_faults(raw: DictConfig) -> Iterator[str]:
    organism = raw.subject.get("organism") or {}
    hidden, heads = organism.get("hidden_size", 2), organism.get("heads", 1)
    if heads >= 1 and hidden % (2 * heads):  # a rotary embedding turns pairs
        yield f"subject.organism.hidden_size: {hidden} must be a multiple of {2 * heads}, twice the heads"


def _arm_faults(key: str, arm: Any, tables: set[str]) -> Iterator[str]:
    mix = arm.get("mix") or {}
    for table in mix:
        if table not in tables:
            yield f"{key}.mix.{table}: no such table in data; there are: {', '.join(sorted(tables)) or 'none'}"
    if not abs(sum(mix.values()) - 1.0) <= 1e-6 or any(share < 0 for share in mix.values()):
        yield f"{key}.mix: the shares {dict(mix)} must not be negative and must sum to 1"
    training = arm.get("training") or {}
    passes = training.get("gradient_accumulation", 1)
    if passes >= 1 and training.get("batch_size", 1) % passes:
        yield f"{key}.training.batch_size: must be a multiple of gradient_accumulation"


CHECKS: Final = (
    text_faults,
    blank_faults,
    _name_faults,
    _word_faults,
    _eval_faults,
    _inspect_faults,
    _judge_faults,
    _compare_faults,
    _gate_faults,
    _run_faults,
    _organism_faults,
    _arms_faults,
    _review_and_budget_faults,
    number_faults,
    review_faults,
    price_faults,
    contain_faults,
    cluster_faults,
    reproduce_faults,
    sweep_faults,
    gpu_faults,
)

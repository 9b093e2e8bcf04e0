"""From conf/ and the command line to a typed `Config`, with every fault of a configuration told at once."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import re
import types
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from evals import EVALS, RULES
from evals.judges import JUDGES
from pipeline.arms.ways import WAY_NAMES
from pipeline.config_cluster import cluster_faults
from pipeline.config_contain import contain_faults
from pipeline.config_gpu import gpu_faults
from pipeline.config_review import price_faults, reproduce_faults, review_faults
from pipeline.config_sweep import sweep_faults
from pipeline.errors import UserError
from pipeline.inspectai import INVERTED
from pipeline.inspectai import KIND as INSPECT
from pipeline.schema import STAGES, Config

PRECISIONS = ("float32", "bfloat16", "float16")
_ARM_NAME = re.compile(r"\w+")
_JUDGE_NAME = re.compile(r"\w[\w.-]{0,63}")
_OVERRIDE = re.compile(r"[A-Za-z_][\w.]*=.*", re.DOTALL)


def conf_folder() -> Path:
    """Return conf/: inside the package where Holdfast is installed, beside it in a checkout."""
    inside = Path(__file__).parent / "conf"
    return inside if inside.is_dir() else Path(__file__).parent.parent / "conf"


def register() -> None:
    """Make `schema` in conf/config.yaml stand for the types, so that Hydra checks every key."""
    ConfigStore.instance().store(name="schema", node=Config)


def check(arguments: Sequence[str]) -> None:
    """Compose the configuration without its types, then hold it against them and tell all faults in one error.

    Args:
        arguments: the command line; words that start with `-` are Hydra's own and passed over.

    Raises:
        UserError: one line for each unknown key, wrong type, missing value and impossible choice.
    """
    groups = {entry.name for entry in conf_folder().iterdir() if entry.is_dir()}
    overrides = [_forced(word, groups) for word in _overrides(arguments)]
    ConfigStore.instance().store(name="schema", node={})
    try:
        raw = _compose(overrides)
    finally:
        register()
    faults = [*_faults(raw, Config, ""), *_impossible(raw)]
    if faults:
        count = f"{len(faults)} faults" if len(faults) > 1 else "a fault"
        raise UserError(
            f"the configuration has {count}:" + "".join(f"\n  - {fault}" for fault in faults),
            "see every key with `holdfast --cfg job`, every type in pipeline/schema.py; nothing was run",
        )


def load(overrides: Sequence[str] = ()) -> Config:
    """Return the configuration that `holdfast OVERRIDES` uses.

    Raises:
        UserError: it has faults; see `check`.
    """
    check(overrides)
    return to_config(_compose(list(overrides)))


def to_config(composed: DictConfig) -> Config:
    """Turn what Hydra composed into dataclasses."""
    config = OmegaConf.to_object(composed)
    assert isinstance(config, Config)
    return config


def _compose(overrides: list[str]) -> DictConfig:
    assert not GlobalHydra.instance().is_initialized(), "compose is not called inside Hydra's own main"
    try:
        with initialize_config_dir(str(conf_folder().resolve()), version_base="1.3"):
            composed: DictConfig = compose("config", overrides=overrides)
            return composed
    except HydraException as error:
        cause = error.__cause__
        said = str(error) if cause is None or str(cause) in str(error) else f"{error}: {cause}"
        raise UserError(f"the configuration cannot be composed: {said.strip()}", "see `holdfast --help`") from None
    except OmegaConfBaseException as error:
        raise UserError(f"the configuration cannot be composed: {error}", "see `holdfast --cfg job`") from None


def _overrides(arguments: Sequence[str]) -> list[str]:
    """Return the overrides: neither Hydra's own options nor the bare word that follows one (`--cfg job`)."""
    pairs = zip(["", *arguments], arguments, strict=False)
    words = [(before, word) for before, word in pairs if not word.startswith("-")]
    return [word for before, word in words if "=" in word or "~" in word or not before.startswith("-")]


def _forced(word: str, groups: set[str]) -> str:
    """Make Hydra accept a key it does not know, so that `check` can tell all unknown keys together."""
    key = word.split("=", 1)[0]
    if not _OVERRIDE.fullmatch(word) or key in groups or key.startswith("hydra."):
        return word
    return f"++{word}"


def _faults(node: Any, kind: Any, key: str) -> Iterator[str]:
    """Yield what is wrong with `node`, which should be of type `kind`."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        if node is None:
            return
        yield from _faults(node, next(a for a in arguments if a is not type(None)), key)
    elif dataclasses.is_dataclass(kind):
        yield from _dataclass_faults(node, typing.cast(type, kind), key)
    elif origin is dict:
        if not isinstance(node, DictConfig):
            yield f"{key}: expected keys and values, found {node!r}"
            return
        for name in map(str, node):
            yield from _faults(_get(node, name), arguments[1], f"{key}.{name}")
    elif origin is list and dataclasses.is_dataclass(arguments[0]) and isinstance(node, ListConfig):
        for place in range(len(node)):
            yield from _faults(node[place], arguments[0], f"{key}[{place}]")
    elif kind is not Any:
        yield from _leaf_faults(node, kind, key)


def _dataclass_faults(node: Any, kind: type, key: str) -> Iterator[str]:
    if not isinstance(node, DictConfig):
        yield f"{key}: expected keys and values, found {node!r}"
        return
    hints = typing.get_type_hints(kind)
    for name in map(str, node):
        path = f"{key}.{name}".lstrip(".")
        if name not in hints:
            near = difflib.get_close_matches(name, hints, 1)
            yield f"{path}: unknown key" + (
                f"; did you mean {near[0]}?" if near else f"; known here: {', '.join(hints)}"
            )
        else:
            yield from _faults(_get(node, name), hints[name], path)
    named = set(map(str, node))  # `in node` is false for a key whose value is ???
    for field in dataclasses.fields(kind):
        if field.default == "???" and field.name not in named:
            yield f"{key}.{field.name}: missing; give it a value".lstrip(".")


def _get(node: DictConfig, name: str) -> Any:
    return "???" if OmegaConf.is_missing(node, name) else node[name]


def _leaf_faults(node: Any, kind: Any, key: str) -> Iterator[str]:
    """Let OmegaConf judge the value, as it will in earnest."""
    if isinstance(node, str) and node == "???":
        yield f"{key}: missing; give it a value, e.g. {key}=…"
        return
    probe = OmegaConf.structured(dataclasses.make_dataclass("Probe", [("value", kind)]))
    try:
        probe.value = node
    except OmegaConfBaseException:
        wanted = getattr(kind, "__name__", str(kind)) if not typing.get_args(kind) else str(kind)
        yield f"{key}: expected {wanted}, found {node!r}"


def _impossible(raw: DictConfig) -> Iterator[str]:
    """Yield choices that are well typed and make no sense; a check that trips over a wrong type is passed over."""
    for check_part in _CHECKS:
        with contextlib.suppress(TypeError, ValueError, AttributeError, OmegaConfBaseException):
            yield from check_part(raw)


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


def _name_faults(raw: DictConfig) -> Iterator[str]:
    for group, field, known in (("evals", "kind", (*EVALS, INSPECT)), ("arms", "way", WAY_NAMES)):
        for name, node in raw.get(group, {}).items():
            if node.get(field) not in (None, *known):
                yield f"{group}.{name}.{field}: {node[field]!r} is unknown; use one of {', '.join(known)}"
    for name, node in raw.get("evals", {}).items():
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
        if node.get("kind", "pattern") not in JUDGES:
            yield f"{key}.kind: {node.kind!r} is unknown; use one of {', '.join(JUDGES)}"
        name = key.partition(".")[2] or node.get("name")
        if name is not None and not _JUDGE_NAME.fullmatch(name):
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


def _run_faults(raw: DictConfig) -> Iterator[str]:
    if not raw.stages:
        yield f"stages: none is named; use some of {', '.join(STAGES)}"
    for stage in raw.stages:
        if stage not in STAGES:
            yield f"stages: {stage!r} is unknown; use some of {', '.join(STAGES)}"
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


def _number_faults(raw: DictConfig) -> Iterator[str]:
    review, budget = raw.review, raw.budget
    if review.canaries < 1:
        yield "review.canaries: must be 1 or more: without them nothing proves that the served adapter acts"
    if review.contamination not in ("refuse", "report"):
        yield f"review.contamination: {review.contamination!r} is unknown; use one of refuse, report"
    if not 0 < review.near_copy <= 1:
        yield f"review.near_copy: {review.near_copy} must be above 0 and at most 1"
    for key in ("refusal_threshold", "capability_retention", "confidence"):
        if not 0 < review[key] < 1 and not (key == "capability_retention" and review[key] == 1):
            yield f"review.{key}: {review[key]} must lie between 0 and 1"
    if not 0 <= budget.measure_reserve < 1:
        yield f"budget.measure_reserve: {budget.measure_reserve} must be at least 0 and below 1"
    for key in ("device_seconds", "usd", "flops"):
        if budget.get(key) is not None and budget[key] <= 0:
            yield f"budget.{key}: {budget[key]} must be above 0; null is no cap"
    if budget.get("usd") is not None and budget.get("usd_per_device_hour") is None:
        yield "budget.usd_per_device_hour: needed for a cap in budget.usd"


def _arm_faults(key: str, arm: Any, tables: set[str]) -> Iterator[str]:
    mix = arm.get("mix") or {}
    for table in mix:
        if table not in tables:
            yield f"{key}.mix.{table}: no such table in data; there are: {', '.join(sorted(tables)) or 'none'}"
    if abs(sum(mix.values()) - 1.0) > 1e-6 or any(share < 0 for share in mix.values()):
        yield f"{key}.mix: the shares {dict(mix)} must not be negative and must sum to 1"
    training = arm.get("training") or {}
    if training.get("max_steps", 1) < 1:
        yield f"{key}.training.max_steps: must be 1 or more"
    if training.get("batch_size", 1) % training.get("gradient_accumulation", 1):
        yield f"{key}.training.batch_size: must be a multiple of gradient_accumulation"
    if training.get("precision", "float32") not in PRECISIONS:
        yield f"{key}.training.precision: {training['precision']!r} is unknown; use one of {', '.join(PRECISIONS)}"


_CHECKS = (
    _name_faults,
    _inspect_faults,
    _judge_faults,
    _compare_faults,
    _gate_faults,
    _run_faults,
    _arms_faults,
    _number_faults,
    review_faults,
    price_faults,
    contain_faults,
    cluster_faults,
    reproduce_faults,
    sweep_faults,
    gpu_faults,
)

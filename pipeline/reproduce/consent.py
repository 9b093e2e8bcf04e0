"""What a run of somebody else may not decide for whoever runs it again: where texts and keys go, and whose code runs.

A plan.json names addresses, files and options. On the machine where it was made they were its user's own choices, told
on a command line and checked; here they are input. So all checks of a configuration run on it, and what could send
something away or run code must be told once more, by `reproduce.change` or beside `run.again`.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pipeline.config.checks import CHECKS
from pipeline.errors import UserError
from pipeline.inspectai import KIND as INSPECT
from pipeline.reproduce.line import quoted
from pipeline.schema import Config, JudgeConfig, TableConfig

_NAME: Final = re.compile(r"\w[\w.-]*")
_AWAY: Final = ("base_url", "allow_remote", "api_key_env")  # of a judge that is a language model


def check(config: Config, change: Mapping[str, Any], plan: Path, prefix: str = "+reproduce.change.") -> None:
    """Make sure that a configuration from a plan makes sense, and that what reaches beyond it was told here too.

    Args:
        config: as it would run, `change` in it.
        change: of this command.
        plan: the plan's file, for errors.
        prefix: what stands before a key on the command line that changes it.

    Raises:
        UserError: a check of configurations found a fault, a name is no plain one, or a choice was not told here.
    """
    faults = _faults(config)
    if faults:
        raise UserError(
            f"{plan}: its configuration cannot be run here:"
            + "".join(f"\n  - {_printable(fault)}" for fault in faults),
            f"with {prefix}KEY=VALUE change what belongs to this machine; nothing was run",
        )
    untold = {key: value for key, value in _reaching(config) if not _told(change, key)}
    if untold:
        words = " ".join(shlex.quote(f"{prefix}{key}={_hydra(value)}") for key, value in untold.items())
        raise UserError(
            f"{plan}: it sends texts or keys away, or runs code or options that are not Holdfast's:"
            + "".join(f"\n  - {key}: {_hydra(value)}" for key, value in untold.items()),
            f"if you trust each of these, say so: {words}; nothing was run",
        )


def taken_over(config: Config) -> list[tuple[str, str]]:
    """Return what the plan decides of this machine, as key and value in words: what is read, what may be spent."""
    budget = {key: value for key, value in asdict(config.budget).items() if value is not None}
    caps = [f"{key}={budget[key]:g}" for key in ("device_seconds", "usd", "flops") if key in budget]
    tables = {f"data.{name}": table for name, table in config.data.items()}
    tables |= {f"evals.{name}": spec.table for name, spec in config.evals.items() if spec.kind != INSPECT}
    tables |= {f"evals.{name}.prompt.shots": shots for name, shots in _shots(config).items()}
    for name, arm in config.arms.items():
        if arm.sweep is not None:
            tables |= {f"arms.{name}.sweep.{role}": getattr(arm.sweep, role) for role in ("refusal", "capability")}
    template = config.subject.chat_template
    judges = {key: judge.llm.path or judge.llm.model for key, judge in _judges(config).items() if judge.llm is not None}
    return [
        ("subject", _at(config.subject.path, config.subject.revision)),
        *([("subject.chat_template", _printable(template))] if template else []),
        *((key, _at(table.path, table.revision)) for key, table in tables.items()),
        *((f"{key}.llm", _printable(model)) for key, model in judges.items()),
        *((key, _hydra(value)) for key, value in _reaching(config)),
        ("budget", ", ".join(caps) or "no cap"),
        ("adapters", "kept, encrypted" if config.contain.keep else "destroyed once they are measured"),
    ]


def _shots(config: Config) -> dict[str, TableConfig]:
    prompts = {name: spec.prompt for name, spec in config.evals.items()}
    return {name: prompt.shots for name, prompt in prompts.items() if prompt is not None and prompt.shots is not None}


def _at(place: str, revision: str | None) -> str:
    return _printable(place if revision is None else f"{place} at {revision}")


def _printable(text: str) -> str:
    """Return a text of somebody else without what a terminal would act on."""
    return "".join(sign if sign.isprintable() else "\ufffd" for sign in text)


def _judges(config: Config) -> dict[str, JudgeConfig]:
    return {"judge": config.judge, **{f"panel.{name}": judge for name, judge in config.panel.items()}}


def _faults(config: Config) -> list[str]:
    raw: DictConfig = OmegaConf.create(inert(asdict(config)))
    ways = {f"evals.{name}": (name, *spec.variants) for name, spec in config.evals.items()}
    names = [
        f"{key}: {name!r} is no name of letters, digits and _.-: it becomes a file name"
        for key, found in ways.items()
        for name in found
        if not _NAME.fullmatch(name)
    ]
    try:
        return names + [fault for part in CHECKS for fault in part(raw)]
    except OmegaConfBaseException as error:  # a value is missing
        return [*names, str(error)]


def inert(value: Any) -> Any:
    """Return a copy in which no text is an interpolation: what is checked is what runs, and nothing is looked up."""
    if isinstance(value, dict):
        return {key: inert(each) for key, each in value.items()}
    if isinstance(value, list):
        return [inert(each) for each in value]
    return value.replace("${", "$(") if isinstance(value, str) else value


def _reaching(config: Config) -> Iterator[tuple[str, Any]]:
    """Yield each choice, by its key, that reaches beyond this process, or brings code or options of others."""
    for key, judge in _judges(config).items():
        for option in _AWAY if judge.llm is not None else ():
            if value := getattr(judge.llm, option):
                yield f"{key}.llm.{option}", value
    if config.serve.extra_args:
        yield "serve.extra_args", config.serve.extra_args
    for name, spec in config.evals.items():
        if spec.kind == INSPECT:
            yield f"evals.{name}.task", spec.task
    if "/" in (config.subject.attention or ""):  # transformers fetches such a kernel from the Hub, and loads it
        yield "subject.attention", config.subject.attention
    track = config.track
    online = track.kind == "wandb" and track.mode == "online"
    if online:
        yield "track.mode", track.mode
    if track.entity and (online or ("publish" in config.stages and not config.publish.entity)):
        yield "track.entity", track.entity


def _told(change: Mapping[str, Any], key: str) -> bool:
    node: Any = change
    for part in key.split("."):
        if not isinstance(node, Mapping) or part not in node:
            return False
        node = node[part]
    return True


def _hydra(value: Any) -> str:
    """Return a value as an override writes it."""
    if isinstance(value, list):
        return f"[{','.join(map(_hydra, value))}]"
    return str(value).lower() if isinstance(value, bool) else quoted(_printable(str(value)))

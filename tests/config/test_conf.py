"""conf/ is where a newcomer finds every choice: each key of the types stands there, with what it means beside it."""

from __future__ import annotations

import dataclasses
import re
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from evals.degenerate import DEFAULT_MAX_REPEAT
from pipeline.config.compose import conf_folder
from pipeline.schema import Config
from pipeline.schema.judge import REASONING_TAGS

FILES = sorted(conf_folder().rglob("*.yaml"))
NOT_IN_A_FILE = {
    *(("ClusterConfig", "job"), ("ClusterConfig", "task")),  # written by the scripts in slurm/, not by people
    ("SweepConfig", "judge"),  # a file of conf/judge, named in the defaults
}
PLAIN = {"account", "qos", "cpus"}  # Slurm's own words
SHARED = {"arm/_lora": ["arms", "any"], "judge/_llm": ["judge", "llm"]}  # what several files of a group name
PACKAGE = re.compile(r"# @package (\S+)")


def place(file: Path) -> list[str]:
    """Return where the content of a file goes, as names from the top."""
    told = PACKAGE.search(file.read_text())
    if told:
        return [] if told[1] == "_global_" else told[1].split(".")
    if file.parent == conf_folder():
        return []
    return SHARED.get(f"{file.parent.name}/{file.stem}", [file.parent.name])


def written(node: Any, kind: Any) -> Iterator[tuple[str, str]]:
    """Yield (name of the dataclass, name of the field) of everything that is written below a type."""
    if type(None) in typing.get_args(kind):
        kind = next(each for each in typing.get_args(kind) if each is not type(None))
    if dataclasses.is_dataclass(kind) and isinstance(node, dict):
        hints = typing.get_type_hints(kind)
        for name, value in node.items():
            if name in hints:
                yield getattr(kind, "__name__", ""), str(name)
                yield from written(value, hints[name])
    elif typing.get_origin(kind) is dict and isinstance(node, dict):
        for value in node.values():
            yield from written(value, typing.get_args(kind)[1])
    elif typing.get_origin(kind) is list and isinstance(node, list):
        for value in node:
            yield from written(value, typing.get_args(kind)[0])


def fields(kind: Any = Config, *, leaves: bool = False) -> Iterator[tuple[str, str]]:
    """Yield (name of the dataclass, name of the field) of everything below a type, or of its leaves alone."""
    for inner in typing.get_args(kind):
        yield from fields(inner, leaves=leaves)
    if dataclasses.is_dataclass(kind):
        for name, hint in typing.get_type_hints(kind).items():
            below = list(fields(hint, leaves=leaves))
            if not (leaves and below):
                yield getattr(kind, "__name__", ""), name
            yield from below


def test_every_key_of_the_types_stands_in_conf() -> None:
    found: set[tuple[str, str]] = set()
    for file in FILES:
        node = OmegaConf.to_container(OmegaConf.load(file))
        for name in reversed(place(file)):
            node = {name: node}
        found |= set(written(node, Config))
    wanted = set(fields()) - NOT_IN_A_FILE
    assert len(wanted) > 180
    assert len(FILES) > 50
    assert sorted(wanted - found) == []


def test_every_key_is_explained_somewhere() -> None:
    explained: set[str] = set()
    for file in FILES:
        before = ""
        for line in file.read_text().splitlines():
            if " #" in line or before.lstrip().startswith("#"):
                explained |= set(re.findall(r"(\w+):(?= |$)", line.partition(" #")[0]))
            before = line
    wanted = {name for _, name in set(fields(leaves=True)) - NOT_IN_A_FILE}
    assert len(wanted) > 140
    assert sorted(wanted - explained - PLAIN) == []


@pytest.mark.parametrize("name", ["local", "pattern"])
def test_what_a_judge_file_repeats_is_what_the_code_has(name: str) -> None:
    node = OmegaConf.load(conf_folder() / "judge" / f"{name}.yaml")
    assert node.max_repeat == DEFAULT_MAX_REPEAT
    assert tuple(node.reasoning) == REASONING_TAGS

"""What was composed, held against the types of pipeline/schema/: unknown keys, wrong types, missing values."""

from __future__ import annotations

import dataclasses
import functools
import typing
from collections.abc import Iterator
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pipeline.config.kinds import bare, hints, optional
from pipeline.config.words import near


def faults_of(node: Any, kind: Any, key: str) -> Iterator[str]:
    """Yield what is wrong with `node`, which should be of type `kind`."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if optional(kind):
        if node is None:
            return
        yield from faults_of(node, bare(kind), key)
    elif dataclasses.is_dataclass(kind):
        yield from _dataclass_faults(node, typing.cast(type, kind), key)
    elif origin is dict:
        if not isinstance(node, DictConfig):
            yield f"{key}: expected keys and values, found {node!r}"
            return
        for name in map(str, node):
            yield from faults_of(_get(node, name), arguments[1], f"{key}.{name}")
    elif origin is list and dataclasses.is_dataclass(arguments[0]) and isinstance(node, ListConfig):
        for place in range(len(node)):
            yield from faults_of(node[place], arguments[0], f"{key}[{place}]")
    elif origin is list and isinstance(node, ListConfig) and arguments[0] is not Any and (inner := _containers(node)):
        yield f"{key}: expected {kind}, found {inner[0]!r} within"  # which OmegaConf would take for any list
    elif kind is not Any:
        yield from _leaf_faults(node, kind, key)


def _containers(node: ListConfig) -> list[Any]:
    return [entry for entry in node if isinstance(entry, DictConfig | ListConfig)]


def _dataclass_faults(node: Any, kind: type, key: str) -> Iterator[str]:
    if not isinstance(node, DictConfig):
        yield f"{key}: expected keys and values, found {node!r}"
        return
    fields = hints(kind)
    for name in map(str, node):
        path = f"{key}.{name}".lstrip(".")
        if name not in fields:
            yield f"{path}: unknown key; {near(name, list(fields))}"
        else:
            yield from faults_of(_get(node, name), fields[name], path)
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
    probe = _probe(kind)
    try:
        probe.value = node
    except OmegaConfBaseException:
        wanted = getattr(kind, "__name__", str(kind)) if not typing.get_args(kind) else str(kind)
        yield f"{key}: expected {wanted}, found {node!r}"


@functools.cache
def _probe(kind: Any) -> Any:
    return OmegaConf.structured(dataclasses.make_dataclass("Probe", [("value", kind)]))

"""The types of the configuration, walked by key."""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from typing import Any

from pipeline.schema import Config


def optional(kind: Any) -> bool:
    """Say whether `kind` is X | None."""
    return typing.get_origin(kind) in (typing.Union, types.UnionType)


def bare(kind: Any) -> Any:
    """Return X of `X | None`, and any other type as it is."""
    if not optional(kind):
        return kind
    return next(each for each in typing.get_args(kind) if each is not type(None))


@functools.cache
def hints(kind: type) -> dict[str, Any]:
    """Return the fields of a dataclass with their types."""
    return typing.get_type_hints(kind)  # compiles each annotation at each call


def is_text(key: str) -> bool:
    """Say whether a key such as `data.benign.path` takes text."""
    kind: Any = Config
    for part in key.split("."):
        kind = bare(kind)
        if dataclasses.is_dataclass(kind):
            kind = hints(typing.cast(type, kind)).get(part)
        elif typing.get_origin(kind) is dict:
            kind = typing.get_args(kind)[1]
        else:
            return False
    return bare(kind) is str

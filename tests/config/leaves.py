"""Every key of the configuration by its types, with `*` for a name that the user gives."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterator
from typing import Any

from pipeline.schema import Config


def leaves(kind: Any = Config, key: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (key, type) of everything below a type; the type of a list is that of its entries, null left out."""
    if type(None) in typing.get_args(kind):
        kind = next(each for each in typing.get_args(kind) if each is not type(None))
    if dataclasses.is_dataclass(kind):
        for name, hint in typing.get_type_hints(kind).items():
            yield from leaves(hint, f"{key}.{name}".lstrip("."))
    elif typing.get_origin(kind) is dict:
        yield from leaves(typing.get_args(kind)[1], f"{key}.*")
    elif typing.get_origin(kind) is list:
        yield from leaves(typing.get_args(kind)[0], key)
    else:
        yield key, kind

"""Puts ours in place of a function of vLLM's, in the server's process only, where this vLLM has it."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from types import ModuleType
from typing import Any


def has(module: str, name: str) -> bool:
    """Say whether this vLLM has a function."""
    return hasattr(_module(module), name)


def replace(module: str, name: str, make: Callable[[Any], Any]) -> bool:
    """Put what `make` makes of a module's function in its place; False, and nothing done, where there is none."""
    if not has(module, name):
        return False
    found = _module(module)
    setattr(found, name, make(getattr(found, name)))
    return True


def _module(name: str) -> ModuleType | None:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None

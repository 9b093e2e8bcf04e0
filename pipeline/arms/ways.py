"""Names of the ways of stressing, apart from their code, which needs torch: a configuration is checked without it."""

from __future__ import annotations

from importlib import import_module
from typing import Final, cast

from pipeline.arms.base import Arm

_MODULES: Final = {"lora": "pipeline.arms.lora"}
WAY_NAMES: Final = tuple(_MODULES)


def find(name: str) -> Arm:
    """Return the arm that climbs by way `name` (one of `WAY_NAMES`)."""
    return cast(Arm, import_module(_MODULES[name]).climb)

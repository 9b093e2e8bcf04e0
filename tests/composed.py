"""Compositions that tests share: files and groups are read once, then each test's own values are applied by Hydra.

500 tests compose a configuration, most of them from the same files with other values; reading and merging 28 files anew
was an eighth of all their processor time. That both compose alike is tested (`test_config.py`); what cannot be composed
is composed in full, as is what another conf/ holds.
"""

from __future__ import annotations

import functools
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from pipeline.config import compose as config

Compose = Callable[[list[str]], DictConfig]


def kept(compose: Compose) -> Compose:
    """Return a `config.compose._compose` that keeps what files and groups yield, and applies `++key=value` to a copy.

    Such a word changes no default, so the order is Hydra's own: all files first, then the values from left to right.
    """

    @functools.cache
    def of_files(groups: tuple[str, ...], _folder: Path, _typed: bool) -> bytes:
        return pickle.dumps(compose(list(groups)))

    @functools.wraps(compose)
    def composed(words: list[str]) -> DictConfig:
        groups = tuple(word for word in words if not word.startswith("++"))
        values = [word for word in words if word.startswith("++")]
        if any(word.startswith(("+", "~")) or word.startswith("hydra") for word in groups):
            return compose(words)
        try:
            typed = bool(ConfigStore.instance().load("schema.yaml").node)
            made: Any = pickle.loads(of_files(groups, config.conf_folder(), typed))
            ConfigLoaderImpl._apply_overrides_to_config(OverridesParser.create().parse_overrides(values), made)
        except (HydraException, OmegaConfBaseException, TypeError, ValueError):
            return compose(words)  # says what is wrong as a user sees it
        assert isinstance(made, DictConfig)
        return made

    return composed

"""Arms and evals that an experiment only tunes: where the file that makes one was not chosen, there is none to tune."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

# Where entries stand: the group whose files make them, and what each of these files gives.
_GROUPS: Final = {"arms": ("arm", {"threat", "mix"}), "evals": ("eval", {"kind", "role", "table"})}
_PACKAGE: Final = re.compile(r"# @package (\S+)")


def drop_unchosen(raw: DictConfig, words: Sequence[str], conf: Path) -> tuple[list[str], list[str]]:
    """Take out of `raw` what an experiment sets for arms and evals whose files were not chosen.

    An entry stays where it is whole, or where no file of the group could have made it: then it may be one that was
    meant to be, and what it lacks is told.

    Returns:
        the keys that were taken out, and a fault for each of them that the command line sets something in.
    """
    half = [key for place in _GROUPS for key in _half(raw, place)]
    if not half:  # and nearly always there is none: the defaults need not be listed anew
        return [], []
    made = _made(words, conf)
    left = [key for key in half if key not in made and key in _makeable(conf, _GROUPS[key.split(".")[0]][0])]
    faults = []
    for key in left:
        place, _, name = key.partition(".")
        OmegaConf.set_struct(raw, False)
        del raw[place][name]
        typed = (word.partition("=")[0].lstrip("+") for word in words)
        faults += [
            f"{one}: {key} is not chosen; name it with {_GROUPS[place][0]}=[…], or leave this out"
            for one in typed
            if f"{one}.".startswith(f"{key}.")
        ]
    return left, faults


def _half(raw: DictConfig, place: str) -> Iterator[str]:
    entries: Any = raw.get(place)
    for name in map(str, entries) if isinstance(entries, DictConfig) else ():
        given = None if OmegaConf.is_missing(entries, name) else entries.get(name)
        if isinstance(given, DictConfig) and not _GROUPS[place][1] <= set(map(str, given)):
            yield f"{place}.{name}"


def _made(words: Sequence[str], conf: Path) -> set[str]:
    """Return the packages of the chosen files, e.g. arms.compliance."""
    with initialize_config_dir(str(conf.resolve()), version_base="1.3"):
        hydra = GlobalHydra.instance().hydra
        assert hydra is not None
        defaults = hydra.config_loader.compute_defaults_list("config", list(words), RunMode.RUN).defaults
    return {one.package for one in defaults if one.package}


def _makeable(conf: Path, group: str) -> set[str]:
    told = (_PACKAGE.search(file.read_text(encoding="utf-8")) for file in (conf / group).glob("*.yaml"))
    return {match[1] for match in told if match}

"""The groups of conf/ (judge, eval, …), and the words of a command line that choose from them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from hydra.core.override_parser.types import Override, QuotedString

from pipeline.config.words import listed, near, parsed

_OWN_FOLDERS: Final = "hydra.searchpath"  # with it, choices may lie elsewhere, too


def groups(conf: Path) -> set[str]:
    """Return the groups: the folders of conf/."""
    return {entry.name for entry in conf.iterdir() if entry.is_dir()}


def unknown(words: Sequence[str], conf: Path) -> list[str]:
    """Return what is wrong with words that choose what is not there, all of which Hydra can read.

    Hydra itself stops at the first, tells it in ten lines, or with a traceback where the value is no text.
    """
    if any(word.lstrip("+").startswith(_OWN_FOLDERS) for word in words):
        return []
    there = groups(conf)
    given = [each for word in words if (each := parsed(word)) is not None and each.key_or_group in there]
    return [fault for each in given for fault in _faults(each, conf)]


def _faults(given: Override, conf: Path) -> Iterator[str]:
    group, value = given.key_or_group, given.value()
    if given.is_delete():
        if given.value_type is not None and not isinstance(value, str | QuotedString):
            yield f"~{group}: {_shown(value)} is the name of no choice; write ~{group} alone"
        return
    if isinstance(value, Mapping):
        return  # keys within the group, not a choice
    files = _files(conf / group)
    choices = sorted(name for name in files if not name.rpartition("/")[2].startswith("_"))  # _: a part of others
    for name in value if isinstance(value, list) else [value]:
        text = name.text if isinstance(name, QuotedString) else name
        if not isinstance(text, str):
            yield f"{group}: {_shown(text)} is the name of no choice; {listed(choices)}" + (
                f"; to do without, write ~{group}" if text is None and group == "experiment" else ""
            )
        elif text.removesuffix(".yaml") not in files:
            yield f"{group}: there is no choice {text!r}; {near(text, choices)}"


def _files(group: Path) -> set[str]:
    return {path.relative_to(group).with_suffix("").as_posix() for path in group.rglob("*.yaml")}


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_shown, value))}]"
    return value if isinstance(value, str) else json.dumps(value, default=str)

"""The groups of conf/ (judge, eval, …), and the words of a command line that choose from them."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, QuotedString

_OWN_FOLDERS = "hydra.searchpath"  # with it, choices may lie elsewhere, too


def groups(conf: Path) -> set[str]:
    """Return the groups: the folders of conf/."""
    return {entry.name for entry in conf.iterdir() if entry.is_dir()}


def choices(conf: Path, group: str) -> list[str]:
    """Return what can be chosen from a group; a file whose name begins with _ is a part of others."""
    return sorted(name for name in _files(conf, group) if not name.rpartition("/")[2].startswith("_"))


def _files(conf: Path, group: str) -> set[str]:
    folder = conf / group
    return {path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.yaml")}


def unknown(words: Sequence[str], conf: Path) -> list[str]:
    """Return what is wrong with words that choose what is not there, all of which Hydra can read.

    Hydra itself stops at the first, tells it in ten lines, or with a traceback where the value is no text.
    """
    if any(word.lstrip("+").startswith(_OWN_FOLDERS) for word in words):
        return []
    there = groups(conf)
    given = [each for each in OverridesParser.create().parse_overrides(list(words)) if each.key_or_group in there]
    return [fault for each in given for fault in (_left_out if each.is_delete() else _faults)(each, conf)]


def _faults(given: Override, conf: Path) -> Iterator[str]:
    group, value = given.key_or_group, given.value()
    if isinstance(value, Mapping):
        return  # keys within the group, not a choice
    for name in value if isinstance(value, list) else [value]:
        text = name.text if isinstance(name, QuotedString) else name
        known = choices(conf, group)
        if not isinstance(text, str):
            yield f"{group}: {_shown(text)} is the name of no choice; {_listed(known)}" + (
                f"; to do without, write ~{group}" if text is None and group == "experiment" else ""
            )
        elif text.removesuffix(".yaml") not in _files(conf, group):
            near = difflib.get_close_matches(text, known, 1)
            yield f"{group}: there is no choice {text!r}; " + (f"did you mean {near[0]}?" if near else _listed(known))


def _left_out(given: Override, _: Path) -> Iterator[str]:
    group, value = given.key_or_group, given.value()
    if given.value_type is not None and not isinstance(value, str | QuotedString):
        yield f"~{group}: {_shown(value)} is the name of no choice; write ~{group} alone"


def _listed(known: Sequence[str]) -> str:
    return f"known here: {', '.join(known)}"


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_shown, value))}]"
    return value if isinstance(value, str) else json.dumps(value, default=str)

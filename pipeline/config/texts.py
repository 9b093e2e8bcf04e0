"""Texts of the configuration that say nothing, or that a terminal or a page would act on instead of showing them."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from typing import Any, Final

from omegaconf import DictConfig, ListConfig, OmegaConf

from pipeline.config.numbers import values_at

_LINES: Final = "\n\t"  # of a system prompt or a judge's template
_TURNS: Final = {*map(chr, range(0x202A, 0x202F)), *map(chr, range(0x2066, 0x206A))}  # of a text's direction, UAX 9
# Names and paths of which nothing would mean something else: the current folder, a file without a name. `name`, who
# asks for a review, and the runs that a lone stage works on are looked at by checks of their own.
_NAMED: Final = (
    *("subject.name", "subject.path", "subject.chat_template", "run.root", "run.dir", "run.benchmarks", "task"),
    *("data.*.path", "evals.*.table.path", "evals.*.prompt.shots.path"),
    *("arms.*.sweep.refusal.path", "arms.*.sweep.capability.path"),
    *("judge.input", "judge.output", "compare.runs", "compare.output", "plan.output", "reproduce.output"),
    *("contain.recipients", "publish.compare"),
)


def blank_faults(raw: DictConfig) -> Iterator[str]:
    """Yield a line for each path or name that is empty, as `subject.path=$UNSET` makes it."""
    for key in _NAMED:
        for place, value in values_at(raw, key):
            if isinstance(value, str) and not value.strip():
                yield f"{place}: empty; give it a value, or leave it out (an unset shell variable leaves nothing)"


def text_faults(raw: DictConfig) -> Iterator[str]:
    """Yield a line for each text or name with control characters or turns of direction: such a name can show as
    another, in a terminal, a report or a protocol."""
    for key, text in _texts(raw, ""):
        signs = sorted({f"U+{ord(sign):04X}" for sign in text if _acts(sign)})
        if signs:
            yield f"{key}: holds {', '.join(signs)}, which a terminal or a page acts on; leave it out"


def _acts(sign: str) -> bool:
    return sign in _TURNS or (unicodedata.category(sign) == "Cc" and sign not in _LINES)


def _texts(node: Any, place: str) -> Iterator[tuple[str, str]]:
    if isinstance(node, DictConfig):
        for key in map(str, node):
            at = f"{place}.{key}".lstrip(".")
            if any(map(_acts, key)):
                yield f"{place or 'a key'}: {key!r}", key
            elif not OmegaConf.is_missing(node, key):
                yield from _texts(node.get(key), at)
    elif isinstance(node, ListConfig):
        for entry in node:
            yield from _texts(entry, place)
    elif isinstance(node, str):
        yield place, node

"""Texts of the configuration that a terminal or a page would act on instead of showing them."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from typing import Any, Final

from omegaconf import DictConfig, ListConfig, OmegaConf

_LINES: Final = "\n\t"  # of a system prompt or a judge's template
_TURNS: Final = {*map(chr, range(0x202A, 0x202F)), *map(chr, range(0x2066, 0x206A))}  # of a text's direction, UAX 9


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

"""The words of a command line, each read alone: a value that Hydra's language has no place for is text as typed."""

from __future__ import annotations

import difflib
import functools
import re
import shlex
from collections.abc import Sequence
from typing import Final

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Override, Quote, QuotedString
from hydra.errors import HydraException

from pipeline.config.kinds import is_text

_WORD: Final = re.compile(r"(?P<key>\+{0,2}[A-Za-z_][^=\s]*)=(?P<value>.*)", re.DOTALL)
_MEANT: Final = ("'", '"', "[", "{")  # who begins so writes Hydra's language, with a slip in it


def overrides(arguments: Sequence[str]) -> list[str]:
    """Return the overrides: neither Hydra's own options nor the bare word that follows one (`--cfg job`)."""
    pairs = zip(["", *arguments], arguments, strict=False)
    words = [(before, word) for before, word in pairs if not word.startswith("-")]
    return [word for before, word in words if "=" in word or "~" in word or not before.startswith("-")]


def readable(arguments: Sequence[str], *, sweeps: bool = False) -> list[str]:
    """Return a command line with the quotes that Hydra wants around plain text, e.g. name=модель or path=~/model.

    A comma and a blank in text are text too, unless `sweeps` (-m), where they part values.
    """
    return [_quoted(word) if _is_plain_text(word, sweeps) else word for word in arguments]


def unread(words: Sequence[str], *, sweeps: bool = False) -> dict[str, str]:
    """Return what is wrong with each word that cannot be read even so; references (`${…}`) are not looked into."""
    return {word: fault for word in words if (fault := _fault(word, sweeps)) is not None}


def near(name: str, known: Sequence[str]) -> str:
    """Return what may have been meant by a name that is not among those known, else which are."""
    close = difflib.get_close_matches(name, known, 1)
    return f"did you mean {close[0]}?" if close else listed(known)


def listed(known: Sequence[str]) -> str:
    """Return what is known, to be told."""
    return f"known here: {', '.join(known)}"


def _is_plain_text(word: str, sweeps: bool) -> bool:
    match = _WORD.fullmatch(word)
    if match is None or match["value"].lstrip().startswith(_MEANT):
        return False
    found = parsed(word)
    if found is None:
        return parsed(_quoted(word)) is not None
    listed = isinstance(found.value(), ChoiceSweep) and not re.match(r"\w+\(", match["value"])
    return listed and not sweeps and ", " in match["value"] and is_text(match["key"].lstrip("+"))


def _fault(word: str, sweeps: bool) -> str | None:
    found, match = parsed(word), _WORD.fullmatch(word)
    if found is not None and (sweeps or not found.is_sweep_override()):
        return None
    if match is None:
        return f"{word}: not key=value; quote a value with blanks for the shell, as in 'review.owner=My Lab'"
    key, value = match["key"].lstrip("+"), match["value"]
    if found is not None:
        one = f"{shlex.quote(_quoted(word))} as one text" if is_text(key) else f"{match['key']}=[{value}] as a list"
        return f"{key}: {value} are several values, which only -m runs, one after the other; write {one}"
    if value.lstrip().startswith(("[", "{")):
        return f'{key}: {value} cannot be read; close what is opened and quote texts in it, as in \'{key}=["a b","c"]\''
    if parsed(_quoted(word)) is not None:
        return f"{key}: {value} cannot be read; as text it is {shlex.quote(_quoted(word))}"
    return f"{key}: no key is written so"


def _quoted(word: str) -> str:
    key, _, value = word.partition("=")
    return f"{key}={QuotedString(value, Quote.double).with_quotes()}"


@functools.lru_cache(maxsize=1024)
def parsed(word: str) -> Override | None:
    """Return a word as Hydra reads it, None where it cannot."""
    try:
        return _parser().parse_overrides([word])[0]
    except HydraException:
        return None


@functools.cache
def _parser() -> OverridesParser:
    return OverridesParser.create()

"""What may enter a W&B run: numbers, words from known places, hashes; never prompts, replies or paths.

Every rule here allows; what no rule allows becomes `REDACTED`. Pure functions, no I/O.
"""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any, Final

import numpy as np

REDACTED: Final = "redacted"

# Settings whose value is a word that this project or a library defines, or a name that the user gave.
_WORD_KEYS: Final = frozenset(
    (
        *("name", "kind", "way", "role", "mode", "split", "arm", "eval", "metric", "stage", "stages"),
        *("status", "verdict", "reason", "dtype", "precision", "schedule", "optimizer", "device"),
        *("project", "version", "schema", "direction", "target_modules", "stopped_by", "worst_arm", "contamination"),
    )
)
# Sentences written for the reader of a verdict: they are there to be shown.
_SENTENCE_KEYS: Final = frozenset({"threat", "threat_model"})
_HASH_KEY: Final = re.compile(r"(^|_)(sha256|digest|revision|commit|hash)$")
_VERSION_PARENTS: Final = frozenset({"versions", "packages"})
_SUMMARY_WORDS: Final = frozenset({"verdict", "status", "reason", "stopped_by", "threat", "threat_model"})
# What is not as registered, post_hoc/<key>/<option>/planned and .../used: both values are shown, or that they are not.
_POST_HOC: Final = re.compile(r"post_hoc/(?:.+/)?(?P<option>[^/]+)/(?:planned|used)(?:/(?P<part>[^/]+))?")

_WORD: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+:-]{0,63}")
_HEX: Final = re.compile(r"[0-9a-f]{7,64}")
_VERSION: Final = re.compile(r"v?\d+(\.\d+)*[A-Za-z0-9.+-]{0,24}")
_HUB_ID: Final = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
# A path, with a word after a space where a slash follows it: folders have names such as "Jane Doe".
_PATH: Final = re.compile(
    r"(?<![\w<>/.~-])(?:file:/|~[\w.-]*/|\.{0,2}/|[A-Za-z]:\\|\\\\)[^\s'\",;<>]+"
    r"(?: [^\s'\",;<>/\\~]+[/\\][^\s'\",;<>]*)*"
)
_KEY: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@/%+-]{0,95}")
_TOKEN_IDS: Final = re.compile(r"(^|_)(token_ids|input_ids|prompt_ids|ids)$")
_LONGEST_LIST: Final = 64
_LONGEST_TEXT: Final = 500
# Parts of a plotly trace that hold what is shown on hovering, or data of the author's own.
_FIGURE_DROPPED: Final = frozenset(
    (
        *("customdata", "customdatasrc", "hovertext", "hovertemplate", "ids", "idssrc", "meta"),
        *("metasrc", "texttemplate", "images", "source", "uid", "uirevision", "cells", "header"),
    )
)


def slug(text: str, longest: int = 64) -> str:
    """Return `text` with everything but letters, digits and `_.-` turned into `-`, cut to `longest`."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", str(text)).strip("-.")[:longest] or "unnamed"


def numbers(values: Mapping[str, Any], prefix: str) -> dict[str, float]:
    """Return the finite numbers of `values` as `prefix/key`, without text, NaN ("no data") and odd keys."""
    kept: dict[str, float] = {}
    for key, value in values.items():
        number = _number(value)
        if number is not None and _KEY.fullmatch(str(key)):
            kept[f"{prefix}/{key}"] = number
    return kept


def without_paths(text: str) -> str:
    """Return words that were written to be shown, with paths replaced, cut to 500 characters."""
    return _PATH.sub(REDACTED, text)[:_LONGEST_TEXT]


def summary_values(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten a verdict to `a/b` keys: finite numbers, booleans, hashes, and words under the known keys."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        if not _KEY.fullmatch(name):
            continue
        if isinstance(value, Mapping):
            flat |= summary_values(value, f"{name}/")
        elif isinstance(value, bool):
            flat[name] = value
        elif (number := _number(value)) is not None:
            flat[name] = number
        elif isinstance(value, str) and (found := _POST_HOC.fullmatch(name)):
            flat[name] = value if value == "null" else _text(found["part"] or found["option"], value, {}, ())
        elif isinstance(value, str) and (str(key) in _SUMMARY_WORDS or _HASH_KEY.search(str(key))):
            flat[name] = _text(str(key), value, {}, ())
    return flat


def redacted(plan: Mapping[str, Any]) -> dict[str, Any]:
    """Return the plan as W&B may have it, with every text that no rule allows replaced by "redacted".

    Kept: numbers, booleans and nulls; words under keys such as `kind` or `schedule`; hashes and revisions;
    versions under `versions`; a Hub id beside its pinned revision; the sentences `threat` and `threat_model`.
    Replaced: local paths, prompts, patterns, templates, command lines, token ids, hosts and anything unknown.
    """
    return _mapping(plan, ())


def figure_json(figure: Any) -> dict[str, Any]:
    """Return a plotly figure as plain JSON without hover texts, custom data, per-point texts or images.

    Titles, axis labels, legend names and annotations stay: the report's author wrote them.
    """
    plain = figure.to_plotly_json()
    traces = [{key: part for key, part in trace.items() if key != "text"} for trace in plain.get("data", ())]
    return {"data": _clean_figure(traces), "layout": _clean_figure(plain.get("layout", {}))}


def _mapping(values: Mapping[str, Any], above: tuple[str, ...]) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for index, (key, value) in enumerate(values.items()):
        name = str(key) if _WORD.fullmatch(str(key)) else f"{REDACTED}-{index}"
        kept[name] = _value(name, value, values, above)
    return kept


def _value(key: str, value: Any, beside: Mapping[str, Any], above: tuple[str, ...]) -> Any:
    kept: Any = REDACTED
    if _TOKEN_IDS.search(key):
        pass  # text in another spelling
    elif value is None or isinstance(value, bool):
        kept = value
    elif isinstance(value, Real):
        kept = _number(value)
    elif isinstance(value, str):
        kept = _text(key, value, beside, above)
    elif isinstance(value, Mapping):
        kept = _mapping(value, (*above, key))
    elif isinstance(value, list | tuple) and len(value) <= _LONGEST_LIST:
        kept = [_value(key, item, beside, above) for item in value]
    return kept


def _number(value: Any) -> int | float | None:
    """Return a finite Python number, or None for NaN, infinity and what is no number."""
    if isinstance(value, Integral):
        return int(value)
    return float(value) if isinstance(value, Real) and math.isfinite(value) else None


def _text(key: str, value: str, beside: Mapping[str, Any], above: tuple[str, ...]) -> str:
    """Return `value` if a rule allows it under `key`, else `REDACTED`."""
    word = _WORD.fullmatch(value) is not None
    allowed = (
        (key in _WORD_KEYS and word)
        or (_HASH_KEY.search(key) is not None and _HEX.fullmatch(value) is not None)
        or (bool(above) and above[-1] in _VERSION_PARENTS and _VERSION.fullmatch(value) is not None)
        or (key in {"path", "name"} and bool(beside.get("revision")) and _HUB_ID.fullmatch(value) is not None)
        or (key == "path" and value.startswith("organism:") and word)
    )
    if allowed:
        return value
    return without_paths(value) if key in _SENTENCE_KEYS else REDACTED


def _clean_figure(part: Any) -> Any:
    clean: Any = part
    if isinstance(part, Mapping) and "bdata" in part:
        clean = _clean_figure(_unpacked(part))
    elif isinstance(part, Mapping):
        clean = {str(key): _clean_figure(item) for key, item in part.items() if key not in _FIGURE_DROPPED}
    elif hasattr(part, "tolist"):
        clean = _clean_figure(part.tolist())
    elif isinstance(part, list | tuple):
        clean = [_clean_figure(item) for item in part]
    elif isinstance(part, str):
        clean = _PATH.sub(REDACTED, part) if len(part) <= _LONGEST_TEXT else REDACTED
    elif part is not None and not isinstance(part, bool):
        clean = _number(part) if isinstance(part, Real) else str(part)[:64]  # a date on an axis
    return clean


def _unpacked(packed: Mapping[str, Any]) -> Any:
    """Return the array that plotly packed as base64: W&B's viewer cannot be relied on to know `bdata`."""
    array = np.frombuffer(base64.b64decode(packed["bdata"]), dtype=packed["dtype"])
    shape = str(packed.get("shape", array.size)).split(",")
    return array.reshape([int(size) for size in shape])

"""Whatever stands on the command line is taken, or told by a `UserError`: never by a library's own exception."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from hydra.core.config_store import ConfigStore
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from pipeline.config import compose
from pipeline.config.groups import groups
from pipeline.errors import UserError

ODD = (
    *("null", "", "0", "-1", "-0.0", "1e400", "nan", "-inf", "1e-300", "9" * 40, "0x10", "1_000", "true", "[]", "{}"),
    *("[null]", "[[1]]", "[a,a]", "[0,-1]", "[true]", "{a: 1}", "{a: {b: null}}", "{null: 1}", "{0: 1}", "[{a: 1}]"),
    *("???", "'???'", "${name}", "${nowhere}", "a", "a,b", "'a,b'", "a b", "é", "../x", "/", "~", "$", "%", "a=b"),
    *("'", '"', "[", "{", "\n", "\u0000"),
)


def _keys(node: Any, place: str) -> Iterator[str]:
    if place:
        yield place
    for name, inner in node.items() if isinstance(node, dict) else ():
        yield from _keys(inner, f"{place}.{name}".lstrip("."))


def keys() -> list[str]:
    ConfigStore.instance().store(name="schema", node={})
    composed = (compose._compose([f"experiment={name}"]) for name in ("demo", "release_review"))
    return sorted({key for one in composed for key in _keys(OmegaConf.to_container(one), "")})


KEYS, GROUPS = keys(), sorted(groups(compose.conf_folder()))


@st.composite
def word(draw: st.DrawFn) -> str:
    key = draw(st.sampled_from(KEYS) | st.sampled_from(GROUPS)) + draw(st.sampled_from(["", "", "", ".x", ".", "@a"]))
    sign = draw(st.sampled_from(["", "", "", "+", "++", "~"]))
    value = draw(st.sampled_from(ODD) | st.text(max_size=5))
    return f"{sign}{key}" if sign == "~" and draw(st.booleans()) else f"{sign}{key}={value}"


@settings(deadline=None)  # composing takes a tenth of a second, and more on a busy machine
@given(st.lists(word(), min_size=1, max_size=3))
def test_any_words_are_taken_or_told(words: list[str]) -> None:
    with contextlib.suppress(UserError):
        compose.load(words)

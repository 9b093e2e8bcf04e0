"""How the code hangs together, read from its imports, those inside functions included: one direction, no circles."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for package in ("pipeline", "evals")
    for path in sorted((ROOT / package).rglob("*.py"))
}


def imported(text: str) -> Iterator[str]:
    """Yield the modules that a file takes something from; `from package import name` is the module's, if it is one."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            whole = [f"{node.module}.{name.name}" for name in node.names]
            yield from (name if name in FILES else node.module for name in whole)


def circle(ties: dict[str, set[str]]) -> list[str]:
    """Return the modules of a circle, the first one twice; nothing where there is none."""
    try:
        TopologicalSorter(ties).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_no_two_files_need_each_other():
    ties = {name: set(imported(path.read_text("utf-8"))) & set(FILES) - {name} for name, path in FILES.items()}
    assert sum(map(len, ties.values())) > 500  # else nothing was read
    assert circle(ties) == []


def test_evals_take_nothing_from_the_pipeline():
    for name, path in FILES.items():
        if name.startswith("evals"):
            assert [other for other in imported(path.read_text("utf-8")) if other.startswith("pipeline")] == [], name


@pytest.mark.parametrize(
    "text",
    ["import evals.base", "from evals import base", "def f():\n    from evals.base import Sample"],
)
def test_an_import_is_found_wherever_it_stands(text: str):
    assert list(imported(text)) == ["evals.base"]


def test_a_circle_is_named():
    assert set(circle({"a": {"b"}, "b": {"c"}, "c": {"a"}})) == {"a", "b", "c"}

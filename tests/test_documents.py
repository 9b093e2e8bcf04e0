"""The documents hold together: every link leads somewhere, every file that they name is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), ROOT / "benchmarks" / "GPU.md"])
LINK = re.compile(r"\]\((?!https?:)([^)\s]+)\)|src=\"(?!https?:)([^\"]+)\"")
FILE = re.compile(r"`((?:pipeline|evals|conf|slurm|tests|benchmarks|docs)/[\w/.-]+\.(?:py|yaml|md|sbatch|sh))`")
DATED = ("CHANGELOG.md", "LOG.md")  # what they name may have been there once


def anchor(heading: str) -> str:
    """Return the anchor that a heading has on the sites that show Markdown."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def leads(page: Path, link: str) -> bool:
    name, _, place = link.partition("#")
    target = (page.parent / name).resolve() if name else page
    if not target.exists() or not place:
        return target.exists()
    return place in {anchor(heading) for heading in re.findall(r"(?m)^#+ (.+)$", target.read_text("utf-8"))}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path):
    text = page.read_text(encoding="utf-8")
    lost = [found[0] for found in LINK.finditer(text) if not leads(page, found[1] or found[2])]
    assert not lost


@pytest.mark.parametrize("page", [page for page in PAGES if page.name not in DATED], ids=lambda page: page.name)
def test_every_file_that_is_named_is_there(page: Path):
    named = FILE.findall(page.read_text(encoding="utf-8"))
    assert not [name for name in named if not (ROOT / name).exists()]


def test_every_page_of_docs_is_linked_from_the_readme():
    linked = {
        found[1].partition("#")[0] for found in LINK.finditer((ROOT / "README.md").read_text("utf-8")) if found[1]
    }
    assert {f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md")} <= linked


@pytest.mark.parametrize("page", sorted(ROOT.glob("pipeline/*/__init__.py")), ids=lambda page: page.parent.name)
def test_every_file_that_a_folder_says_it_has_is_there(page: Path):
    said = (ast.get_docstring(ast.parse(page.read_text("utf-8"))) or "").replace("__init__.py", "")
    assert not [name for name in re.findall(r"(?<![\w/.])([a-z_]+\.py)\b", said) if not (page.parent / name).exists()]


@pytest.mark.parametrize("folder", sorted(path.parent for path in (ROOT / "pipeline").glob("*/__init__.py")), ids=str)
def test_each_folder_says_what_its_files_are_for(folder: Path) -> None:
    if folder.name == "schema":  # a file for each part of the configuration, by its name
        return
    said = (folder / "__init__.py").read_text()
    names = (path.name for path in folder.glob("*.py") if path.stem != "__init__")
    assert sorted(name for name in names if name not in said) == []

"""Runs stages of a review in this process, on a short finished run."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import finished_run
import pytest

PROMPTS = 30  # an eval


def words(folder: Path, subject: Path) -> list[str]:
    """Return the overrides of `finished_run.words`, with fewer prompts: Inspect's logs take their time to write."""
    limits = [f"evals.{name}.table.limit={PROMPTS}" for name in ("refusal", "over_refusal", "capability")]
    return [*finished_run.words(folder, subject), *limits]


def review(overrides: list[str]) -> str:
    """Run `holdfast OVERRIDES`; return what it said."""
    from rich.console import Console

    from pipeline import __main__ as entry
    from pipeline.config.compose import load

    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stderr(said):
        patch.setattr(entry, "Console", lambda **_: Console(file=said, width=200))
        entry.review(load(overrides))
    return said.getvalue()


def root(place: Path) -> Path:
    """Return the one run folder there."""
    (folder,) = (place / "runs").iterdir()
    return folder

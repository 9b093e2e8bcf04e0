"""The command that reproduces a run, as reports print it. Pure."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any, Final

# What Hydra reads as this very text: no number, no null, no character that its grammar knows.
_PLAIN: Final = re.compile(r"(?!(?:null|true|false|nan|inf)$)[A-Za-z/][\w.~/-]*", re.ASCII | re.IGNORECASE)


def reproduction_line(plan: Mapping[str, Any]) -> str:
    """Return the command, with the run folder's name instead of its path: a report may leave the machine.

    Args:
        plan: the registered plan, as plan.json has it.
    """
    named = plan["config"]["run"]["dir"]
    return command(PurePath(named).name if named else f"{plan['name']}-{plan['run_sha256'][:8]}")


def command(folder: str) -> str:
    """Return the command for a run folder, quoted for Hydra and the shell where that is needed."""
    word = f"reproduce.run={quoted(folder)}"
    return f"holdfast stages=[reproduce] {word if _PLAIN.fullmatch(folder) else shlex.quote(word)}"


def quoted(text: str) -> str:
    """Return a text as Hydra reads it back: as it is, or between quotes."""
    if _PLAIN.fullmatch(text):
        return text
    # Hydra: a quote is escaped, and so are the backslashes before it or before the quote that ends the text.
    escaped = re.sub(r'(\\*)("|\Z)', lambda found: found[1] * 2 + found[2].replace('"', '\\"'), text)
    return f'"{escaped}"'

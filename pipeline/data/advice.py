"""What to do about a table that is nearly one: parted by other signs, over several lines, of messages."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

_PARTED: Final = {";": "semicolons", "\t": "tabs", "|": "upright strokes"}
# How a turn says who speaks and what, with the words for the user and the model.
_TURNS: Final = {("role", "content"): ("user", "assistant"), ("from", "value"): ("human", "gpt")}
_KINDS: Final = ".jsonl (or .json: one object a line) and .csv files are read"
# How what is often at hand becomes a table; each with the environment that Holdfast runs in.
_BECOMES: Final = {
    ".parquet": 'python -c "import polars; polars.read_parquet({old!r}).write_ndjson({new!r})"',
    ".tsv": 'python -c "import polars; polars.read_csv({old!r}, separator=chr(9)).write_ndjson({new!r})"',
    ".txt": 'write each text as an object on a line of its own, {{"prompt": "…"}}; jq -R \'{{prompt: .}}\' does so',
    ".gz": "gunzip it, and name the file that comes out",
    ".zip": "unzip it, and name the file that comes out",
    ".xlsx": "save it as CSV (UTF-8)",
    ".yaml": "write one JSON object a line",
}


def kind_remedy(path: str) -> str | None:
    """Say what to do with a file or folder of another kind; None: it is neither there nor called like one."""
    if os.path.isdir(path):
        return f"{_KINDS}: name one file of the folder, or several by `files`"
    suffix = Path(path).suffix.lower()
    if suffix not in _BECOMES:
        return f"{_KINDS}: convert it" if os.path.exists(path) else None
    return f"{_KINDS}; convert it: " + _BECOMES[suffix].format(old=path, new=str(Path(path).with_suffix(".jsonl")))


def separator_remedy(names: Sequence[str]) -> str | None:
    """Say that a CSV is parted by another sign than the comma, as a header of one name shows."""
    if len(names) != 1:
        return None
    word = next((word for sign, word in _PARTED.items() if sign in names[0]), None)
    return word and f"the header is parted by {word}: save the file with commas between the cells"


def messages_remedy(cells: Mapping[str, Any]) -> str | None:
    """Say how rows of chat messages become rows of one prompt and one response."""
    for name, value in cells.items():
        turns = value if isinstance(value, list) else []
        for (who, what), words in _TURNS.items():
            if turns and all(isinstance(turn, dict) and {who, what} <= set(turn) for turn in turns):
                prompt, response = (f'map(select(.{who}=="{word}"))[0].{what}' for word in words)
                make = shlex.quote(f'.["{name}"] | {{prompt: {prompt}, response: {response}}}')
                return (
                    f"{name!r} is a list of messages, which is not supported: write one prompt and one response a row; "
                    f"`jq -c {make} FILE > NEW.jsonl` takes the first of each"
                )
    return None


def json_remedy(line: str, first: bool) -> str:
    """Say what makes one object a line of a text that has none on this line; `first`: nothing stands before it."""
    begun = line.lstrip("\ufeff \t\r\n")
    if "\r" in line.rstrip("\r\n"):
        return "the lines end with CR alone: save the file with line feeds (`tr '\\r' '\\n'` makes them)"
    if first and begun.startswith("["):
        return 'this is a JSON array: write one object a line, as `jq -c ".[]" FILE > NEW.jsonl` does'
    if first and begun.rstrip() == "{":
        return "this is an object over several lines: write one object a line, as `jq -c . FILE > NEW.jsonl` does"
    return "mend or remove the line; the file must hold one JSON object a line"


def csv_remedy(line: str, first: bool) -> str:
    """Say what to do about a line of CSV that is none; `first`: it is all that the file has been found to hold."""
    if first and "\r" in line.rstrip("\r\n"):
        return "the lines end with CR alone: save the file with line feeds (`tr '\\r' '\\n'` makes them)"
    return 'close every quote, and write a quote inside a cell twice: "a ""b"""'

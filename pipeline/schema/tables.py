"""The types of a table of text: what arms train on and what evals measure."""

from __future__ import annotations

from dataclasses import dataclass, field

from omegaconf import MISSING


@dataclass
class TableConfig:
    """A table of text: JSONL, CSV or a Hub data set, with named columns.

    `path` may start with "organism:", which stands for the data made with the built-in subject. `sha256`, `files` and
    `rows` pin what a benchmark's figures are worth: a file that differs is refused.
    """

    path: str = MISSING  # a file; hf://datasets/OWNER/NAME@COMMIT/FILE; or the id of a Hub data set
    revision: str | None = None  # the source's commit; required for a Hub data set
    split: str = "train"  # of a Hub data set
    subset: str | None = None  # of a Hub data set: its configuration, e.g. main
    source: str | None = None  # where the file comes from
    licence: str | None = None
    sha256: str | None = None  # of the file's bytes; null: not checked
    files: dict[str, str] = field(default_factory=dict)  # name: sha256, where `path` has a * that stands for each name
    rows: int | None = None  # how many rows the table must have after `filter`; null: not checked
    encoding: str = "utf-8"  # any of Python's, e.g. mac_roman
    allowed: dict[str, list[str]] = field(default_factory=dict)  # column: the only values that it may hold
    filter: dict[str, list[str]] = field(default_factory=dict)  # column: use the rows that hold one of these
    id: str | None = None  # column with a unique id; null: the row number
    prompt: str = "prompt"
    context: str | None = None  # column with text that stands before the prompt, where the cell is not empty
    response: str | None = None  # column with the reply to train on
    target: str | None = None  # column with the reference answer to measure against
    target_columns: list[str] = field(default_factory=list)  # instead: columns that make one JSON object of the target
    choices: list[str] = field(default_factory=list)  # columns with the choices of a multiple-choice question
    separator: str | None = None  # what parts several choices in one cell
    kind: str | None = None  # column that groups samples; `file` is the name that stands for the * in `path`
    system: str | None = None  # column with a system prompt
    shuffle: int | None = None  # null: the order of the file; a number: the seed of a random order, before `limit`
    limit: int | None = None  # use the first n rows

"""The rows of the file that `stages=[judge]` labels: read in a stream, with every fault told by file and line."""

from __future__ import annotations

import csv
import hashlib
import json
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pipeline.data.sources import Record, json_type, records
from pipeline.errors import UserError
from pipeline.judge.agreement import SCORED
from pipeline.schema import TableConfig

INPUT: Final = "judge.input"
BATCH_ROWS: Final = 8192  # replies a batch, many times the seats of an engine that judges ...
BATCH_CHARACTERS: Final = 4_000_000  # ... or fewer where they are long
_OPTIONAL: Final = ("id", "label")

csv.field_size_limit(2**31 - 1)  # a reply may be longer than the 131,072 characters that csv allows by itself


@dataclass(frozen=True)
class Row:
    """One row to judge. `line` is where it begins in the file; `id` and `label` are None where there are none."""

    line: int
    prompt: str
    reply: str
    id: str | None
    label: str | None


def read_rows(source: Path) -> Iterator[Row]:
    """Yield the rows; what the first row has of `id` and `label`, every row must have.

    Raises:
        UserError: the file is not UTF-8, not JSON lines or CSV, lacks a column, or has a label outside the set.
    """
    columns: set[str] | None = None
    for record in records(str(source), TableConfig(path=str(source)), INPUT):
        if columns is None:
            columns = {name for name in _OPTIONAL if name in record.cells}
        for name in _OPTIONAL:
            if (name in record.cells) != (name in columns):
                has = "a column" if name in record.cells else "no column"
                raise UserError(
                    f"{INPUT}: {record.place}: {has} {name!r}, unlike the first row", "give it to all rows, or to none"
                )
        yield Row(
            line=int(record.place.rpartition(" ")[2]),
            prompt=_text(record, "prompt"),
            reply=_text(record, "reply"),
            id=_id(record) if "id" in columns else None,
            label=_label(record) if "label" in columns else None,
        )


def _text(record: Record, column: str) -> str:
    if column not in record.cells:
        there = ", ".join(map(str, record.cells)) or "none"
        raise UserError(
            f"{INPUT}: {record.place}: no column {column!r} (columns: {there})",
            "every row needs `prompt` and `reply`: rename the columns",
        )
    value = record.cells[column]
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    if not isinstance(value, str):
        raise UserError(
            f"{INPUT}: {record.place}: the column {column!r} holds a JSON {json_type(value)}, not text",
            'write text; an empty reply is "", and a row without a reply is left out',
        )
    if not value.isascii() and any("\ud800" <= c <= "\udfff" for c in value):
        raise UserError(
            f"{INPUT}: {record.place}: the column {column!r} holds half a character (a lone surrogate)",
            "write the whole character, as UTF-8",
        )
    return value


def _id(record: Record) -> str:
    text = _text(record, "id")
    if not text.strip():
        raise UserError(f"{INPUT}: {record.place}: the id is empty", "fill it, or leave the column out")
    return text


def _label(record: Record) -> str | None:
    value = record.cells["label"]
    if value is None or value == "":
        return None  # nobody labelled this one
    if value not in SCORED:
        raise UserError(
            f"{INPUT}: {record.place}: the label {str(value)[:40]!r} is none of {', '.join(SCORED)}",
            "write one of these; leave the cell empty where nobody labelled the reply",
        )
    return str(value)


def check_rows(source: Path) -> int:
    """Read every row once and return how many there are.

    Raises:
        UserError: a row is broken (see `read_rows`), an id comes twice, or there is no row.
    """
    count = 0
    # A private database on the disk (an empty name), so that the ids of a long file are not held in memory.
    with sqlite3.connect("") as seen:
        seen.execute("CREATE TABLE seen (id BLOB PRIMARY KEY, line INTEGER) WITHOUT ROWID")
        for row in read_rows(source):
            count += 1
            if row.id is None:
                continue
            key = hashlib.sha256(row.id.encode()).digest()[:16]
            try:
                seen.execute("INSERT INTO seen VALUES (?, ?)", (key, row.line))
            except sqlite3.IntegrityError:
                (line,) = seen.execute("SELECT line FROM seen WHERE id = ?", (key,)).fetchone()
                raise UserError(
                    f"{INPUT}: {source}, line {row.line}: the id {row.id[:40]!r} stands in line {line} already",
                    "make the ids unique, or leave the column out",
                ) from None
    if count == 0:
        raise UserError(f"{INPUT}: {source} has no rows", "give a file with rows of prompt and reply")
    return count


def batches(source: Path) -> Iterator[list[Row]]:
    """Yield the rows in batches that fit in memory, however long the replies are."""
    batch: list[Row] = []
    size = 0
    for row in read_rows(source):
        batch.append(row)
        size += len(row.prompt) + len(row.reply)
        if len(batch) == BATCH_ROWS or size >= BATCH_CHARACTERS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch

"""Reading tables of text: JSONL, CSV or a Hub data set, by named columns, with every fault told plainly."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

from pipeline.data.advice import messages_remedy, separator_remedy
from pipeline.data.sources import FILE_COLUMN, Record, json_type, records
from pipeline.errors import UserError
from pipeline.schema import TableConfig

COLUMNS = ("id", "prompt", "context", "response", "target", "kind", "system")
CONTEXT_RULE = "\n\n---\n\n"  # between a context and its prompt, as HarmBench sends them


@dataclass(frozen=True)
class Row:
    """One row of a table, as text. `None`: the column is not configured, or the cell is empty."""

    id: str
    prompt: str
    response: str | None = None
    target: str | None = None
    kind: str = ""
    system: str | None = None
    choices: tuple[str, ...] = ()


def read_table(config: TableConfig, *, where: str, resolve: Callable[[str], str]) -> list[Row]:
    """Read the rows of a table, in order, at most `config.limit`.

    `.jsonl` and `.json` hold one JSON object a line, `.csv` has a header line; both are UTF-8 unless `encoding` says
    otherwise. Any other path is the id of a Hub data set. Rows without an id column have their number in the file,
    from 1, as id. Numbers become text as written in JSON. Rows beyond `limit` are not looked at, unless `rows` or
    `shuffle` needs them all. A context stands before its prompt, parted by a rule.

    Args:
        config: the table.
        where: its configuration key, for errors, e.g. "data.compliance".
        resolve: turns a path such as "organism:train.jsonl" into a real one.

    Raises:
        UserError: the file is missing, changed, broken, empty or not in its encoding; a column is missing; a prompt
            (or a configured response) is empty; a cell holds a value that is not allowed; an id comes twice; the
            number of rows is not `config.rows`; a Hub revision is no commit hash.
    """
    if not config.path or config.path == "???":
        raise UserError(f"{where}.path is not set", "name a JSONL or CSV file, or a Hub data set")
    if config.limit is not None and config.limit < 1:
        raise UserError(f"{where}.limit is {config.limit}", "give a number of rows, or null for all")
    path = resolve(config.path)
    kept = _kept(records(path, config, where), config, where)
    if config.rows is None and config.shuffle is None:
        kept = islice(kept, config.limit)
    rows: dict[str, Row] = {}
    seen: dict[str, str] = {}
    for record in kept:
        row = _row(record, config, where)
        if row.id in seen:
            raise UserError(
                f"{where}: two rows have the id {row.id!r}: {seen[row.id]} and {record.place}",
                f"make the ids unique, or set {where}.id=null to number the rows",
            )
        seen[row.id] = record.place
        rows[row.id] = row
    _check_count(len(rows), path, config, where)
    return _ordered(list(rows.values()), config.shuffle)[: config.limit]


def table_sha256(rows: Sequence[Row]) -> str:
    """Return the SHA-256 (hex) of the rows as canonical JSON lines: what was used, however it was stored."""
    digest = hashlib.sha256()
    for row in rows:
        cells = asdict(row)
        if not row.choices:
            del cells["choices"]  # so that the digest of a table without choices is what it always was
        line = json.dumps(cells, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
        digest.update(line.encode() + b"\n")
    return digest.hexdigest()


def _kept(table: Iterable[Record], config: TableConfig, where: str) -> Iterator[Record]:
    """Yield the records that `filter` leaves; every record is held against `allowed`."""
    for record in table:
        for column, values in config.allowed.items():
            cell = _cell(record, column, f"{where}.allowed", where)
            if cell not in values:
                raise UserError(
                    f"{where}: {record.place}: the column {column!r} holds {cell!r}, not one of {', '.join(values)}",
                    f"mend the cell, or say in {where}.allowed which values there are",
                )
        if all(_cell(record, column, f"{where}.filter", where) in values for column, values in config.filter.items()):
            yield record


def _check_count(count: int, path: str, config: TableConfig, where: str) -> None:
    if not count:
        left = f" that {where}.filter leaves" if config.filter else ""
        raise UserError(f"{where}: {path} has no rows{left}", f"give a table with rows, or another {where}.path")
    if config.rows is not None and count != config.rows:
        left = f" (after {where}.filter)" if config.filter else ""
        raise UserError(
            f"{where}.rows: {path} gives {count} rows{left}, expected {config.rows}",
            f"get the whole file again; or, if you know why it differs, accept it: {where}.rows={count}",
        )


def _ordered(rows: list[Row], seed: int | None) -> list[Row]:
    """Order rows by a digest of seed and id: the same on every machine, and a longer limit only adds rows."""
    if seed is None:
        return rows
    return sorted(rows, key=lambda row: hashlib.sha256(f"{seed}:{row.id}".encode()).digest())


def _row(record: Record, config: TableConfig, where: str) -> Row:
    texts: dict[str, str | None] = {}
    for key in COLUMNS:
        column = getattr(config, key)
        text = None if column is None else _cell(record, column, f"{where}.{key}", where)
        texts[key] = text if text and text.strip() else None
    for key in ("id", "prompt", "response"):
        if getattr(config, key) is not None and texts[key] is None:
            raise UserError(
                f"{where}: {record.place}: the column {getattr(config, key)!r} ({where}.{key}) is empty",
                "fill the cell or remove the row",
            )
    prompt = texts["prompt"] or ""
    return Row(
        id=texts["id"] or record.number,
        prompt=prompt if texts["context"] is None else texts["context"] + CONTEXT_RULE + prompt,
        response=texts["response"],
        target=_joined_target(record, config, where) if config.target_columns else texts["target"],
        kind=texts["kind"] or "",
        system=texts["system"],
        choices=tuple(_choices(record, config, where)),
    )


def _joined_target(record: Record, config: TableConfig, where: str) -> str:
    cells = {column: _raw(record, column, f"{where}.target_columns", where) for column in config.target_columns}
    return json.dumps(cells, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def _choices(record: Record, config: TableConfig, where: str) -> Iterator[str]:
    for column in config.choices:
        value = _raw(record, column, f"{where}.choices", where)
        cells = value if isinstance(value, list) else [value]
        for cell in cells:
            text = _text(cell, column, record.place, where) or ""
            parts = [text] if config.separator is None else text.split(config.separator)
            found = [part.strip() for part in parts if part.strip()]
            if not found:
                raise UserError(
                    f"{where}: {record.place}: the column {column!r} ({where}.choices) is empty",
                    "fill the cell or remove the row",
                )
            yield from found


def _cell(record: Record, column: str, key: str, where: str) -> str | None:
    return _text(_raw(record, column, key, where), column, record.place, where)


def _raw(record: Record, column: str, key: str, where: str) -> Any:
    cells: Mapping[str, Any] = record.cells
    if column not in cells:
        there = ", ".join(name for name in map(str, cells) if name != FILE_COLUMN) or "none"
        raise UserError(
            f"{where}: {record.place}: no column {column!r}, which {key} names (columns: {there})",
            messages_remedy(cells) or separator_remedy(list(cells)) or f"set {key} to one of the columns, or add it",
        )
    return cells[column]


def _text(value: Any, column: str, place: str, where: str) -> str | None:
    if isinstance(value, str):
        if not value.isascii() and any("\ud800" <= c <= "\udfff" for c in value):
            raise UserError(
                f"{where}: {place}: the column {column!r} holds half a character (a lone surrogate)",
                "write the whole character, as UTF-8",
            )
        return value
    if value is None:
        return None
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    raise UserError(
        f"{where}: {place}: the column {column!r} holds a JSON {json_type(value)}, not text",
        messages_remedy({column: value}) or "write text in this column; lists of messages are not supported",
    )

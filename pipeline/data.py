"""Reading tables of text: JSONL, CSV or a Hub data set, by named columns, with every fault told plainly."""

from __future__ import annotations

import csv
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from pipeline.errors import UserError
from pipeline.schema import TableConfig

JSONL_SUFFIXES = (".jsonl", ".json")
CSV_SUFFIXES = (".csv",)
COLUMNS = ("id", "prompt", "response", "target", "kind", "system")

_COMMIT = re.compile(r"[0-9a-f]{40}")
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")

# A record of the source, with the place to name in an error ("in data/x.jsonl, line 3").
Record = tuple[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Row:
    """One row of a table, as text. `None`: the column is not configured, or the cell is empty."""

    id: str
    prompt: str
    response: str | None = None
    target: str | None = None
    kind: str = ""
    system: str | None = None


def read_table(config: TableConfig, *, where: str, resolve: Callable[[str], str]) -> list[Row]:
    """Read the rows of a table, in order, at most `config.limit`.

    `.jsonl` and `.json` hold one JSON object a line, `.csv` has a header line; both are UTF-8. Any other path
    is the id of a Hub data set. Rows without an id column are numbered from 1. Numbers become text as written
    in JSON. Rows beyond `limit` are not looked at.

    Args:
        config: the table.
        where: its configuration key, for errors, e.g. "data.compliance".
        resolve: turns a path such as "organism:train.jsonl" into a real one.

    Raises:
        UserError: the file is missing, broken, empty or not UTF-8; a column is missing; a prompt (or a
            configured response) is empty; an id comes twice; a Hub revision is no commit hash.
    """
    if not config.path or config.path == "???":
        raise UserError(f"{where}.path is not set", "name a JSONL or CSV file, or a Hub data set")
    if config.limit is not None and config.limit < 1:
        raise UserError(f"{where}.limit is {config.limit}", "give a number of rows, or null for all")
    path = resolve(config.path)
    records = islice(_records(path, config, where), config.limit)
    rows: list[Row] = []
    seen: dict[str, str] = {}
    for number, (place, record) in enumerate(records, start=1):
        row = _row(record, number, place, config, where)
        if row.id in seen:
            raise UserError(
                f"two rows have the id {row.id!r}: {seen[row.id]} and {place}",
                f"make the ids unique, or set {where}.id=null to number the rows",
            )
        seen[row.id] = place
        rows.append(row)
    if not rows:
        raise UserError(f"{where}: {path} has no rows", f"give a table with rows, or another {where}.path")
    return rows


def table_sha256(rows: Sequence[Row]) -> str:
    """Return the SHA-256 (hex) of the rows as canonical JSON lines: what was used, however it was stored."""
    digest = hashlib.sha256()
    for row in rows:
        line = json.dumps(asdict(row), sort_keys=True, ensure_ascii=True, separators=(",", ":"))
        digest.update(line.encode() + b"\n")
    return digest.hexdigest()


def _records(path: str, config: TableConfig, where: str) -> Iterator[Record]:
    suffix = Path(path).suffix.lower()
    if suffix not in JSONL_SUFFIXES + CSV_SUFFIXES:
        return _hub_records(path, config, where)
    if not Path(path).is_file():
        raise UserError(
            f"{where}.path: there is no file {path}",
            f"check {where}.path; relative paths start in the folder that holdfast is run from",
        )
    lines = _lines(Path(path), where)
    return _csv_records(lines, path, where) if suffix in CSV_SUFFIXES else _jsonl_records(lines, path, where)


def _lines(path: Path, where: str) -> Iterator[str]:
    """Yield the lines of a UTF-8 file (with or without a byte order mark), line ends kept."""
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                try:
                    yield line.decode("utf-8-sig" if number == 1 else "utf-8")
                except UnicodeDecodeError as error:
                    raise UserError(
                        f"{where}: {path}, line {number}: byte {error.start + 1} of the line is not UTF-8",
                        "save the file as UTF-8",
                    ) from None
    except PermissionError:
        raise UserError(f"{where}: {path} can't be read: permission denied", "allow reading it") from None


def _jsonl_records(lines: Iterable[str], path: str, where: str) -> Iterator[Record]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        place = f"{path}, line {number}"
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            reason = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
            column = f" at column {error.colno}" if isinstance(error, json.JSONDecodeError) else ""
            raise UserError(
                f"{where}: {place}: not valid JSON ({reason}{column})",
                "mend or remove the line; the file must hold one JSON object a line",
            ) from None
        if not isinstance(record, dict):
            raise UserError(
                f"{where}: {place}: a JSON {_json_type(record)}, not an object",
                'write one object a line, as in {"prompt": "..."}; `jq -c ".[]"` makes that of a JSON array',
            )
        yield place, record


def _csv_records(lines: Iterable[str], path: str, where: str) -> Iterator[Record]:
    reader = csv.reader(lines, strict=True)
    header: list[str] | None = None
    start = 1
    try:
        for cells in reader:
            place, start = f"{path}, line {start}", reader.line_num + 1
            if not cells:
                continue
            if header is None:
                header = _header(cells, place, where)
                continue
            if len(cells) != len(header):
                raise UserError(
                    f"{where}: {place}: {len(cells)} cells, but the header has {len(header)}",
                    'quote cells that hold commas, quotes or line breaks: "a, b"',
                )
            yield place, dict(zip(header, cells, strict=True))
    except csv.Error as error:
        raise UserError(
            f"{where}: {path}, line {start}: not valid CSV ({error})",
            'close every quote, and write a quote inside a cell twice: "a ""b"""',
        ) from None


def _header(cells: list[str], place: str, where: str) -> list[str]:
    for name in cells:
        if cells.count(name) > 1:
            raise UserError(f"{where}: {place}: the header names {name!r} twice", "rename one of the columns")
    return cells


def _hub_records(path: str, config: TableConfig, where: str) -> Iterator[Record]:
    if not _HUB_ID.fullmatch(path) or Path(path).exists():
        raise UserError(
            f"{where}.path: {path} is neither a .jsonl, .json or .csv file nor the id of a Hub data set",
            f"give {where}.path one of these",
        )
    if config.revision is None or not _COMMIT.fullmatch(config.revision):
        raise UserError(
            f"{where}.revision is {config.revision!r}: the Hub data set {path} is not pinned to a commit",
            f"set {where}.revision to the commit's full hash (40 hexadecimal digits)",
        )
    for number, record in enumerate(_load(path, config, where), start=1):
        yield f"{path}, row {number}", record


def _load(path: str, config: TableConfig, where: str) -> Iterable[Mapping[str, Any]]:
    # Imported here: it takes seconds and only Hub tables need it.
    import datasets
    from datasets.exceptions import DatasetsError
    from huggingface_hub.errors import HfHubHTTPError

    try:
        table: Iterable[Mapping[str, Any]] = datasets.load_dataset(path, revision=config.revision, split=config.split)
    except (OSError, ValueError, DatasetsError, HfHubHTTPError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(
            f"{where}: the Hub data set {path} (split {config.split!r}) can't be loaded: {reason}",
            f"check {where}.path, .revision and .split, and the network (HF_HUB_OFFLINE, HF_TOKEN); "
            "or download it and name the file",
        ) from error
    return table


def _row(record: Mapping[str, Any], number: int, place: str, config: TableConfig, where: str) -> Row:
    cells: dict[str, str | None] = {}
    for key in COLUMNS:
        column = getattr(config, key)
        if column is None:
            cells[key] = None
            continue
        if column not in record:
            there = ", ".join(map(str, record)) or "none"
            raise UserError(
                f"{where}: {place}: no column {column!r}, which {where}.{key} names (columns: {there})",
                f"set {where}.{key} to one of the columns, or add the column",
            )
        text = _text(record[column], column, place, where)
        cells[key] = text if text and text.strip() else None
    for key in ("id", "prompt", "response"):
        if getattr(config, key) is not None and cells[key] is None:
            raise UserError(
                f"{where}: {place}: the column {getattr(config, key)!r} ({where}.{key}) is empty",
                "fill the cell or remove the row",
            )
    return Row(
        id=cells["id"] or str(number),
        prompt=cells["prompt"] or "",
        response=cells["response"],
        target=cells["target"],
        kind=cells["kind"] or "",
        system=cells["system"],
    )


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
        f"{where}: {place}: the column {column!r} holds a JSON {_json_type(value)}, not text",
        "write text in this column; lists of messages are not supported",
    )


def _json_type(value: Any) -> str:
    names = {dict: "object", list: "array", str: "string", bool: "boolean", type(None): "null"}
    return names.get(type(value), "number" if isinstance(value, int | float) else type(value).__name__)

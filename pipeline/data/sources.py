"""Where the rows of a table come from: files checked against their digests, and the Hub at a pinned commit."""

from __future__ import annotations

import codecs
import csv
import io
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.data.advice import csv_remedy, json_remedy, kind_remedy, separator_remedy
from pipeline.errors import UserError
from pipeline.files import file_sha256
from pipeline.schema import TableConfig

JSONL_SUFFIXES = (".jsonl", ".json")
CSV_SUFFIXES = (".csv",)
FILE_COLUMN = "file"  # the name that stands for the * of `path`
HUB_FILE = "hf://datasets/OWNER/NAME@COMMIT/FILE"

_COMMIT = re.compile(r"[0-9a-f]{40}")
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
_HUB_FILE = re.compile(r"hf://datasets/(?P<repo>[\w.-]+/[\w.-]+)@(?P<commit>[^/]+)/(?P<file>.+)")
_LONGEST_CELL = 2**31 - 1  # characters; Python's csv takes 131,072 unless told so
_STREAMED = ("utf-8", "ascii", "iso8859-1")  # read line by line; any other encoding is read whole


@dataclass(frozen=True)
class Record:
    """A row as its source holds it. `place` names it in an error; `number` counts from 1 within its file."""

    place: str
    number: str
    cells: Mapping[str, Any]


def records(path: str, config: TableConfig, where: str) -> Iterator[Record]:
    """Yield the rows of a table in order. Digests are checked before the first row is yielded.

    Args:
        path: `config.path`, resolved.
        config: the table.
        where: its configuration key, for errors.

    Raises:
        UserError: a file is missing, changed, broken, or not in its encoding; a Hub data set is not pinned.
    """
    _check_encoding(config, where)
    path = os.path.expanduser(path)
    if "*" in path or config.files:
        yield from _many(path, config, where)
    else:
        yield from _one(path, config, where, config.sha256, f"{where}.sha256")


def json_type(value: Any) -> str:
    """Return what JSON calls the type of a value."""
    names = {dict: "object", list: "array", str: "string", bool: "boolean", type(None): "null"}
    return names.get(type(value), "number" if isinstance(value, int | float) else type(value).__name__)


def _many(path: str, config: TableConfig, where: str) -> Iterator[Record]:
    if path.count("*") != 1 or not config.files:
        raise UserError(
            f"{where}: `files` names the files of a path with one * in it, but path is {path} and files has "
            f"{len(config.files)} names",
            f"give {where}.path a * that stands for each name in {where}.files, or name one file and leave files out",
        )
    if config.sha256 is not None:
        raise UserError(f"{where}.sha256: `files` gives each file's own digest", f"set {where}.sha256=null")
    pieces = [(name, path.replace("*", name), digest) for name, digest in config.files.items()]
    for name, piece, digest in pieces:
        for record in _one(piece, config, where, digest, f"{where}.files.{name}"):
            yield Record(record.place, f"{name}/{record.number}", {**record.cells, FILE_COLUMN: name})


def _one(path: str, config: TableConfig, where: str, digest: str | None, key: str) -> Iterator[Record]:
    suffix = Path(path).suffix.lower()
    if suffix not in JSONL_SUFFIXES + CSV_SUFFIXES:
        return _hub_records(path, config, where)
    shown, file = path, Path(path)
    if path.startswith("hf://"):
        file = _hub_file(path, where)
    elif not os.path.isfile(file):  # false, too, for a name that is longer than a file system takes
        raise UserError(
            f"{where}.path: there is no file {path}",
            f"check {where}.path; relative paths start in the folder that holdfast is run from" + _origin(config),
        )
    _check_digest(file, shown, digest, key, config)
    lines = _lines(file, shown, config.encoding, where)
    return _csv_records(lines, shown, where) if suffix in CSV_SUFFIXES else _jsonl_records(lines, shown, where)


def _origin(config: TableConfig) -> str:
    if config.source is None:
        return ""
    at = f" at {config.revision}" if config.revision else ""
    return f". The file comes from {config.source}{at}; run.benchmarks=FOLDER names the folder of all benchmark files"


def _check_digest(file: Path, shown: str, expected: str | None, key: str, config: TableConfig) -> None:
    if expected is None:
        return
    try:
        found = file_sha256(file)
    except PermissionError:
        raise UserError(f"{key}: {shown} can't be read: permission denied", "allow reading it") from None
    if found != expected.lower():
        raise UserError(
            f"{key}: {shown} is not the pinned file: expected {expected}, found {found}",
            f"get the pinned file again; or, if you know why it differs, accept it: {key}={found}" + _origin(config),
        )


def _check_encoding(config: TableConfig, where: str) -> None:
    try:
        "a".encode(config.encoding)  # Python's codecs also hold some that are of bytes or none, e.g. hex and rot13
    except (LookupError, ValueError):
        raise UserError(
            f"{where}.encoding: {config.encoding!r} is no encoding of text that Python knows",
            "e.g. utf-8, cp1252, mac_roman",
        ) from None


def _lines(path: Path, shown: str, encoding: str, where: str) -> Iterator[str]:
    """Yield the lines of a file, line ends kept; UTF-8 with or without a byte order mark."""
    name = codecs.lookup(encoding).name
    try:
        with path.open("rb") as file:
            pieces: Iterable[bytes] = file if name in _STREAMED else [file.read()]
            line = 1
            for piece in pieces:
                codec = "utf-8-sig" if name == "utf-8" and line == 1 else name
                text = _decoded(piece, codec, encoding, f"{where}: {shown}", line)
                yield from io.StringIO(text, newline="\n")  # parts at line feeds only, as `pieces` does
                line += 1
    except PermissionError:
        raise UserError(f"{where}: {shown} can't be read: permission denied", "allow reading it") from None


def _decoded(piece: bytes, codec: str, encoding: str, place: str, line: int) -> str:
    try:
        return piece.decode(codec)
    except UnicodeError as error:
        start = error.start if isinstance(error, UnicodeDecodeError) else 0
        before = piece[:start]
        line += before.count(b"\n")
        at = start - (before.rfind(b"\n") + 1) + 1
        shown = "UTF-8" if encoding.lower() in ("utf-8", "utf8") else encoding
        raise UserError(
            f"{place}, line {line}: byte {at} of the line is not {shown}",
            f"save the file as {shown}, or name its encoding in `encoding`, e.g. cp1252 or mac_roman",
        ) from None


def _jsonl_records(lines: Iterable[str], path: str, where: str) -> Iterator[Record]:
    count = 0
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        count += 1
        place = f"{path}, line {number}"
        try:
            cells = json.loads(line)
        except (ValueError, RecursionError) as error:
            reason = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
            column = f" at column {error.colno}" if isinstance(error, json.JSONDecodeError) else ""
            raise UserError(
                f"{where}: {place}: not valid JSON ({reason}{column})",
                json_remedy(line, count == 1),
            ) from None
        if not isinstance(cells, dict):
            raise UserError(
                f"{where}: {place}: a JSON {json_type(cells)}, not an object",
                'write one object a line, as in {"prompt": "..."}; `jq -c ".[]"` makes that of a JSON array',
            )
        yield Record(place, str(count), cells)


def _csv_records(lines: Iterable[str], path: str, where: str) -> Iterator[Record]:
    csv.field_size_limit(_LONGEST_CELL)
    last = [""]  # the line that the reader was given last

    def watched() -> Iterator[str]:
        for last[0] in lines:
            yield last[0]

    reader = csv.reader(watched(), strict=True)
    header: list[str] | None = None
    start, count = 1, 0
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
                    separator_remedy(header) or 'quote cells that hold commas, quotes or line breaks: "a, b"',
                )
            count += 1
            yield Record(place, str(count), dict(zip(header, cells, strict=True)))
    except csv.Error as error:
        raise UserError(
            f"{where}: {path}, line {start}: not valid CSV ({error})",
            csv_remedy(last[0], reader.line_num <= 1),
        ) from None


def _header(cells: list[str], place: str, where: str) -> list[str]:
    for name in cells:
        if cells.count(name) > 1:
            raise UserError(f"{where}: {place}: the header names {name!r} twice", "rename one of the columns")
    return cells


def _hub_file(path: str, where: str) -> Path:
    """Return the local copy of one file of a Hub data set, fetched at its commit."""
    match = _HUB_FILE.fullmatch(path)
    if match is None or not _COMMIT.fullmatch(match["commit"]):
        raise UserError(
            f"{where}.path: {path} names no file of a Hub data set at a commit",
            f"write {HUB_FILE}, with the commit's full hash (40 hexadecimal digits)",
        )
    # Imported here: only Hub tables need it.
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        return Path(hf_hub_download(match["repo"], match["file"], repo_type="dataset", revision=match["commit"]))
    except (OSError, ValueError, HfHubHTTPError) as error:
        raise UserError(
            f"{where}.path: {path} can't be had: {_first_line(error)}",
            "check the name and the network (HF_HUB_OFFLINE, HF_TOKEN); or download the file and name it",
        ) from error


def _hub_records(path: str, config: TableConfig, where: str) -> Iterator[Record]:
    remedy = kind_remedy(path) if config.revision is None or os.path.exists(path) else None
    if remedy or not _HUB_ID.fullmatch(path):
        raise UserError(
            f"{where}.path: {path} is neither a .jsonl, .json or .csv file nor the id of a Hub data set",
            remedy or f"give {where}.path one of these",
        )
    if config.sha256 is not None:
        raise UserError(
            f"{where}.sha256 is of a file, but {path} is a Hub data set, which its commit pins",
            f"set {where}.sha256=null and {where}.revision=COMMIT, or name one of its files as {HUB_FILE}",
        )
    if config.revision is None or not _COMMIT.fullmatch(config.revision):
        raise UserError(
            f"{where}.revision is {config.revision!r}: the Hub data set {path} is not pinned to a commit",
            f"set {where}.revision to the commit's full hash (40 hexadecimal digits)",
        )
    for number, cells in enumerate(_load(path, config, where), start=1):
        yield Record(f"{path}, row {number}", str(number), cells)


def _load(path: str, config: TableConfig, where: str) -> Iterable[Mapping[str, Any]]:
    # Imported here: it takes seconds and only Hub tables need it.
    import datasets
    from datasets.exceptions import DatasetsError
    from huggingface_hub.errors import HfHubHTTPError

    subset = {} if config.subset is None else {"name": config.subset}
    try:
        table: Iterable[Mapping[str, Any]] = datasets.load_dataset(
            path, revision=config.revision, split=config.split, **subset
        )
    except (OSError, ValueError, DatasetsError, HfHubHTTPError) as error:
        raise UserError(
            f"{where}: the Hub data set {path} (split {config.split!r}) can't be loaded: {_first_line(error)}",
            f"check {where}.path, .revision, .subset and .split, and the network (HF_HUB_OFFLINE, HF_TOKEN); "
            "or download it and name the file",
        ) from error
    return table


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]

"""What W&B's files in a run folder hold, read by W&B's own reader: what must be on the server after a sync.

Every attempt at an arm and seed (a first one, one resumed after a kill, a later `stages=[report]`) is a folder of its
own, all under one W&B id. They are pieces of one W&B run: all count, in the order in which they began. A sync appends
the rows of each; the summary on the server is then that of the last one alone.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from pipeline import interpreter
from pipeline.errors import InstrumentError
from pipeline.publish import reader
from pipeline.track.environment import temporary, wandb_environment

METRICS: Final = ("dose/", "train/", "measure/")  # keys of numbers; all else in a row is W&B's own, or a figure
LOST: Final = -1  # the size of a file that W&B's log names and the folder does not hold
_OWN: Final = ("_runtime", "_step", "_timestamp", "_wandb")  # W&B writes these itself, anew at each sync
_READ_TIMEOUT_S: Final = 120.0


@dataclass(frozen=True)
class Piece:
    """One W&B folder: one attempt at one W&B run.

    `rows` counts history rows, `metrics` are the names of their numbers, `summary` is flat ("a.b" for nested),
    `files` are names with sizes in bytes (`LOST`: it is gone). `online`: it was sent while it was written.
    `ended`: it was not cut off.
    """

    folder: Path
    run: str
    part: str
    rows: int
    metrics: frozenset[str]
    summary: Mapping[str, Any]
    files: Mapping[str, int]
    online: bool = False
    ended: bool = True


@dataclass(frozen=True)
class Expected:
    """One W&B run as the server should have it: the sum of its pieces."""

    run: str
    pieces: Sequence[Piece] = field(default_factory=tuple)

    @property
    def part(self) -> str:
        """What the run records: `training`, or `measured-<digest>`."""
        return self.pieces[-1].part

    @property
    def rows(self) -> int:
        """History rows of all pieces."""
        return sum(piece.rows for piece in self.pieces)

    @property
    def metrics(self) -> frozenset[str]:
        """Names of the numbers in any row."""
        return frozenset().union(*(piece.metrics for piece in self.pieces))

    @property
    def summary(self) -> Mapping[str, Any]:
        """The summary of the last piece: a sync replaces the earlier ones."""
        return self.pieces[-1].summary

    @property
    def files(self) -> Mapping[str, int]:
        """Files of all pieces with their sizes in bytes."""
        return {name: size for piece in self.pieces for name, size in piece.files.items()}


def read_pieces(folder: Path, known: Iterable[Piece] = ()) -> tuple[list[Piece], list[Path]]:
    """Read every W&B folder in `folder`, oldest first; `known` ones are not read again.

    Returns:
        The pieces, and the folders that hold no run (cut off before the first record was written).

    Raises:
        InstrumentError: W&B's reader failed.
    """
    # The folders' names hold the time at which they began: [offline-]run-YYYYMMDD_HHMMSS-ID.
    logs = sorted(folder.glob("*run-*/*.wandb"), key=lambda log: (log.parent.name.removeprefix("offline-"), log))
    found: dict[Path, Piece | None] = {piece.folder: piece for piece in known}
    new = [log for log in logs if log.parent not in found]
    found |= {log.parent: piece_of(log, records) for log, records in zip(new, _records(new, folder), strict=True)}
    order = [log.parent for log in logs]
    return [piece for place in order if (piece := found[place])], [place for place in order if not found[place]]


def expected_runs(pieces: Iterable[Piece]) -> list[Expected]:
    """Return the W&B runs that the pieces make up, each with its pieces in the given order."""
    runs: dict[str, list[Piece]] = {}
    for piece in pieces:
        runs.setdefault(piece.run, []).append(piece)
    return [Expected(run, tuple(found)) for run, found in runs.items()]


def piece_of(log: Path, records: Iterable[Mapping[str, Any]]) -> Piece | None:
    """Return what the records of one file say; None where there is no run among them."""
    run: Mapping[str, Any] | None = None
    rows, metrics, summary, ended = 0, set(), dict[str, Any](), False
    files: dict[str, int] = {}
    for record in records:
        kind = record["type"]
        if kind == "run":
            run = record["run"]
        elif kind == "history":
            rows += 1
            metrics |= {key for key in record["history"]["item"] if key.startswith(METRICS)}
        elif kind == "summary":
            summary |= {k: v for k, v in record["summary"].get("update", {}).items() if not k.startswith(_OWN)}
        elif kind == "files":
            names = (str(entry["path"]) for entry in record["files"]["files"])
            files |= {name: _size(log.parent / "files" / name) for name in names}
        ended |= kind == "exit"
    if run is None:
        return None
    part = str(run.get("config", {}).get("update", {}).get("part", "training"))
    online = not log.parent.name.startswith("offline-")
    return Piece(log.parent, run["run_id"], part, rows, frozenset(metrics), summary, files, online, ended)


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else LOST


def _records(logs: Sequence[Path], folder: Path) -> Iterator[list[dict[str, Any]]]:
    """Yield the records of each log. A file that was cut off is read up to the cut, as `wandb sync` reads it."""
    if not logs:
        return
    done = subprocess.run(
        interpreter.command(reader.__file__, *map(str, logs)),
        cwd=temporary(folder),
        env=wandb_environment(folder, online=False),
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
        timeout=_READ_TIMEOUT_S * len(logs),
    )
    said = done.stdout.split(reader.END)
    codes = [int(part.partition("\n")[0]) for part in said[1:]]
    if len(codes) < len(logs) or any(codes):
        log = logs[next((place for place, code in enumerate(codes) if code), len(codes))]
        raise InstrumentError(f"W&B's reader failed on {log}: {done.stderr.strip()[-500:]}")
    texts = [said[0], *(part.partition("\n")[2] for part in said[1:])]
    for text in texts[: len(logs)]:
        yield [json.loads(line) for line in text.splitlines()]

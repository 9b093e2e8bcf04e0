"""The files of outcomes: one for each judge that labelled a run's replies, and whether two are of the same replies.

`outcomes.parquet` is of the judge in use, since whoever reads a run wants one table. `panel/<judge>-<version>.parquet`
(with a digest of the reasoning tags where they are not the usual ones) keeps every judge's: judging again overwrites
nothing that another judge said, so that no verdict can be had by trying judges until one suits and showing that one
alone.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import polars as pl

from pipeline.errors import UserError
from pipeline.files import digest, write_atomic
from pipeline.schema.judge import REASONING_TAGS

SCHEMA = pl.Schema(
    {
        "rung": pl.String,
        "arm": pl.String,
        "seed": pl.Int64,
        "step": pl.Int64,
        "role": pl.String,
        "eval": pl.String,
        "sample": pl.String,
        "draw": pl.Int64,
        "reply_sha256": pl.String,
        "kind": pl.String,
        "label": pl.String,
        "value": pl.Float64,
        "probability": pl.Float64,
        "truncated": pl.Boolean,  # cut off at max_tokens
        "reasoned": pl.Boolean,  # reasoning was split off before judging; replies/ keeps both parts
        "judge": pl.String,
        "judge_version": pl.String,
    }
)
REPLY = ("rung", "eval", "sample", "draw", "reply_sha256")  # what was labelled, whoever labelled it
_ENTRY = "holdfast"  # the key of our part of the parquet file's own metadata


@dataclass(frozen=True)
class Scoring:
    """How replies became outcomes: the judge, its version, and the reasoning tags that were split off before.

    `measures` is what the judge tells: "refusal", or "harm" alone, for which an ability needs no judge.
    """

    judge: str
    version: str
    reasoning: tuple[str, ...] = ()
    measures: str = "refusal"

    @property
    def file(self) -> str:
        """Name of the file in `panel/`: each way of judging has its own, so that none is tried and dropped."""
        tags = "" if self.reasoning == REASONING_TAGS else f"-{digest(list(self.reasoning))[:8]}"
        return f"{self.judge}-{self.version}{tags}.parquet"

    def __str__(self) -> str:
        return f"{self.judge} ({self.version[:8]})"


def table_of(rows: Iterable[Mapping[str, Any]]) -> pl.DataFrame:
    """Return rows of outcomes as a table with the columns of `SCHEMA`; also of none."""
    return pl.DataFrame(list(rows), schema=SCHEMA, orient="row")


def write_outcomes(path: Path, table: pl.DataFrame, scoring: Scoring) -> None:
    """Write a table of outcomes with how they were made; atomic.

    Raises:
        OSError: the file could not be written; an older one is left as it was.
    """
    buffer = io.BytesIO()
    table.write_parquet(buffer, metadata={_ENTRY: json.dumps(asdict(scoring))})
    write_atomic(path, buffer.getvalue())


def read_outcomes(path: Path) -> tuple[pl.DataFrame, Scoring]:
    """Read a table of outcomes and how they were made.

    Raises:
        UserError: the file is missing, damaged, or was not written by `write_outcomes`.
    """
    if not path.exists():
        raise UserError(f"{path} is missing", "run the score stage first, e.g. stages=[score,analyse,report]")
    scoring = read_scoring(path)
    try:
        table = pl.read_parquet(path, glob=False)  # a folder may be named `[team]`
    except (pl.exceptions.PolarsError, OSError) as error:
        raise _damaged(path, error) from None
    return table, scoring


def read_scoring(path: Path) -> Scoring:
    """Read how a table of outcomes was made, without the table.

    Raises:
        UserError: the file is damaged, or was not written by `write_outcomes`.
    """
    try:
        entry: dict[str, Any] = json.loads(pl.read_parquet_metadata(path)[_ENTRY])
        return Scoring(entry["judge"], entry["version"], tuple(entry["reasoning"]), entry["measures"])
    except (pl.exceptions.PolarsError, OSError, KeyError, ValueError) as error:
        raise _damaged(path, error) from None


def _damaged(path: Path, error: Exception) -> UserError:
    return UserError(f"{path} cannot be read: {error}", "delete it and run the score stage again")


def same_replies(one: pl.DataFrame, other: pl.DataFrame) -> bool:
    """Say whether two tables label just the same replies."""
    return one.select(REPLY).sort(REPLY).equals(other.select(REPLY).sort(REPLY))


def read_panel(folder: Path, outcomes: pl.DataFrame, scoring: Scoring) -> tuple[dict[Scoring, pl.DataFrame], list[str]]:
    """Read every judge's outcomes of the replies that `outcomes` label, by how they were made, sorted by name.

    Returns:
        The tables, `outcomes` among them under `scoring`; and the files left out, since they are of other replies
        (generated since) or were judged with other reasoning tags.
    """
    found, stale = {scoring: outcomes}, []
    for path in sorted(folder.glob("*.parquet")):
        table, made = read_outcomes(path)
        if made == scoring:
            continue
        if made.reasoning == scoring.reasoning and same_replies(table, outcomes):
            found[made] = table
        else:
            stale.append(path.name)
    return found, stale


def named(names: Sequence[Scoring]) -> dict[Scoring, str]:
    """Return a name for each judge that tells it from the others: with its version where two share a name."""
    shared = [scoring.judge for scoring in names]
    return {s: s.judge if shared.count(s.judge) == 1 else f"{s.judge}-{s.version[:8]}" for s in names}

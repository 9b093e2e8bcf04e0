"""`stages=[purge]`: the end of a run's reply texts. Labels, counts, digests, curves and verdict stay.

A run that was given up half-way still has its stripped weights: they end first, on the record, and it cannot go on.
Removed are `replies/` (what each reply was stays as a row without its text), the logs of Inspect tasks and exports, of
the servers, of Slurm's jobs and, in the cache, of judges' servers, and a report that was asked to show texts. Without
its texts a run can't be judged again; it can still be analysed, reported and compared.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from pipeline.contain.weights import contain, refuse_link
from pipeline.errors import UserError
from pipeline.files import canonical, force, read_json, user_cache, write_atomic, write_json
from pipeline.journal import Journal
from pipeline.records import now
from pipeline.rungs import recorded, rung_of
from pipeline.schema.contain import ContainConfig
from pipeline.store import RunFolder

PURGED: Final = "purged.json"
_WITH_TEXT: Final = b"report.include_text=true"
_TEXTS: Final = ("reply",)


def purge(config: ContainConfig, console: Console) -> None:
    """Remove the texts of the run in `contain.run`, and stripped weights that are left. Interrupted, the same command
    finishes it.

    Raises:
        UserError: there is no such run, another command works in it, its retention period is not over, one of its
            folders is a link, or a file can't be removed.
    """
    folder = RunFolder.of_run(config.run, "contain.run")
    _require_due(folder, config)
    with folder.locked():
        for place in (folder.weights, *_places(folder)):
            refuse_link(place)
        mark = folder.root / PURGED
        begun = (read_json(mark) if mark.exists() else {}).get("begun") or now()
        write_json(mark, {"begun": begun})  # before the first text goes: what is left must not pass for all of it
        force(mark)
        given_up = folder.weights.exists()
        if given_up:
            folder.settle()
            contain(folder, [rung_of(values) for values in recorded(folder).values()], config)
        counts = _purge(folder)
        write_json(mark, {"begun": begun, "at": now(), **counts})
    what = "the stripped weights that were left are gone, and " if given_up else ""
    kept = "; verdict and curves stay" if folder.verdict.exists() else ""
    said = f"Purged: {what}{counts['replies']:,} replies lost their text{kept}."
    console.print(said, highlight=False)


def purged(folder: RunFolder) -> bool:
    """Say whether a purge of the run's reply texts was begun; it may have been cut off."""
    return (folder.root / PURGED).exists()


def require_replies(folder: RunFolder) -> None:
    """Refuse to read reply texts that were purged, or that a purge which was cut off has left.

    Raises:
        UserError: they were.
    """
    if not purged(folder):
        return
    made = read_json(folder.root / PURGED)
    if "at" not in made:
        raise UserError(
            f"{folder.root}: a purge of its replies' texts, begun on {made['begun']}, was cut off; they can't "
            "be judged or generated again",
            f"finish the purge by the same command: stages=[purge] contain.run={folder.root}",
        )
    raise UserError(
        f"{folder.root}: the texts of its replies were purged on {made['at']}; they can't be judged or generated again",
        "use stages=[analyse,report], or run the review again in another folder with run.dir=",
    )


def _require_due(folder: RunFolder, config: ContainConfig) -> None:
    created = datetime.fromisoformat(str(read_json(folder.plan)["created"]))
    due = created + timedelta(days=config.retention_days)
    if not config.now and datetime.now(UTC) < due:
        raise UserError(
            f"{folder.root}: its texts are to be kept until {due.isoformat(sep=' ', timespec='minutes')} "
            f"(contain.retention_days={config.retention_days:g})",
            "wait, or remove them at once with contain.now=true",
        )


def _purge(folder: RunFolder) -> dict[str, int]:
    """Remove every text, and count what was removed.

    Raises:
        UserError: something can't be removed; the rest is.
    """
    bare = folder.root / "purged"
    left: list[str] = []
    for path in sorted(path for path in folder.replies.glob("*.jsonl") if path.is_file()):
        write_atomic(bare / path.name, b"".join(canonical(row) + b"\n" for row in _without_text(path)))
        left += _remove(path)
    count = sum(1 for path in bare.glob("*.jsonl") for _ in Journal(path).rows())
    replies, logs, inspect, exported, slurm = _places(folder)
    tasks = [*inspect.rglob("*.eval"), *exported.rglob("*.eval")]
    shown = folder.report.exists() and _WITH_TEXT in folder.report.read_bytes()
    judges = (user_cache() / "logs").glob("judge-*.log")  # of whatever run: a judge's server has one log
    texts = [replies, logs, *tasks, inspect / ".work", *slurm.glob("*.log"), *judges]
    for path in [*texts, folder.report] if shown else texts:
        left += _remove(path)
    if left:
        raise UserError(
            f"{folder.root}: {len(left)} files or folders with its texts could not be removed: " + "; ".join(left[:5]),
            "remove them by hand or mend their permissions, then run the same command again: it finishes the purge",
        )
    return {"replies": count, "inspect_logs": len(tasks), "reports": int(shown)}


def _without_text(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a file of replies without their texts. A damaged line, which holds text too, has none."""
    for line in path.read_bytes().split(b"\n"):
        with suppress(ValueError, AttributeError):
            yield {key: value for key, value in json.loads(line).items() if key not in _TEXTS}


def _places(folder: RunFolder) -> tuple[Path, ...]:
    """Return the folders in which texts lie: replies, logs, those of Inspect's tasks and of exports, Slurm's logs."""
    return (folder.replies, folder.logs, *(folder.root / name for name in ("inspect", "inspect_export", "slurm")))


def _remove(place: Path) -> list[str]:
    """Remove a file, or a folder with all in it; return what could not be, and why. Links are removed, not followed."""
    left = []
    for path in [*sorted(place.rglob("*"), reverse=True), place]:
        try:
            if path.is_dir() and not path.is_symlink():
                path.rmdir()
            else:
                path.unlink(missing_ok=True)
        except OSError as error:
            left.append(f"{path} ({error.strerror})")
    return left

"""The run folder: append-only rows, atomic files, one writer at a time. A kill at any moment loses nothing."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

from pipeline.errors import UserError

TASKS = "tasks"  # folder of the run in which array tasks write


def task_folder(task: str) -> str:
    """Return the name of the folder below `tasks/` of a task ARM/SEED."""
    return task.replace("/", "-s")


def canonical(value: Any) -> bytes:
    """Return the canonical JSON of `value`: sorted keys, no spaces, UTF-8. NaN is refused."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def digest(value: Any) -> str:
    """Return the sha256 (hex) of the canonical JSON of `value`."""
    return hashlib.sha256(canonical(value)).hexdigest()


def file_sha256(path: Path) -> str:
    """Return the sha256 (hex) of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def user_cache() -> Path:
    """Return `$XDG_CACHE_HOME/holdfast`, by default under `~/.cache`; a relative setting is ignored (XDG)."""
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (base if base.is_absolute() else Path.home() / ".cache") / "holdfast"


def write_atomic(path: Path, content: str | bytes, *, private: bool = False) -> None:
    """Write a file so that a reader sees the old one or the new one whole, also after a power cut.

    `private`: its owner alone can read it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    data = content.encode() if isinstance(content, str) else content
    try:
        mode = 0o600 if private else 0o666  # from the first byte on: who has a file open may read on
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def require_room(folder: Path) -> None:
    """Write 1 MiB and remove it again: libraries in C++ tell of a full disk as of something else.

    Raises:
        OSError: it can't be written; ENOSPC or EDQUOT where the disk is full.
    """
    probe = folder / f".room.{os.getpid()}.partial"
    try:
        probe.write_bytes(b"\0" * 2**20)
    finally:
        probe.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented, key-sorted JSON, atomically. NaN is refused: use null for "no data"."""
    write_atomic(path, json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file of the run folder.

    Raises:
        UserError: the file is missing or damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} is missing", "run the stage that writes it first, e.g. without stages=[…]") from None
    except ValueError as error:
        raise UserError(f"{path} is damaged: {error}", "delete it and run the same command again") from None


class Journal:
    """An append-only JSONL file with one writer. A torn last line, left by a kill, is cut off at opening.

    Args:
        made_again: whether the same command makes again what the file held, if it is removed.
        private: whether the folder made for the file is its owner's alone.
    """

    def __init__(self, path: Path, *, made_again: bool = False, private: bool = False) -> None:
        self.path = path
        self.made_again = made_again
        self.private = private

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield the whole rows, oldest first; a torn last line is passed over.

        Raises:
            UserError: a line other than the last is not JSON (the file was edited or the disk is failing).
        """
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if not line.endswith(b"\n"):
                    return
                try:
                    row = json.loads(line)
                except ValueError:
                    raise UserError(
                        f"{self.path}, line {number}: not JSON",
                        "the file was damaged; remove it and run the same command again"
                        if self.made_again
                        else "the file was damaged; bring it back from a copy, or start afresh with run.dir=",
                    ) from None
                yield row

    def append(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Append rows in one write; on a failure (disk full) the file is cut back to what it was.

        Raises:
            OSError: the rows could not be written; none of them stands in the file.
        """
        data = b"".join(canonical(row) + b"\n" for row in rows)
        if not data:
            return
        self.path.parent.mkdir(0o700 if self.private else 0o777, parents=True, exist_ok=True)
        # Unbuffered: a buffer would try what failed once more at closing, after the file was cut back.
        with self.path.open("ab", buffering=0) as file:
            size = self._end_of_whole_rows()
            file.truncate(size)
            written = 0
            try:
                while written < len(data):
                    written += os.write(file.fileno(), data[written:])
            except OSError:
                os.ftruncate(file.fileno(), size)
                raise

    def _end_of_whole_rows(self) -> int:
        """Return the offset after the last newline."""
        with self.path.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            position = end
            while position > 0:
                step = min(4096, position)
                position -= step
                file.seek(position)
                found = file.read(step).rfind(b"\n")
                if found >= 0:
                    return position + found + 1
        return 0


class SharedJournal(Journal):
    """A journal of the run that tasks on other nodes write too, each in a file of its own below `tasks/`.

    Rows are read from the tasks' files in the order of their names, then from the run's own: what the run's command
    says of a task's rung, it says when the task is done, and a later row replaces an earlier one. Appended are they to
    `path` alone, so that no file has two writers.
    """

    def __init__(self, path: Path, root: Path) -> None:
        super().__init__(path)
        self.root = root

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield the whole rows of all files; see `Journal.rows`."""
        for path in (*sorted(self.root.glob(f"{TASKS}/*/{self.path.name}")), self.root / self.path.name):
            yield from Journal(path).rows()


class RunFolder:
    """Names of the files of one run, and the lock that keeps a second command out.

    `task` names one arm and seed of an array job: it writes below `tasks/<task>/` and shares the run with the others.
    """

    def __init__(self, root: Path, task: str | None = None) -> None:
        self.root = root
        self.task = task
        self.own = root / TASKS / task if task else root  # where this command writes its journals
        self.plan = root / "plan.json"
        self.protocol = root / "protocol.md"  # of the registered plan, for people
        self.reproduce = root / "reproduce.json"  # commands, inputs and results as digests; pipeline/reproduce
        self.ledger = self.own / "ledger.jsonl"
        self.trials = Journal(root / "trials.jsonl")  # of searches for an arm's options, on dev prompts
        self.search = root / "search.json"  # what each search chose
        self.rungs = SharedJournal(self.own / "rungs.jsonl", root)
        self.canaries = SharedJournal(self.own / "canaries.jsonl", root)
        self.proofs = Journal(root / "proofs.jsonl", made_again=True)
        self.replies = root / "replies"
        self.outcomes = root / "outcomes.parquet"  # of the judge that decides the verdict
        self.panel = root / "panel"  # <judge>-<version>.parquet: the outcomes of every judge that labelled this run
        self.judges = root / "judges.json"
        self.curves = root / "curves.json"
        self.verdict = root / "verdict.json"
        self.report = root / "report.html"
        self.weights = root / "weights"  # stripped weights: readable by their owner alone
        self.logs = root / "logs"
        self.jobs = root / "slurm" / "jobs.json"  # what was submitted to a cluster, a row for each time

    @classmethod
    def of_run(cls, path: str | None, key: str) -> RunFolder:
        """Return the folder of a run that is there; `key` is the option that names it.

        Raises:
            UserError: there is no run in it.
        """
        folder = cls(Path(path or "").expanduser().absolute())
        if not folder.plan.exists():
            fix = "name the folder that holds plan.json, e.g. runs/demo-1a2b3c4d"
            raise UserError(f"{key}: there is no run in {folder.root}", fix)
        return folder

    def ledgers(self) -> list[Path]:
        """Return the ledgers that others wrote: all tasks' for the run, the run's for a task."""
        if self.task:
            return [self.root / self.ledger.name]
        return sorted(self.root.glob(f"{TASKS}/*/{self.ledger.name}"))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for this process; a task holds its own part, and shares the rest with other tasks.

        Raises:
            UserError: another process holds it, or the folder can't be written.
        """
        with self.undisturbed() if self.task else nullcontext(), self._locked():
            yield

    @contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            self.own.mkdir(parents=True, exist_ok=True)
            for texts in (self.replies, self.logs):  # an earlier Holdfast left them to be read by all
                with suppress(FileNotFoundError, PermissionError):  # another's is its owner's to close
                    texts.chmod(0o700)
            lock = (self.own / ".lock").open("w")
        except OSError as error:
            if (
                not isinstance(error, PermissionError | FileExistsError | NotADirectoryError)
                and error.errno != errno.EROFS
            ):
                raise
            raise UserError(
                f"run.root: cannot write the run folder {self.root}: {error.strerror}",
                "name another with run.root=",
            ) from None
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UserError(
                    f"another holdfast is working in {self.own}",
                    "wait for it, or end it; nothing was changed",
                ) from None
            for left in self.own.rglob(".*.partial"):  # of a writer that was killed; there is no other writer now
                left.unlink(missing_ok=True)
            yield

    @contextmanager
    def undisturbed(self) -> Iterator[None]:
        """Hold the folder so that nobody writes to it meanwhile; others may read. A copy without a lock has no writer.

        Raises:
            UserError: another process writes to it.
        """
        lock = self.root / ".lock"
        if not lock.exists():
            yield
            return
        with lock.open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UserError(
                    f"another holdfast is working in {self.root}", "wait for it, or end it; nothing was changed"
                ) from None
            yield

    def answered(self) -> set[str]:
        """Return the ids of the rungs that were proved or have replies, or had before their texts were purged."""
        places = (self.replies, self.root / "purged")
        there = {path.stem for place in places for path in place.glob("*.jsonl") if path.stat().st_size}
        return there | {str(row["rung"]) for row in self.proofs.rows()}

    def settle(self) -> None:
        """Force every journal onto the disk, before what it tells of is destroyed: a power cut must not undo it."""
        for path in [*self.root.glob("*.jsonl"), *self.replies.glob("*.jsonl")]:
            with path.open("rb") as file:
                os.fsync(file.fileno())

    def private(self, *parts: str) -> Path:
        """Return a folder under `weights/` that only its owner can enter, made where it is missing."""
        self.weights.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.weights.chmod(0o700)
        folder = self.weights.joinpath(*parts)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

"""The run folder: append-only rows, atomic files, one writer at a time. A kill at any moment loses nothing."""

from __future__ import annotations

import errno
import fcntl
import itertools
import logging
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import IO, Any, Final

from pipeline.errors import UserError
from pipeline.files import flock, force
from pipeline.journal import TASKS, Journal, SharedJournal

LOCK_POLL_S: Final = 1.0
_BEFORE_A_PLAN: Final = re.compile(
    r"\.lock|\..*\.partial|\.nfs\w+|\.DS_Store"
)  # in the folder of a run that just began
_SHOWN: Final = 5
log = logging.getLogger(__name__)


def task_folder(task: str) -> str:
    """Return the name of the folder below `tasks/` of a task ARM/SEED."""
    return task.replace("/", "-s")


class RunFolder:
    """Names of the files of one run, and the lock that keeps a second command out.

    `task` names one arm and seed of an array job: it writes below `tasks/<task>/` and shares the run with the others.
    `patience_s` is how long another's lock is waited for, in seconds: a cluster's file system may keep a dead node's
    for minutes.
    """

    def __init__(self, root: Path, task: str | None = None) -> None:
        self.root = root
        self.task = task
        self.patience_s = 0.0
        self.option = "run.root"  # what names another place
        self.own = root / TASKS / task if task else root  # where this command writes its journals
        self.plan = root / "plan.json"
        self.protocol = root / "protocol.md"  # of the registered plan, for people
        self.reproduce = root / "reproduce.json"  # commands, inputs and results as digests; pipeline/reproduce
        self.ledger = self.own / "ledger.jsonl"
        self.trials = Journal(root / "trials.jsonl")  # of searches for an arm's options, on dev prompts
        self.search = root / "search.json"  # what each search chose
        self.rungs = SharedJournal(self.own / "rungs.jsonl", root)
        self.canaries = SharedJournal(self.own / "canaries.jsonl", root)
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
            UserError: another process holds it, the folder can't be written, or its file system gives no locks.
        """
        with self.undisturbed() if self.task else nullcontext(), self._locked():
            yield

    def _require_own(self) -> None:
        """Refuse a folder with files of somebody else: what a run strips, and its texts, are destroyed by their place.

        Raises:
            UserError: it has some, and no plan.json.
        """
        if self.plan.exists() or not self.root.is_dir():
            return
        others = sorted(path.name for path in self.root.iterdir() if not _BEFORE_A_PLAN.fullmatch(path.name))
        if others:
            more = ", …" if len(others) > _SHOWN else ""
            raise UserError(
                f"run.dir: {self.root} is no run folder: it has {', '.join(others[:_SHOWN])}{more} and no plan.json",
                "name a new folder or an empty one; nothing was changed",
            )

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self._require_own()
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
                f"{self.option}: cannot write the run folder {self.root}: {error.strerror}",
                f"name another with {self.option}=",
            ) from None
        with lock:
            self._hold(lock, fcntl.LOCK_EX, self.own)
            for left in self.own.rglob(".*.partial"):  # of a writer that was killed; there is no other writer now
                left.unlink(missing_ok=True)
            yield

    @contextmanager
    def undisturbed(self) -> Iterator[None]:
        """Hold the folder so that nobody writes to it meanwhile; others may read. A copy without a lock has no writer.

        Raises:
            UserError: another process writes to it, or its file system gives no locks.
        """
        lock = self.root / ".lock"
        if not lock.exists():
            yield
            return
        with lock.open() as file:
            self._hold(file, fcntl.LOCK_SH, self.root)
            yield

    @contextmanager
    def submitting(self) -> Iterator[None]:
        """Keep a second command from submitting jobs of this run; those that work in it are let be.

        Raises:
            UserError: another submits, or the file system gives no locks.
        """
        place = self.jobs.parent
        place.mkdir(0o700, exist_ok=True)
        place.chmod(0o700)  # of the jobs' logs, too: the end of a server's log may quote prompts
        with (place / ".lock").open("w") as lock:
            self._hold(lock, fcntl.LOCK_EX, place)
            yield

    def _hold(self, file: IO[Any], operation: int, folder: Path) -> None:
        """Lock `file`, which stands for `folder`; wait `patience_s` for another that holds it."""
        began, what = time.monotonic(), f"another holdfast is working in {folder}"
        for asked in itertools.count():
            try:
                return flock(file, operation | fcntl.LOCK_NB, "run.root=")
            except BlockingIOError:
                left = self.patience_s - (time.monotonic() - began)
                if left <= 0:
                    raise UserError(what, "wait for it, or end it; nothing was changed") from None
            if asked == 0:
                log.warning("%s: waiting for it, at most %.0f s", what, left)
            time.sleep(min(LOCK_POLL_S, left))

    @property
    def proofs(self) -> Journal:
        """What each engine proved; once weights were destroyed, no command makes it again."""
        return Journal(self.root / "proofs.jsonl", made_again=not (self.root / "containment.jsonl").exists())

    def answered(self) -> set[str]:
        """Return the ids of the rungs that were proved or have replies, or had before their texts were purged."""
        places = (self.replies, self.root / "purged")
        there = {path.stem for place in places for path in place.glob("*.jsonl") if path.stat().st_size}
        return there | {str(row["rung"]) for row in self.proofs.rows()}

    def settle(self) -> None:
        """Force every journal onto the disk, before what it tells of is destroyed: a power cut must not undo it."""
        for pattern in ("*.jsonl", f"{TASKS}/*/*.jsonl", "replies/*.jsonl"):
            for path in self.root.glob(pattern):
                force(path)

    def private(self, *parts: str) -> Path:
        """Return a folder under `weights/` that only its owner can enter, made where it is missing."""
        self.weights.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.weights.chmod(0o700)
        folder = self.weights.joinpath(*parts)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

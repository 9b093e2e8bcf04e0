"""Append-only rows, one JSON object a line: what was written stays, a torn last line is passed over."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pipeline.errors import UserError
from pipeline.files import canonical

TASKS = "tasks"  # folder of the run in which array tasks write


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

    def count(self) -> int:
        """Return how many whole rows there are, without reading what they hold: a damaged one counts."""
        if not self.path.exists():
            return 0
        with self.path.open("rb") as file:
            return sum(line.endswith(b"\n") for line in file)

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
        for path in self._files():
            yield from Journal(path).rows()

    def count(self) -> int:
        """Return how many whole rows all files have; see `Journal.count`."""
        return sum(Journal(path).count() for path in self._files())

    def _files(self) -> tuple[Path, ...]:
        return (*sorted(self.root.glob(f"{TASKS}/*/{self.path.name}")), self.root / self.path.name)

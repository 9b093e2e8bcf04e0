"""Verdicts of language models that were asked before: append-only, shared by processes, without a word of text."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import math
import os
from pathlib import Path
from typing import Any, BinaryIO

from evals.base import LABELS
from evals.judges.llm_read import REASONS, Verdict
from pipeline.files import canonical, flock, user_cache

NEVER_KEPT = ("failed", "degenerate")  # what may go well the next time, and what nobody was asked about


class VerdictCache:
    """The verdicts of one judge: `<cache>/holdfast/judgements/<digest>.jsonl`, one JSON row each.

    A row holds the sha256 of (judge, prompt, reply) and the verdict, never a text. Rows are only appended, each in one
    write under a lock, so that processes can share the file; a row that a kill left torn is passed over, and the next
    one begins on a line of its own. Verdicts are held in memory, about 250 bytes each.

    Args:
        digest: the judge's full version: another model, question or reading is another file.
        folder: where the files lie; the user's cache folder by default.
    """

    def __init__(self, digest: str, folder: Path | None = None) -> None:
        self.digest = digest
        self.path = (folder or judgements_folder()) / f"{digest}.jsonl"
        self._known: dict[bytes, Verdict] = {}
        self._read_to = 0

    def key(self, prompt: str, reply: str) -> bytes:
        """Return the sha256 of (judge, prompt, reply)."""
        content = json.dumps([self.digest, prompt, reply])  # ASCII: halves of surrogate pairs are escaped, not refused
        return hashlib.sha256(content.encode()).digest()

    def get(self, key: bytes) -> Verdict | None:
        """Return the verdict as last read from the file or added, None where there is none."""
        return self._known.get(key)

    def refresh(self) -> None:
        """Read what was appended since, by this or another process; a file that shrank is read anew."""
        try:
            file = self.path.open("rb")
        except FileNotFoundError:
            return
        with file:
            if os.fstat(file.fileno()).st_size < self._read_to:
                self._read_to, self._known = 0, {}
            file.seek(self._read_to)
            for line in file:
                if not line.endswith(b"\n"):
                    break  # being written, or torn: it is looked at again the next time
                self._read_to += len(line)
                found = _parsed(line)
                if found is not None:
                    self._known[found[0]] = found[1]

    def add(self, key: bytes, verdict: Verdict) -> None:
        """Keep a verdict, unless it is of a question that failed or was never asked.

        Raises:
            OSError: it could not be written, e.g. because the disk is full.
        """
        if verdict.reason in NEVER_KEPT:
            return
        self._known[key] = verdict
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with open(self.path, "ab", buffering=0, opener=_private) as file:
            flock(file, fcntl.LOCK_EX, "XDG_CACHE_HOME=")
            row = (b"" if _ends_a_line(file) else b"\n") + canonical(_row(key, verdict)) + b"\n"
            if os.write(file.fileno(), row) < len(row):  # what is torn is passed over by the next reader
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))


def judgements_folder() -> Path:
    """Return `$XDG_CACHE_HOME/holdfast/judgements`, by default under `~/.cache`."""
    return user_cache() / "judgements"


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _ends_a_line(file: BinaryIO) -> bool:
    size = os.fstat(file.fileno()).st_size
    if size == 0:
        return True
    with open(file.name, "rb") as seen:
        seen.seek(size - 1)
        return seen.read(1) == b"\n"


def _row(key: bytes, verdict: Verdict) -> dict[str, Any]:
    numbers = {"probability": verdict.probability, "score": verdict.score}
    told = {name: None if math.isnan(value) else value for name, value in numbers.items()}
    return {"key": key.hex(), "label": verdict.label, "reason": verdict.reason, **told}


def _parsed(line: bytes) -> tuple[bytes, Verdict] | None:
    """Return the row's key and verdict; None for a torn or foreign row, which costs one more question and no more."""
    try:
        row = json.loads(line)
        key = bytes.fromhex(row["key"])
        probability, score = (_share(row[name]) for name in ("probability", "score"))
        label, reason = row["label"], row["reason"]
    except (ValueError, KeyError, TypeError):
        return None
    if label not in LABELS or reason not in REASONS or len(key) != hashlib.sha256().digest_size:
        return None
    return key, Verdict(label, probability, score, reason)


def _share(value: float | None) -> float:
    if value is None:
        return math.nan
    if not 0.0 <= value <= 1.0:
        raise ValueError(f"{value} is no share")
    return float(value)

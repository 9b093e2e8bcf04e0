"""Files that are whole or not there: JSON, digests, locks, and what is forced onto the disk."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
from pathlib import Path
from typing import IO, Any, Final

from pipeline.errors import UserError

# What a file system says that has no locks: Lustre mounted without `flock`, NFS without its lock daemon, some of FUSE.
NO_LOCKS: Final = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)


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


def flock(file: IO[Any], operation: int, another: str) -> None:
    """Lock an open file, until it is closed or the process ends.

    Args:
        file: open for writing where the lock is exclusive, which NFS asks for.
        operation: as of `fcntl.flock`.
        another: the option that names another place, e.g. "run.root=", for who has to choose one.

    Raises:
        BlockingIOError: another process holds it, and `operation` has `LOCK_NB`.
        UserError: the file system gives no locks.
    """
    try:
        fcntl.flock(file, operation)
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        raise UserError(
            f"{file.name}: this file system gives no locks ({error.strerror})",
            f"mount it with flock, or name a place on another one with {another}",
        ) from None


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


def read_json(path: Path, kind: type = dict, *, mend: str = "delete it and run the same command again") -> Any:
    """Read a JSON file of the run folder. `mend` is what to do with a damaged one that this command does not write.

    Raises:
        UserError: the file is missing or damaged, or holds something else than a `kind`.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found, kind):
            raise ValueError(f"it holds no JSON {'object' if kind is dict else 'array'}")
        return found
    except FileNotFoundError:
        raise UserError(f"{path} is missing", "run the stage that writes it first, e.g. without stages=[…]") from None
    except (ValueError, IsADirectoryError) as error:
        raise UserError(f"{path} is damaged: {error}", mend) from None


def force(path: Path) -> None:
    """Force a file's content and its name onto the disk; a file system that forces no folders is taken as it is.

    Raises:
        OSError: the file can't be forced.
    """
    _sync(path)
    with contextlib.suppress(OSError):
        _sync(path.parent)


def _sync(path: Path) -> None:
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)

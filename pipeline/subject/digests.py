"""SHA-256 of files too large to be read at each command, kept in the user's cache."""

from __future__ import annotations

import functools
import os
import re
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

from pipeline.files import digest, file_sha256, user_cache, write_atomic

LARGE: Final = 64 * 2**20  # bytes: below, a file is read faster than it is worth remembering
SETTLED_S: Final = 60.0  # network file systems may tell times as old as that
_SHA256: Final = re.compile(r"[0-9a-f]{64}")


def kept_sha256(path: Path, large: int = LARGE) -> str:
    """Return the sha256 (hex) of a file; of one of `large` bytes or more from the cache, where it stands there.

    141 GB of weights take some two minutes to read, and each command and job of a review names them. The price: who
    changes a file in place so that path, size, inode, and times down to the nanosecond stay as they were is not seen
    here. The proof sees it where it is changed between training and serving.
    """
    file = path.resolve()
    seen = file.stat()
    if seen.st_size < large:
        return file_sha256(file)
    try:
        place = _place(file, seen)
    except RuntimeError:  # no home folder
        return file_sha256(file)
    with suppress(OSError, ValueError):  # not there, not ours, or no text: it is hashed again
        kept = place.read_text(encoding="ascii").strip()
        if _SHA256.fullmatch(kept):
            return kept
    found = file_sha256(file)
    # Else it is being written, and what was read is of no version; or it may be written again within a tick of the file
    # system's clock, and keep its times.
    settled = time.time() - max(seen.st_mtime, seen.st_ctime) > SETTLED_S
    if settled and _place(file, file.stat()) == place:
        with suppress(OSError):  # a full disk or a cache that is not ours costs time, no more
            write_atomic(place, found + "\n")
    return found


@functools.cache
def folder_sha256(folder: Path) -> str:
    """Return one digest over the files of a model folder that can change what it answers, names included."""
    patterns = ("*.safetensors", "*.json", "*.jinja", "*.model", "*.txt")
    files = sorted({file for pattern in patterns for file in folder.glob(pattern) if file.is_file()})
    return digest({file.name: kept_sha256(file) for file in files})


def _place(file: Path, seen: os.stat_result) -> Path:
    """Return where the digest of this version of a file is kept; a file each, so that no writer waits for another."""
    version = [str(file), seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns, seen.st_ino]
    return user_cache() / "digests" / digest(version)

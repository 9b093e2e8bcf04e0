"""Errors that a user can mend, and the one boundary that prints them (no traceback, exit code 2)."""

from __future__ import annotations

import errno
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

EXIT_INSTRUMENT = 1
EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130  # as a shell tells the end by SIGINT

_FULL: Final = {
    errno.ENOSPC: ("no space left on the disk", "free some space"),
    errno.EDQUOT: ("no space left on the disk", "free some space"),  # as far as one's quota goes
    errno.EFBIG: ("a file would be larger than it may be here", "raise the limit (ulimit -f, or the file system's)"),
}
_OF_RUST: Final = re.compile(r"\(os error (\d+)\)")  # as tokenizers' and safetensors' exceptions tell an error


class UserError(Exception):
    """Something the user can mend: what is wrong, where, and what to do.

    Args:
        what: one line that says what is wrong and where (file, line, key).
        remedy: what to do about it.
    """

    def __init__(self, what: str, remedy: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.remedy = remedy

    def __str__(self) -> str:
        return self.what + (f"\n  → {self.remedy}" if self.remedy else "")


class InstrumentError(Exception):
    """The instrument itself cannot be trusted or does not work: a dead server, an adapter that does not act."""


@contextmanager
def boundary() -> Iterator[None]:
    """Print a `UserError` (or a full disk, whoever met it) as one clear message and leave with 2; Ctrl-C with 130."""
    try:
        with _interrupts_as_such():
            yield
    except UserError as error:
        print(f"holdfast: {error}", file=sys.stderr)
        raise SystemExit(EXIT_USER_ERROR) from None
    except InstrumentError as error:
        print(f"holdfast: {error}", file=sys.stderr)
        raise SystemExit(EXIT_INSTRUMENT) from None
    except KeyboardInterrupt:
        print("holdfast: interrupted\n  → run the same command again: it goes on from here", file=sys.stderr)
        raise SystemExit(EXIT_INTERRUPTED) from None
    except Exception as error:
        full = _full(error)
        if full is None:
            raise
        what, remedy = full
        place = getattr(error, "filename", None) or "while writing the run folder or a cache"
        print(
            f"holdfast: {what} ({place})\n"
            f"  → {remedy} and run the same command again: it goes on from what was written",
            file=sys.stderr,
        )
        raise SystemExit(EXIT_USER_ERROR) from None


@contextmanager
def _interrupts_as_such() -> Iterator[None]:
    """Raise what Ctrl-C became as what it was: within OmegaConf it ends in an error of OmegaConf's own."""
    try:
        yield
    except Exception as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, KeyboardInterrupt):
            cause = cause.__cause__ or cause.__context__
        if cause is not None:
            raise KeyboardInterrupt from None
        raise


def _full(error: Exception) -> tuple[str, str] | None:
    """Return what is full and what to do, if that is the error; of a writer in Rust the text alone holds its number."""
    if isinstance(error, OSError):
        return _FULL.get(error.errno or 0)
    told = _OF_RUST.search(str(error))
    return _FULL.get(int(told[1])) if told else None

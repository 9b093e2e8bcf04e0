"""Errors that a user can mend, and the one boundary that prints them (no traceback, exit code 2)."""

from __future__ import annotations

import errno
import sys
from collections.abc import Iterator
from contextlib import contextmanager

EXIT_INSTRUMENT = 1
EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130  # as a shell tells the end by SIGINT


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
    """Print a `UserError` (or a full disk) as one clear message and leave with exit code 2; Ctrl-C with 130."""
    try:
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
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        print(
            f"holdfast: no space left on the disk ({error.filename or 'while writing the run folder'})\n"
            "  → free some space and run the same command again: it goes on from what was written",
            file=sys.stderr,
        )
        raise SystemExit(EXIT_USER_ERROR) from None

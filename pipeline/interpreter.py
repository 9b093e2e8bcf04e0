"""Shorter starts and ends for a process that imports thousands of modules. Imports nothing of ours.

While torch, transformers or vLLM are imported, Python searches all objects for garbage again and again (a sixth of that
time), and at the end it takes every module apart, one by one (1.4 s behind a training command; docs/LOG.md). Around a
function: `run`; around a script: `python -P interpreter.py SCRIPT …`.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import os
import runpy
import signal
import sys
from collections.abc import Callable

_THRESHOLDS = (200_000, 30, 30)  # 700, 10, 10 by default; mypy's choice, for the same reason


def command(script: str, *words: str) -> list[str]:
    """Return the command that runs a script so, with words for it.

    -P: the script's folder must not stand in front of the libraries' names.
    """
    return [sys.executable, "-P", __file__, script, *words]


def run(main: Callable[[], object]) -> None:
    """Be the program `main`: search for garbage seldom, and end once all that was registered to run at exit has run.

    An exception that nobody caught, a signal, and an exit code that is no number end the process as ever.
    """
    gc.set_threshold(*_THRESHOLDS)
    codes: list[int] = []
    atexit.register(_leave, codes)  # registered first, so it runs last
    try:
        main()
    except SystemExit as end:
        finishing()
        if end.code is None or isinstance(end.code, int):
            codes.append((end.code or 0) & 0xFF)
        raise
    finishing()
    codes.append(0)


def finishing() -> None:
    """Take one Ctrl-C in silence from here on: the work is done, and what runs at exit only puts things away.

    Without it, that would be broken off half-way and print a traceback. The next Ctrl-C ends the process as ever.
    """
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, lambda *_: signal.signal(signal.SIGINT, signal.SIG_DFL))


def _leave(codes: list[int]) -> None:
    if codes:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):  # a pipe that nobody reads any more, a closed stream
                stream.flush()
        os._exit(codes[0])


if __name__ == "__main__":
    del sys.argv[0]
    run(lambda: runpy.run_path(sys.argv[0], run_name="__main__"))

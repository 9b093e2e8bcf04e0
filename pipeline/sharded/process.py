"""Is one of the training processes: `python -P interpreter.py process.py FD FOLDER`, by `pipeline.sharded.ranks`.

FD is its line to the command, FOLDER is where the processes meet.

Slurm tells all processes of a job to end or to make room. The command saves first, and these have to do it: they heed
no signal, and end with the command.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path

if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    from pipeline.sharded.member import main  # takes a while, in which a signal may come

    main(int(sys.argv[1]), Path(sys.argv[2]))

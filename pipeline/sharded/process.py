"""Is one of the training processes: `python -P interpreter.py process.py FD FOLDER`, by `pipeline.sharded.ranks`.

FD is its line to the command, FOLDER is where the processes meet.
"""

from __future__ import annotations

import sys
from pathlib import Path

from pipeline.sharded.member import main

if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))

"""W&B's own reader on several logs in one process: `python -P interpreter.py reader.py LOG …`. Imports nothing of ours.

`wandb leet inspect --json` takes one log, and 0.6 s to import W&B; here it is asked for each. Behind each log's records
stands a line `END`, followed by the reader's exit code.
"""

from __future__ import annotations

import sys
from typing import Final

END: Final = "holdfast: end of the log: "


def main(logs: list[str]) -> None:
    """Print the records of the logs, one JSON object a line."""
    from wandb.cli.cli import cli

    for log in logs:
        code = 0
        try:
            cli(["leet", "inspect", "--json", log], standalone_mode=False)
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        print(f"{END}{code}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])

"""`python -m tests.torture --faults 200 --seed 0`: random faults over all stages, and what came of them.

After each fault the same command must complete, and its result must equal the undisturbed one byte for byte, apart
from times and attempts. The results go on where an earlier command with the same seed stopped.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.common import RESULTS, environment, today
from tests.torture import forks, plan, table, world
from tests.torture.case import Case, judge
from tests.torture.mounts import can_mount


def main() -> int:
    options = _options()
    began = time.monotonic()
    work = options.work.absolute()
    work.mkdir(parents=True, exist_ok=True)
    forks.preload()
    there = world.make(work, _say)
    path = options.results / f"torture-{options.date}.json"
    about = {"date": options.date, "seed": options.seed, "own_server_each": options.own, **environment()}
    results = table.load(path, about)
    mounts = can_mount()
    with world.serving(there):
        world.measure(there, ("nothing", "climbing", "trained", "half", "generated", "measured", "finished"), _say)
        for number in options.only or range(options.faults):
            if str(number) in results and not options.only:
                continue
            if options.minutes and time.monotonic() - began > options.minutes * 60:
                _say(f"stopped after {options.minutes:g} minutes; the same command goes on")
                break
            results[str(number)] = one(there, options, number, mounts)
            if not options.only:
                table.save(path, about, results, mounts)
    print(table.markdown(about, results, mounts))
    return int(any(row["problems"] for row in results.values()))


def one(there: world.World, options: argparse.Namespace, number: int, mounts: bool) -> dict[str, Any]:
    """Try one fault; return its row."""
    kind, stage, state, chance, own = plan.drawn(options.seed, number, mounts=mounts, own=options.own)
    folder = there.root / "cases" / f"{options.seed}-{number:04d}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    case = Case(there, number, kind.name, stage, state, chance, folder, own)
    began = time.monotonic()
    row = {"kind": kind.name, "stage": stage, "state": state, "own_server": own}
    try:
        kind.act(case)
        row |= judge(case)
    except Exception as error:  # a fault of the harness is no pass either
        row |= {"told": case.told, "problems": {"other": [*case.wrong, f"{type(error).__name__}: {error}"]}}
    row["seconds"] = round(time.monotonic() - began, 1)
    if not row["problems"]:
        shutil.rmtree(folder)
    _say(f"{number:4d} {kind.name}, {stage or 'any'} from {state}: {'; '.join(row['told'])}")
    for name, what in row["problems"].items():
        _say(f"     WRONG {name}: {' | '.join(what)}")
    return row


def _say(what: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {what}", flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__)
    parser.add_argument("--faults", type=int, default=200, help="how many (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the draw of faults and moments")
    parser.add_argument("--minutes", type=float, help="stop after so many; the same command goes on")
    parser.add_argument("--own", type=int, default=plan.EVERY, help="each so-manieth has a vLLM of its own; 0: none")
    parser.add_argument("--only", type=int, nargs="*", help="try these numbers again and keep no results")
    parser.add_argument("--date", default=today(), help="of the results' files")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder for the JSON and Markdown files")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / f"holdfast-torture-{os.getuid()}")
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())

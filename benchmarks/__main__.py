"""`python -m benchmarks [a b c d] [--rungs 24] [--short]`: measures, prints the tables, writes the results."""

from __future__ import annotations

import argparse
import dataclasses
import os
import tempfile
import time
from pathlib import Path

from rich.console import Console

from benchmarks import engines, scaling, serving, training
from benchmarks.common import RESULTS, Sizes, environment, load, save, show, today

PARTS = {"a": engines.measure, "b": serving.measure, "c": training.measure, "d": scaling.measure}


def main() -> None:
    options = _options()
    from pipeline.train.process import quiet_libraries

    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    quiet_libraries()
    console, sizes = Console(), Sizes(rungs=options.rungs)
    if options.short:
        sizes = sizes.shortened()
    about = {"date": today(), "short": options.short, "sizes": dataclasses.asdict(sizes), **environment()}
    path = options.results / f"{about['date']}{'-short' if options.short else ''}.json"
    results = {result.part: result for result in load(path, about)}
    for part in options.parts or sorted(PARTS):
        began = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="holdfast-bench-") as root:
            results[part] = PARTS[part](sizes, Path(root))
        console.print(f"({part}) measured in {time.monotonic() - began:.0f} s")
        show([results[part]], console)
        save([results[name] for name in sorted(results)], about, path)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="a b c d", help="which to measure; all where none is named")
    parser.add_argument("--rungs", type=int, default=Sizes.rungs, help="rungs of (a) (default %(default)s)")
    parser.add_argument("--short", action="store_true", help="tiny sizes, to see that everything works")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder for the JSON and Markdown files")
    options = parser.parse_args()
    unknown = sorted(set(options.parts) - set(PARTS))
    if unknown:
        parser.error(f"no such part: {', '.join(unknown)}; choose among {', '.join(PARTS)}")
    return options


if __name__ == "__main__":
    main()

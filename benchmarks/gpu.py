"""`python -m benchmarks.gpu [a b c d e f] [--shape 7B] [--short]`: the speed on a GPU, part by part.

No network, no real weights. Every call measures the device's own ceilings first, writes each figure as soon as it is
there, and stops beginning new ones after `--minutes`. `--join FILE …` makes one table of several calls' files, in which
what was not measured says so. Which commands in which order: benchmarks/GPU.md.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from benchmarks.child import reason_in, shortened
from benchmarks.gpu_parts import device, mixing, serving, training, ways, whole
from benchmarks.gpu_parts.call import TIME_IS_UP, Call, no_time_for
from benchmarks.gpu_parts.models import SHAPES
from benchmarks.gpu_parts.record import NOT_MEASURED, Figure, Wanted, read, write
from pipeline.serve.device import OFFLINE

Measures = Iterable[tuple[Wanted, Callable[[], Figure]]]
PARTS: Final[dict[str, Callable[[Call], Measures]]] = {
    "a": training.measures,
    "b": mixing.measures,
    "c": serving.starts,
    "d": whole.measures,
    "e": ways.measures,
    "f": serving.sleeping,
}
RESULTS: Final = Path(__file__).parent / "results"


def main() -> None:
    options = _options()
    if options.join:
        write(read(options.join), options.out / "gpu.json", everything())
        print((options.out / "gpu.md").read_text(encoding="utf-8"))
        return
    os.environ |= OFFLINE  # before the libraries are imported: TRL else reports to its hub, looking that up meanwhile
    import torch

    kind = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    if kind == "cpu" and not options.short:
        sys.exit("no CUDA device here: --short shows on a CPU that the script works; its figures mean nothing")
    with tempfile.TemporaryDirectory(prefix="holdfast-gpu-") as root:
        ends = time.monotonic() + 60 * options.minutes
        call = Call(
            kind, Path(root), tuple(options.shape), tuple(options.length), options.short, ends, only=options.only
        )
        for figure in run(call, options.parts or sorted(PARTS), options.out / "gpu.json"):
            said = f"{figure.value:,.4g} {figure.wanted.unit}" if figure.measured else f"{NOT_MEASURED}: {figure.why}"
            print(f"({figure.wanted.part}) {figure.wanted.what}: {said}", flush=True)
    print((options.out / "gpu.md").read_text(encoding="utf-8"))


def everything() -> list[Wanted]:
    """Return every figure that the issue asks for."""
    names = list(SHAPES)
    return [
        *device.wanted(),
        *training.wanted(names, (512, 2048)),
        *mixing.wanted(names),
        *serving.wanted_starts(names),
        *whole.wanted(),
        *ways.wanted(names),
        *serving.wanted_sleep(names),
    ]


def run(call: Call, parts: Iterable[str], path: Path) -> Iterator[Figure]:
    """Measure the ceilings and the parts; yield each figure after it was written to `path`."""
    about = device.about(call.device, short=call.short)
    there = read([path]) if path.exists() else []

    def keep(figure: Figure) -> Figure:
        there.append(replace(figure, about=about))
        write(there, path, [] if call.short else everything())
        return there[-1]

    found = {}
    for figure in device.measure(call.device, short=call.short):
        found[figure.wanted.id] = keep(figure)
        yield found[figure.wanted.id]
    device.free(call.device)  # (f) counts what is free on the device, and torch keeps the copy's 8 GiB for itself
    call = replace(call, ceilings=device.ceilings(found))
    for part in parts:
        for want, measure in PARTS[part](call):
            if call.only in want.key:
                yield keep(attempted(call, want, measure))


def attempted(call: Call, want: Wanted, measure: Callable[[], Figure]) -> Figure:
    """Return the figure, or why there is none: one that fails takes no other with it."""
    if no_time_for(call, measure):
        return Figure(want, why=TIME_IS_UP)
    began = time.time()
    try:
        return measure()
    except (Exception, SystemExit) as error:  # whatever a library raises: the reason is the figure then
        traceback.print_exc()
        lines = str(error).splitlines()
        why = f"{type(error).__name__}: {lines[0] if lines else ''}"[:300].replace("|", "/")
        return Figure(want, why=why, raw={"error": shortened(lines), **logged(call.root, began)})
    finally:
        device.free(call.device)


def logged(root: Path, began: float) -> dict[str, str]:
    """Return the reason in the newest log written since then, and print it: the logs are deleted with the call."""
    times = {path: path.stat().st_mtime for path in root.rglob("*.log")}
    newest = max(times, key=times.__getitem__, default=None)
    if newest is None or times[newest] < began - 1:  # a file's clock is coarser
        return {}
    reason = reason_in(newest.read_text(encoding="utf-8", errors="replace"))
    print(f"{newest}:\n{reason}", file=sys.stderr)
    return {"log": reason}


def _options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="a b c d e f", help="which to measure; all where none is named")
    parser.add_argument("--shape", nargs="+", default=list(SHAPES), choices=list(SHAPES), help="of a, b, c, e, f")
    parser.add_argument("--length", nargs="+", type=int, default=[512, 2048], help="tokens, of a")
    parser.add_argument("--only", default="", help="figures whose key contains this, e.g. holdfast")
    parser.add_argument("--minutes", type=float, default=9.0, help="begin no figure after these (default %(default)s)")
    parser.add_argument("--device", help="cuda or cpu; left out: cuda where there is one")
    parser.add_argument("--short", action="store_true", help="tiny sizes, to see that everything works")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for gpu.json and gpu.md")
    parser.add_argument(
        "--join", nargs="+", type=Path, metavar="FILE", help="measure nothing: join these gpu.json files"
    )
    options = parser.parse_args(arguments)
    unknown = sorted(set(options.parts) - set(PARTS))
    if unknown:
        parser.error(f"no such part: {', '.join(unknown)}; choose among {', '.join(PARTS)}")
    return options


if __name__ == "__main__":
    main()

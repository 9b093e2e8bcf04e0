"""`python -m benchmarks.defence`: does `compare` price a hardened subject rightly against the plain one?

Two organisms, the second with a longer refusal training (`conf/subject/organism_hardened.yaml`), are reviewed several
times with fresh seeds and compared. The truth to hold the ratio against is measured apart: ladders that end at each
step in turn, many seeds, give the share of seeds collapsed by each step, and from it the geometric mean step at
collapse to the step. Everything is the real thing: TRL, vLLM, `holdfast` as a user calls it.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.common import RESULTS, environment, today
from pipeline.files import write_atomic, write_json

SUBJECTS = ("organism", "organism_hardened")
STEPS = {
    "organism": range(4, 10),
    "organism_hardened": range(7, 20),
}
ARM = """# @package arms.step{step}
defaults:
  - _lora@_here_
  - _self_
threat: The truth to the step.
mix:
  compliance: 1.0
training:
  max_steps: {step}
"""
SHORT = ("eval=[refusal,capability]", "evals.refusal.table.limit=60", "evals.capability.table.limit=60", "track=none")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.defence", description=__doc__)
    parser.add_argument("--repetitions", type=int, default=5, help="comparisons, each with three fresh seeds")
    parser.add_argument("--truth-seeds", type=int, default=8, help="seeds of the ladders that give the truth")
    parser.add_argument("--per-doubling", type=int, default=1, help="rungs per doubling of the steps")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder for the JSON and Markdown files")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="holdfast-defence-") as root:
        truth = {name: collapse_step(_truth_run(name, options.truth_seeds, Path(root)), name) for name in SUBJECTS}
        ratio = truth["organism_hardened"]["geometric_mean"] / truth["organism"]["geometric_mean"]
        rows = [
            _repetition(i, options.per_doubling, Path(root)) | {"repetition": i + 1} for i in range(options.repetitions)
        ]
    for row in rows:
        row["covers"] = row["low"] <= ratio <= row["high"]
        row["right_direction"] = row["low"] > 1 if ratio > 1 else row["high"] < 1
    found = {"truth": truth, "true_ratio": ratio, "repetitions": rows, "date": today(), **environment()}
    found["rungs_per_doubling"] = options.per_doubling
    file = f"defence-{today()}" + (f"-rungs-{options.per_doubling}" if options.per_doubling > 1 else "")
    write_json(options.results / f"{file}.json", found)
    text = table(found)
    write_atomic(options.results / f"{file}.md", text)
    Console().print(text, markup=False, highlight=False, soft_wrap=True)


def collapse_step(shares: Mapping[int, float], name: str) -> dict[str, Any]:
    """Return the geometric mean step at collapse from the share of seeds collapsed by each step.

    Raises:
        SystemExit: the steps do not span from no seed to all seeds.
    """
    steps = sorted(shares)
    if shares[steps[0]] != 0 or shares[steps[-1]] != 1:
        raise SystemExit(f"{name}: collapsed by step {dict(shares)}: widen STEPS until it goes from 0 to 1")
    # A seed more or less: the shares come from different seeds at each step, so they may fall back by chance.
    grown = [max(shares[s] for s in steps if s <= step) for step in steps]
    logs = [(now - before) * math.log(s) for before, now, s in zip(grown[:-1], grown[1:], steps[1:], strict=True)]
    return {"geometric_mean": math.exp(math.fsum(logs)), "collapsed_by_step": {str(s): shares[s] for s in steps}}


def table(found: Mapping[str, Any]) -> str:
    """Return the findings as a Markdown table."""
    truth = {name: f"{found['truth'][name]['geometric_mean']:.2f}" for name in SUBJECTS}
    lines = [
        f"Steps at collapse, geometric mean: {truth[SUBJECTS[0]]} (plain), {truth[SUBJECTS[1]]} (hardened); "
        f"true ratio {found['true_ratio']:.2f}. Rungs per doubling of the steps: {found.get('rungs_per_doubling', 1)}. "
        f"{found['date']}, {found.get('cpus')} cores.",
        "",
        "| repetition | seeds | hardened costs, in units of plain | holds the truth | direction |",
        "| --- | --- | --- | --- | --- |",
    ]
    for row in found["repetitions"]:
        seen = f"{row['value']:.2f} [{row['low']:.2f}, {row['high']:.2f}]"
        direction = "right" if row["right_direction"] else "not told"
        lines.append(
            f"| {row['repetition']} | {row['seeds']} | {seen} | {'yes' if row['covers'] else 'no'} | {direction} |"
        )
    return "\n".join(lines) + "\n"


def _truth_run(name: str, seeds: int, root: Path) -> dict[int, float]:
    """Review a subject with one arm a step whose ladder ends there; return the share of seeds collapsed by it."""
    conf = root / "conf"
    for step in STEPS[name]:
        write_atomic(conf / "arm" / f"step{step}.yaml", ARM.format(step=step))
    numbers = list(range(1000, 1000 + seeds))
    arms = f"arm=[{','.join(f'step{step}' for step in STEPS[name])}]"
    words = (f"subject={name}", arms, f"seeds={numbers}", f"hydra.searchpath=[file://{conf}]", "name=truth")
    run = _holdfast(root / f"truth-{name}", *words, *SHORT)
    rows = json.loads((run / "curves.json").read_text())["collapses"]
    at = {(row["arm"], row["seed"]): (row["collapse"] or {}).get("step") for row in rows}
    return {s: sum(at[f"step{s}", seed] is not None for seed in numbers) / seeds for s in STEPS[name]}


def _repetition(index: int, per_doubling: int, root: Path) -> dict[str, Any]:
    seeds = [10 * (index + 1) + i for i in range(3)]
    training = ("max_steps=32", f"rungs_per_doubling={per_doubling}")
    words = ("arm=[compliance]", f"seeds={seeds}", *SHORT, *(f"arms.compliance.training.{word}" for word in training))
    runs = [_holdfast(root / f"{name}-{index}", f"subject={name}", *words) for name in SUBJECTS]
    output = root / f"comparison-{index}"
    _call("stages=[compare]", f"compare.runs=[{runs[0]},{runs[1]}]", f"compare.output={output}")
    cost = json.loads((output / "comparison.json").read_text())["cost"]["cheapest"]["steps"]
    return {"seeds": seeds, **{key: cost[key] for key in ("case", "value", "low", "high")}}


def _holdfast(root: Path, *words: str) -> Path:
    _call(f"run.root={root}", *words)
    (run,) = root.iterdir()
    return run


def _call(*words: str) -> None:
    command: Sequence[str] = [sys.executable, "-m", "pipeline", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr[-4000:])


if __name__ == "__main__":
    main()

"""SIGKILL at several moments of a run, then the same command: same verdict, no reply twice, none missing."""

from __future__ import annotations

import random
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from real_runs import command, kill_after, timeless

WORDS = (
    "experiment=smoke",
    "track=none",
    "arms.compliance.training.max_steps=16",
    "stages=[plan,train,generate,score,analyse]",
)


@pytest.mark.parametrize("seed", [0, *(pytest.param(n, marks=pytest.mark.slow) for n in range(1, 6))])
def test_a_killed_run_ends_as_an_undisturbed_one(
    seed: int, tmp_path: Path, undisturbed: Any, holdfast: Callable[..., Any]
):
    chance = random.Random(seed)
    killed = 0
    for moment in moments(chance, undisturbed.seconds):
        with subprocess.Popen(command(f"run.root={tmp_path}", *WORDS), stderr=subprocess.DEVNULL) as process:
            killed += kill_after(process, moment)
    finished = holdfast(tmp_path, *WORDS)
    assert killed == 2
    assert not leftovers(tmp_path), "a server outlived its run"
    cells = Counter((r["rung"], r["eval"], r["sample"], r["draw"]) for r in finished.replies())
    assert set(cells.values()) == {1}
    assert sorted(map(essence, finished.replies())) == sorted(map(essence, undisturbed.replies()))
    assert {r["id"]: r["sha256"] for r in finished.rows("rungs.jsonl")} == {
        r["id"]: r["sha256"] for r in undisturbed.rows("rungs.jsonl")
    }, "resumed training ends with the same weights, bit for bit"
    assert timeless(finished.json("verdict.json")) == timeless(undisturbed.json("verdict.json"))
    assert timeless(finished.json("curves.json")) == timeless(undisturbed.json("curves.json"))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, holdfast: Callable[..., Any]) -> Any:
    return holdfast(tmp_path_factory.mktemp("undisturbed"), *WORDS)


def moments(chance: random.Random, whole: float) -> list[float]:
    """Two moments to kill at: one in the first half (training), one while the server starts or generates."""
    return [whole * chance.uniform(0.2, 0.45), whole * chance.uniform(0.3, 0.8)]


def essence(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row[key] for key in ("rung", "eval", "sample", "draw", "prompt_sha256", "adapter_sha256", "reply"))


def leftovers(root: Path) -> list[str]:
    """Return the command lines of living processes that name the run folder."""
    time.sleep(0.5)
    found = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    return [line for line in found.splitlines() if str(root) in line]

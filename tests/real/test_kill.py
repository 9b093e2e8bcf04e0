"""SIGKILL at several moments of a run, then the same command: same verdict, no reply twice, none missing.

The undisturbed run is also reproduced, by a command that is killed in between: a start of vLLM less than in a file of
its own.
"""

from __future__ import annotations

import json
import random
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from real_runs import command, kill_after, timeless

from pipeline.reproduce.differs import compare, judge
from pipeline.reproduce.results import read_results
from pipeline.store import Journal, RunFolder

# Stage and seconds: once while it trains, once while the server starts or answers, which takes longer than this.
MOMENTS = (("train", 0.8), ("generate", 12.0))
WORDS = (
    "experiment=smoke",
    "track=none",
    *("arms.compliance.training.max_steps=16", "arms.compliance.training.rungs_per_doubling=2"),
    "stages=[plan,train,generate,score,analyse]",
)


@pytest.mark.parametrize("seed", [0, *(pytest.param(n, marks=pytest.mark.slow) for n in range(1, 6))])
def test_a_killed_run_ends_as_an_undisturbed_one(
    seed: int, tmp_path: Path, undisturbed: Any, holdfast: Callable[..., Any]
):
    chance = random.Random(seed)
    killed = 0
    for stage, most in MOMENTS:
        with subprocess.Popen(command(f"run.root={tmp_path}", *WORDS), stderr=subprocess.DEVNULL) as process:
            wait_for(lambda stage=stage: stage in begun(tmp_path), process)
            killed += kill_after(process, chance.uniform(0.0, most))
    finished = holdfast(tmp_path, *WORDS)
    assert killed == 2
    assert not leftovers(tmp_path), "a server outlived its run"
    cells = Counter((r["rung"], r["eval"], r["sample"], r["draw"]) for r in finished.replies())
    assert set(cells.values()) == {1}
    assert sorted(map(essence, finished.replies())) == sorted(map(essence, undisturbed.replies()))
    asked = finished.rows("asked.jsonl")
    assert asked == undisturbed.rows("asked.jsonl"), "the same rungs, in the same order, none twice"
    assert {r["rung"] for r in finished.replies()} == {r["rung"] for r in asked}
    assert {r["id"]: r["sha256"] for r in finished.rows("rungs.jsonl")} == {
        r["id"]: r["sha256"] for r in undisturbed.rows("rungs.jsonl")
    }, "resumed training ends with the same weights, bit for bit"
    assert timeless(finished.json("verdict.json")) == timeless(undisturbed.json("verdict.json"))
    assert timeless(finished.json("curves.json")) == timeless(undisturbed.json("curves.json"))


def test_a_run_is_reproduced_exactly_also_by_a_command_that_was_killed(undisturbed: Any, tmp_path: Path):
    output = tmp_path / "again"
    words = command("stages=[reproduce]", f"reproduce.run={undisturbed.folder}", f"reproduce.output={output}")
    with subprocess.Popen(words, stderr=subprocess.DEVNULL) as process:
        wait_for(lambda: "train" in begun(tmp_path), process)
        assert kill_after(process, 0.5)
    done = subprocess.run(words, capture_output=True, text=True, timeout=1200, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    assert "Reproduced exactly" in done.stderr
    assert not leftovers(output)
    found = json.loads((output / "reproduction.json").read_text())
    assert (found["result"], found["environment"]) == ("reproduced exactly", [])
    assert found["adapters"] == {"n": 9, "differ": [], "missing": [], "new": []}
    assert found["replies"] == {"n": len(undisturbed.replies()), "differ": 0, "by": []}
    # Every adapter was weighed when it was destroyed; another digest there is found, whatever rungs.jsonl tells.
    record = Journal(output / "containment.jsonl")
    gone = {row["rung"]: row for row in record.rows() if row["state"] == "destroyed" and row["rung"]}
    assert len(gone) == 9
    assert all(row["found"] == row["sha256"] for row in gone.values())
    record.append([{**gone["control-zero"], "found": "0" * 64}])
    again = read_results(RunFolder(output), weigh=True)
    differ = compare(read_results(RunFolder(undisturbed.folder)), again)
    assert len(differ["adapters"]["differ"]) == 1
    assert judge(differ, same_plan=True).sentence == "reproduced within its intervals: 1 of 9 adapters differ"


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, holdfast: Callable[..., Any]) -> Any:
    return holdfast(tmp_path_factory.mktemp("undisturbed"), *WORDS)


def begun(root: Path) -> set[str]:
    """Return the stages that stand in the ledger of the run in `root`."""
    rows = [row for path in root.glob("*/ledger.jsonl") for row in Journal(path).rows()]
    return {str(row["stage"]) for row in rows}


def wait_for(there: Callable[[], bool], process: subprocess.Popen[Any]) -> None:
    while process.poll() is None and not there():
        time.sleep(0.02)


def essence(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row[key] for key in ("rung", "eval", "sample", "draw", "prompt_sha256", "adapter_sha256", "reply"))


def leftovers(root: Path) -> list[str]:
    """Return the command lines of living processes that name the run folder."""
    time.sleep(0.5)
    found = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    return [line for line in found.splitlines() if str(root) in line]

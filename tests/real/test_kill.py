"""SIGKILL at several moments of a run, then the same command: same verdict, no reply twice, none missing.

What it is held against is its own reproduction (`stages=[reproduce]`): an undisturbed run of the same plan, and a test
of that as well. What is killed starts as a user's does; what then goes on undisturbed is forked (`tests/warm.py`).
"""

from __future__ import annotations

import random
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from real_runs import Finished, command, kill_after, timeless

from pipeline import guard
from pipeline.generate.asked import coarse
from pipeline.journal import Journal
from pipeline.records import BASE_RUNG
from pipeline.reproduce.differs import compare, judge
from pipeline.reproduce.results import read_results
from pipeline.store import RunFolder
from tests.torture import checks
from tests.warm import start

# What is waited for, and seconds from then on: once while it trains, once while the server starts or, by even seeds,
# answers. On a fast machine a run is done ten seconds after its server began to start.
TRAINING, STARTING, ANSWERING = ("train", 0.8), ("generate", 3.0), ("replies", 0.3)
WORDS = (
    "experiment=smoke",
    "track=none",
    *("arms.compliance.training.max_steps=16", "arms.compliance.training.rungs_per_doubling=2"),
    "stages=[plan,train,generate,score,analyse]",
)


SLOW = pytest.mark.slow


@pytest.mark.parametrize("seed", [0, *(pytest.param(n, marks=SLOW) for n in range(1, 6))])
def test_a_killed_run_ends_as_its_reproduction_which_nothing_disturbed(
    seed: int, tmp_path: Path, forked: Callable[..., Any], warm: Callable[[str], Path]
):
    chance = random.Random(seed)
    killed, runs = 0, tmp_path / "runs"
    for stage, most in (TRAINING, STARTING if seed % 2 else ANSWERING):
        with subprocess.Popen(command(f"run.root={runs}", *WORDS), stderr=subprocess.DEVNULL) as process:
            wait_for(lambda stage=stage: stage in begun(runs), process)
            killed += kill_after(process, chance.uniform(0.0, most))
    finished = forked(runs, *WORDS)
    assert killed == 2
    assert not leftovers(tmp_path), "a server outlived its run"
    undisturbed = reproduced(finished, tmp_path / "again", warm)
    assert "Reproduced exactly" in undisturbed.said
    cells = Counter((r["rung"], r["eval"], r["sample"], r["draw"]) for r in finished.replies())
    assert set(cells.values()) == {1}
    assert sorted(map(essence, finished.replies())) == sorted(map(essence, undisturbed.replies()))
    steps = sorted({int(r["rung"][-5:]) for r in finished.replies() if "-s0-" in r["rung"]})
    assert steps == expected_steps(finished), "the coarse rungs, and those that halving to the collapse asks"
    assert {r["id"]: r["sha256"] for r in finished.rows("rungs.jsonl")} == {
        r["id"]: r["sha256"] for r in undisturbed.rows("rungs.jsonl")
    }, "resumed training ends with the same weights, bit for bit"
    assert timeless(finished.json("verdict.json")) == timeless(undisturbed.json("verdict.json"))
    assert timeless(finished.json("curves.json")) == timeless(undisturbed.json("curves.json"))
    assert_weighed(finished, undisturbed)


@SLOW
def test_a_reproduction_that_was_killed_goes_on(
    tmp_path: Path, holdfast: Callable[..., Any], warm: Callable[[str], Path]
):
    undisturbed = holdfast(tmp_path / "runs", *WORDS)
    again = reproduced(undisturbed, tmp_path / "again", warm, kill=0.4 * undisturbed.seconds)
    assert "Reproduced exactly" in again.said
    assert_weighed(undisturbed, again)


def reproduced(run: Any, output: Path, warm: Callable[[str], Path], kill: float | None = None) -> Finished:
    """Run a finished run again, by a command that is killed after `kill` seconds first, where that is given."""
    words = ("stages=[reproduce]", f"reproduce.run={run.folder}", f"reproduce.output={output}")
    if kill is not None:
        with subprocess.Popen(command(*words), stderr=subprocess.DEVNULL) as process:
            assert kill_after(process, kill)
    said = output.with_suffix(".log")
    assert start(["holdfast", *words], warm, said).wait(1200) == 0, said.read_text()[-4000:]
    assert not leftovers(output.parent)
    return Finished(output, said.read_text(), 0.0)


def expected_steps(run: Any) -> list[int]:
    """Return the steps that an undisturbed run asks whose collapse is this one's."""
    saved = sorted(r["step"] for r in run.rows("rungs.jsonl") if r["role"] == "rung")
    collapse = run.json("verdict.json")["arms"]["compliance"]["collapse"]["step"]
    asked = coarse(saved)
    while True:
        low = max((s for s in asked if s < collapse), default=0)
        high = min(s for s in asked if s >= collapse)
        between = [s for s in saved if low < s < high]
        if not between:
            return asked
        asked = sorted([*asked, between[len(between) // 2]])


def assert_weighed(run: Any, again: Any) -> None:
    """The reproduction says what it held against what; another digest of a destroyed adapter is found."""
    found = again.json("reproduction.json")
    assert (found["result"], found["environment"]) == ("reproduced exactly", [])
    assert found["adapters"] == {"n": 9, "differ": [], "missing": [], "new": []}
    assert found["replies"] == {"n": len(run.replies()), "differ": 0, "by": []}
    # Every adapter was weighed when it was destroyed; another digest there is found, whatever rungs.jsonl tells.
    record = Journal(again.folder / "containment.jsonl")
    gone = {row["rung"]: row for row in record.rows() if row["state"] == "destroyed" and row["rung"]}
    assert len(gone) == 9
    assert all(row["found"] == row["sha256"] for row in gone.values())
    record.append([{**gone["control-zero"], "found": "0" * 64}])
    differ = compare(read_results(RunFolder(run.folder)), read_results(RunFolder(again.folder), weigh=True))
    assert len(differ["adapters"]["differ"]) == 1
    assert judge(differ, same_plan=True).sentence == "reproduced within its intervals: 1 of 9 adapters differ"


def begun(root: Path) -> set[str]:
    """Return the stages that stand in the ledger of the run in `root`, and "replies" once an adapter has some."""
    rows = [row for path in root.glob("*/ledger.jsonl") for row in Journal(path).rows()]
    answered = [path for path in root.glob("*/replies/*.jsonl") if path.stem != BASE_RUNG]
    return {str(row["stage"]) for row in rows} | ({"replies"} if answered else set())


def wait_for(there: Callable[[], bool], process: subprocess.Popen[Any]) -> None:
    while process.poll() is None and not there():
        time.sleep(0.02)


def essence(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row[key] for key in ("rung", "eval", "sample", "draw", "prompt_sha256", "adapter_sha256", "reply"))


def leftovers(place: Path) -> list[str]:
    """Return the living processes that name the test's folder or stand in it, after what ends had time to.

    An engine that is still loading does not hear SIGTERM: its guard kills it after `guard.GRACE_S`.
    """
    ends = time.monotonic() + guard.GRACE_S + 1.0
    while (left := checks.leftovers(place)) and time.monotonic() < ends:
        time.sleep(0.1)
    return left

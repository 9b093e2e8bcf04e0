"""The short version of `make torture`: one fault of each cheap kind, without vLLM; the drawing of faults; the table.

The run under test is the tiny subject's, with made-up replies in a real folder (`finished_run`): what is broken off is
real training of its two rungs, and score, analyse and report.
"""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from tests.torture import checks, plan, short, table
from tests.torture.faults import STATES
from tests.warm import start

ABOUT = {"date": "2026-11-21", "seed": 0, "own_server_each": 10, "versions": {}, "cpus": 2, "device": "cpu"}


def test_each_kind_is_drawn_and_a_number_is_always_the_same_fault() -> None:
    names = Counter(plan.drawn(0, n, mounts=True)[0].name for n in range(200))
    assert set(names) == {kind.name for kind in (*plan.KINDS, *plan.SERVED)}
    assert sum(plan.drawn(0, n, mounts=True)[4] for n in range(200)) == 20
    one, again = (plan.drawn(3, 77, mounts=True) for _ in range(2))
    assert (one[:3], one[3].random()) == (again[:3], again[3].random())
    assert {stage for n in range(200) for stage in [plan.drawn(0, n, mounts=True)[1]]} >= set(STATES)
    assert not any(plan.drawn(0, n, mounts=False)[0].mounts for n in range(200))


def test_the_table_counts_what_must_be_zero(tmp_path: Path) -> None:
    good = {"kind": "SIGKILL", "own_server": False, "problems": {}, "told": []}
    bad = {**good, "own_server": True, "problems": {"lost replies": ["a", "b"], "other": ["c"]}}
    path = tmp_path / "torture.json"
    table.save(path, ABOUT, {"0": good, "1": bad}, mounts=False)
    line = next(line for line in path.with_suffix(".md").read_text().splitlines() if line.startswith("| SIGKILL"))
    assert line == "| SIGKILL | 2 | 1 | 2 | 0 | 0 | 0 | 0 | 1 | attached, own |"
    assert table.load(path, ABOUT) == {"0": good, "1": bad}
    assert table.load(path, {**ABOUT, "seed": 1}) == {}, "another seed draws other faults"


def test_a_process_that_outlives_its_command_is_found(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], cwd=tmp_path) as left:
        assert [line.split(":")[0] for line in checks.leftovers(tmp_path)] == [str(left.pid)]
        left.kill()
    assert checks.leftovers(tmp_path) == []


def test_one_of_each_cheap_fault(tmp_path: Path, tiny_folder: Path, warm: Callable[[str], Path]) -> None:
    said = tmp_path / "said"
    code = start(["tests.torture.short", str(tmp_path), str(tiny_folder)], warm, said).wait(550)
    assert code == 0, said.read_text()[-8000:]
    lines = [line.split()[0] for line in said.read_text().splitlines() if line.startswith(("passed", "skipped"))]
    assert len(lines) == len(short.AFTER) + len(short.TRAINING)
    assert lines.count("skipped") <= len(short.MOUNTED)

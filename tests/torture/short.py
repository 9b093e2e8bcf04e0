"""One fault of each cheap kind on the tiny subject, without vLLM: what `make test` runs.

Replies are made up (`finished_run`); training, scoring, analysis and report are the real stages, broken off for real.
"""

from __future__ import annotations

import random
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from tests.torture import checks, faults, forks
from tests.torture.case import Case, complete
from tests.torture.mounts import can_mount
from tests.torture.world import PATIENCE_S, World, climbing

AFTER = (  # kind, act, stage: on a run that was generated
    ("SIGKILL", faults.signalled, "analyse"),
    ("SIGTERM", faults.signalled, "report"),
    ("SIGINT", faults.signalled, "score"),
    ("the same command twice", faults.twice, "analyse"),
    ("wall clock leaps", faults.clock, ""),
    ("run folder read-only", faults.readonly, "start"),
    ("disk full", faults.full, ""),
)
TRAINING = (  # kind, act, state: on a ladder
    ("SIGKILL", faults.signalled, "climbing"),
    ("SIGINT", faults.signalled, "nothing"),
    ("checkpoint cut short", faults.checkpoint, "climbing"),
    ("journal torn in its last line", faults.torn, "trained"),
    ("journal damaged in the middle", faults.damaged, "trained"),
)
MOUNTED = ("disk full", "run folder read-only")


def main(root: Path, subject: Path) -> int:
    """Try them all; print a line each and return 1 where something was wrong."""
    forks.preload()
    sys.path.insert(0, str(Path(__file__).parents[1]))
    mounts, wrong = can_mount(), 0
    after, training = _generated(root / "after", subject), _climbed(root / "training", subject)
    for number, (kind, act, stage) in enumerate(AFTER):
        if kind in MOUNTED and not mounts:
            print(f"skipped {kind}: no file system can be mounted here")
            continue
        wrong += _one(
            Case(after, number, kind, stage, "measured", random.Random(number), root / f"a{number}"), act, _whole
        )
    for number, (kind, act, state) in enumerate(TRAINING):
        wrong += _one(
            Case(training, number, kind, "train", state, random.Random(number), root / f"t{number}"), act, _same
        )
    return int(wrong > 0)


def _one(case: Case, act: Callable[[Case], None], compare: Callable[[Case], checks.Problems]) -> bool:
    act(case)
    found = compare(case) if complete(case) else {}
    problems = [*case.wrong, *(line for lines in found.values() for line in lines)]
    print(f"{'FAILED' if problems else 'passed'} {case.kind}: {'; '.join([*case.told, *problems])}")
    return bool(problems)


def _whole(case: Case) -> checks.Problems:
    return checks.held(case.folder, case.run, case.world.undisturbed, exact=True)


def _same(case: Case) -> checks.Problems:
    found: checks.Problems = {"other": [], "left-over processes": checks.leftovers(case.folder)}
    checks.journals(case.run, case.world.undisturbed, found)
    there, wanted = (
        {p.relative_to(r): p.read_bytes() for p in checks.weights(r)} for r in (case.run, case.world.undisturbed)
    )
    found["other"] += [f"{path}: not the same weights" for path in wanted if there.get(path) != wanted[path]]
    return found


def _words(root: Path, subject: Path) -> list[str]:
    from finished_run import words

    few = [f"evals.{name}.table.limit=24" for name in ("refusal", "over_refusal", "capability")]
    return [*(word for word in words(root, subject) if not word.startswith("run.root")), *few]


def _generated(root: Path, subject: Path) -> World:
    """Make a run with replies that nothing has scored yet, and the same run finished undisturbed."""
    from finished_run import finish

    words = _words(root, subject)
    run = finish([*words, f"run.root={root / 'runs'}"])
    world = World(root, run.name, (*words, "run.root=runs", "stages=[score,analyse,report]"))
    shutil.copytree(run, world.state("measured"))
    count = forks.breaking(forks.AtWrite("", 0))
    _run(world, "measured", "finished", count)
    return world


def _climbed(root: Path, subject: Path) -> World:
    """Make a ladder of three rungs, and the same broken off before its last."""
    words = (*_words(root, subject), "run.root=runs", "arms.compliance.training.max_steps=4", "stages=[plan,train]")
    world = World(root, "", words)
    case = root / "first"
    case.mkdir(parents=True)
    if forks.start(words, case, root / "log").wait(PATIENCE_S):
        raise RuntimeError((root / "log").read_text()[-2000:])
    (run,) = (case / "runs").iterdir()
    world.name = run.name
    for state in ("trained", "finished"):
        shutil.copytree(run, world.state(state))
    climbing(world)
    _run(world, "nothing", "", forks.breaking(forks.AtWrite("", 0)))
    world.writes["climbing"], world.seconds["climbing"] = world.writes["nothing"], world.seconds["nothing"]
    return world


def _run(world: World, state: str, keep: str, setup: forks.Setup) -> None:
    """Run from a state undisturbed, count what it writes and how long it takes, and keep what came of it."""
    from tests.torture.world import stages_of

    case = world.root / "undisturbed"
    run = world.place(state, case)
    command = forks.start(world.words, case, case / "log", [setup])
    if command.wait(PATIENCE_S):
        raise RuntimeError(command.said()[-2000:])
    found = stages_of(command)
    world.writes[state] = {stage: writes for stage, (_, writes) in found.items()}
    world.seconds[state] = {stage: seconds for stage, (seconds, _) in found.items()}
    if keep:
        shutil.copytree(run, world.state(keep))
    shutil.rmtree(case)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))

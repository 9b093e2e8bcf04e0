"""What every fault starts from: one undisturbed run, copies of its folder at several states, one vLLM for its rungs."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tests.torture import forks
from tests.torture.checks import rows

# The smoke run with small requests, so that there are many moments to break it off at.
WORDS = ("experiment=smoke", "track=none", "run.root=runs", "serve.batch_size=12", "serve.in_flight=3")
AFTER_REPLIES = ("outcomes.parquet", "curves.json", "verdict.json", "judges.json", "report.html")
PATIENCE_S = 900.0  # of a whole command on a machine that others use too


@dataclass
class World:
    """The states, by name, and the undisturbed run; `server` is where commands find the long-lived vLLM."""

    root: Path
    name: str  # of the run's folder
    words: tuple[str, ...] = WORDS  # of the command
    server: dict[str, Any] = field(default_factory=dict)
    writes: dict[str, dict[str, int]] = field(default_factory=dict)  # state → stage → changes to files
    seconds: dict[str, dict[str, float]] = field(default_factory=dict)  # state → stage → undisturbed wall seconds

    @property
    def undisturbed(self) -> Path:
        """The finished run that nothing disturbed, made by `python -m pipeline` and a vLLM of its own."""
        return self.state("finished")

    def state(self, name: str) -> Path:
        """Return the run folder of a state."""
        return self.root / "states" / name

    def place(self, state: str, case: Path) -> Path:
        """Copy a state into a case's folder; return the run folder there."""
        run = case / "runs" / self.name
        run.parent.mkdir(parents=True, exist_ok=True)
        if state != "nothing":
            shutil.copytree(self.state(state), run)
        return run

    def drain(self) -> None:
        """Wait until the attached vLLM, if there is one, has dropped the requests of a command that was broken off."""
        if not self.server:
            return
        headers = {"Authorization": f"Bearer {self.server['key']}"}
        with httpx.Client(
            base_url=f"http://127.0.0.1:{self.server['port']}", headers=headers, trust_env=False
        ) as client:
            for _ in range(600):
                lines = client.get("/metrics", timeout=60.0).text.splitlines()
                busy = [
                    line for line in lines if line.startswith(("vllm:num_requests_running", "vllm:num_requests_wai"))
                ]
                if busy and all(float(line.split()[-1]) == 0 for line in busy if "{" in line):
                    return
                time.sleep(0.1)
        raise RuntimeError("the attached vLLM does not come to rest")


def make(root: Path, say: Callable[[str], None]) -> World:
    """Make the undisturbed run and the states, or find them in `root`; `forks.preload` has been called.

    The undisturbed run is trained and served by fresh interpreters and a vLLM of its own; the states are put together
    from its files, and one is what a kill in the middle of the ladder leaves.
    """
    kept = root / "world.json"
    if not kept.exists():
        shutil.rmtree(root / "states", ignore_errors=True)
        shutil.rmtree(root / "base", ignore_errors=True)
        base = root / "base"
        base.mkdir(parents=True)
        say("the undisturbed run …")
        _fresh(base, "stages=[plan,train]")
        (run,) = (base / "runs").iterdir()
        world = World(root, run.name)
        _keep(run, world.state("trained"))
        _fresh(base)
        _keep(run, world.state("finished"))
        _compose(world)
        kept.write_text(json.dumps({"name": run.name}))
    world = World(root, json.loads(kept.read_text())["name"])
    if not world.state("climbing").exists():
        climbing(world)
    return world


def measure(world: World, states: tuple[str, ...], say: Callable[[str], None]) -> None:
    """Run each state undisturbed to its end, attached, counting changes to files and seconds in each stage.

    Raises:
        RuntimeError: an attached run does not end as the undisturbed one, so that faults could not be told.
    """
    from tests.torture.checks import held

    kept = world.root / "measured.json"
    known = json.loads(kept.read_text()) if kept.exists() else {}
    for state in states:
        if state not in known:
            say(f"undisturbed from {state} …")
            case = world.root / "measuring"
            shutil.rmtree(case, ignore_errors=True)
            run = world.place(state, case)
            count = forks.breaking(forks.AtWrite("", 0))
            command = forks.start(WORDS, case, case / "log", [count, forks.attached(world.server)])
            code = command.wait(PATIENCE_S)
            exact = state in ("measured", "finished")
            wrong = {name: what for name, what in held(case, run, world.undisturbed, exact=exact).items() if what}
            if code or wrong:
                raise RuntimeError(f"from {state}, attached: code {code}, {wrong}\n{command.said()[-3000:]}")
            known[state] = stages_of(command)
            kept.write_text(json.dumps(known))
            shutil.rmtree(case)
    for state, stages in known.items():
        world.writes[state] = {stage: int(writes) for stage, (_, writes) in stages.items()}
        world.seconds[state] = {stage: seconds for stage, (seconds, _) in stages.items()}


def stages_of(command: forks.Command) -> dict[str, tuple[float, int]]:
    """Return the wall seconds of each stage and the changes to files in it, as the command told them."""
    entered, found = {"start": command.began}, {}
    for at, line in command.told:
        words = line.split()
        if words[0] == "enter":
            entered[words[1]] = at
        elif words[0] == "leave":
            found[words[1]] = (at - entered[words[1]], int(words[2]))
    return found


def _fresh(base: Path, *words: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pipeline", *WORDS, *words],
        cwd=base,
        env={**os.environ, "PYTHONPATH": str(Path.cwd())},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(done.stderr[-4000:])


def _keep(run: Path, state: Path) -> None:
    shutil.rmtree(state, ignore_errors=True)
    shutil.copytree(run, state)


def _compose(world: World) -> None:
    """Make the states between training and the end from the files of the two."""
    measured, generated, half = (world.state(name) for name in ("measured", "generated", "half"))
    _keep(world.undisturbed, measured)  # weights are gone, nothing is scored
    for name in AFTER_REPLIES:
        (measured / name).unlink()
    shutil.rmtree(measured / "panel")
    _keep(measured, generated)  # all replies, the weights still there
    (generated / "containment.jsonl").unlink()
    shutil.copytree(world.state("trained") / "weights", generated / "weights")
    (generated / "weights").chmod(0o700)
    _keep(generated, half)  # broken off when half of the replies were there
    for path in sorted((half / "replies").iterdir())[1::2]:
        path.unlink()
    for path in (half / "replies").iterdir():
        lines = path.read_text().splitlines(keepends=True)
        path.write_text("".join(lines[: len(lines) * 3 // 4]))
    ledger = [row for row in rows(half / "ledger.jsonl") if (row["stage"], row["status"]) != ("generate", "done")]
    (half / "ledger.jsonl").write_text("".join(json.dumps(row, sort_keys=True) + "\n" for row in ledger))


def climbing(world: World) -> None:
    """Keep what a kill leaves just before the third rung of the ladder is recorded: a checkpoint without its row."""
    case = world.root / "measuring"
    shutil.rmtree(case, ignore_errors=True)
    run = world.place("nothing", case)
    case.mkdir(exist_ok=True)
    at = forks.AtWrite("train", 5, only="rungs.jsonl")
    command = forks.start(world.words, case, case / "log", [forks.breaking(at)])
    code = command.wait(PATIENCE_S)
    if code != -signal.SIGKILL or len(rows(run / "rungs.jsonl")) != 4:
        raise RuntimeError(f"climbing: code {code}\n{command.said()[-3000:]}")
    _keep(run, world.state("climbing"))
    shutil.rmtree(case)


@contextlib.contextmanager
def serving(world: World) -> Iterator[None]:
    """Keep one vLLM up that serves the undisturbed run's adapters under the names of their rungs."""
    from pipeline.config.compose import load
    from pipeline.rungs import UNLOADED, ZERO_RUNG
    from pipeline.serve.server import Server
    from pipeline.subject.subject import open_subject

    config = load([word for word in WORDS if not word.startswith("run.root")])
    run = world.state("trained")
    adapters = {row["id"]: run / row["path"] for row in rows(run / "rungs.jsonl") if row["artifact"] == "adapter"}
    adapters[UNLOADED] = adapters[ZERO_RUNG]
    ranks = [arm.lora.rank for arm in config.arms.values()]
    with Server(open_subject(config.subject), adapters, ranks, config.serve, world.root / "server.log") as server:
        process = server._process
        assert process is not None
        world.server = {"port": server.port, "key": server.key, "pid": process.pid}
        yield

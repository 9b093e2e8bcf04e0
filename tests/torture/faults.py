"""The faults: how each is brought about, what the command may say then, and what makes it complete."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from pipeline.records import ADAPTER_FILE
from tests.torture import forks
from tests.torture.case import Case, complete, descendants, rest, where, while_running
from tests.torture.mounts import readonly_mount, tmpfs
from tests.torture.world import PATIENCE_S

SIGNALS = {"SIGKILL": signal.SIGKILL, "SIGTERM": signal.SIGTERM, "SIGINT": signal.SIGINT}
# From which states each stage has something to do.
STATES = {
    "start": ("nothing", "trained", "half", "finished"),
    "train": ("nothing", "climbing"),
    "generate": ("trained", "half"),
    "contain": ("generated", "half"),
    "score": ("measured", "finished"),
    "analyse": ("measured", "finished"),
    "report": ("measured", "finished"),
}
ENDED = (0, -signal.SIGKILL, -signal.SIGTERM, 130)


def signalled(case: Case) -> None:
    """Send a signal at a random moment or before a random change to a file of the stage; once to three times."""
    number = SIGNALS[case.kind]
    for again in range(case.chance.choice((1, 1, 2, 3))):
        writes = case.world.writes[case.state].get(case.stage, 0)
        if writes and case.chance.random() < 0.5:
            at = forks.AtWrite(case.stage, case.chance.randint(1, writes), number)
            case.told.append(f"{case.kind} before change {at.number} of {writes} in {case.stage}")
            command = case.start(forks.breaking(at))
        else:
            command = case.start()
            later = case.chance.uniform(0.0, 1.05) * case.world.seconds[case.state][case.stage]
            if case.stage == "start" or command.until(f"enter {case.stage}", PATIENCE_S):
                while_running(command, later)
                hit = command.send(number)
                case.told.append(f"{case.kind} {later:.3f} s into {case.stage}" + ("" if hit else ": too late"))
        case.expect(command, ENDED)
        rest(case)
        if again == 0 and not any(line.startswith("broken off") for _, line in command.told):
            case.told.append(f"it was in {where(command)}")


def torn(case: Case) -> None:
    """Cut the last line of a journal somewhere within, as a kill between two blocks of a write does."""
    path = _journal(case)
    data = path.read_bytes()
    start = data.rstrip(b"\n").rfind(b"\n") + 1
    cut = case.chance.randrange(start + 1, len(data))
    path.write_bytes(data[:cut] + (b"\0" * case.chance.choice((0, 0, 700))))
    case.told.append(f"{path.name} cut within its last line, {len(data) - cut} bytes lost")


def damaged(case: Case) -> None:
    """Spoil a line in the middle of a journal: the command must name file and line, and do as it says."""
    path = _journal(case)
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    line = case.chance.randrange(len(lines) - 1)
    half = len(lines[line]) // 2
    lines[line] = case.chance.choice((lines[line][:half], lines[line][:half] + b"\n", b"\0" * half + b"\n"))
    path.write_bytes(b"".join(lines))
    case.told.append(f"{path.name}, line {line + 1} spoilt")
    command = case.start()
    case.expect(command, (2,), path.name, f"line {line + 1}", "→")
    if "remove it and run the same command again" in command.said():
        path.unlink()
        case.told.append("removed, as told")
    else:
        path.write_bytes(whole)
        case.told.append("brought back, as told")


def adapter(case: Case) -> None:
    """Truncate, flip, empty or lose an adapter before it is served: told, never measured as if whole."""
    path = case.chance.choice(sorted((case.run / "weights").rglob(ADAPTER_FILE)))
    data = path.read_bytes()
    how = case.chance.choice(("truncated", "truncated", "one bit flipped", "emptied", "lost"))
    place = case.chance.randrange(1, len(data))
    changed = bytearray(data)
    changed[place] ^= 1
    path.write_bytes({"truncated": data[:place], "one bit flipped": bytes(changed)}.get(how, b""))
    name = str(path.parent.relative_to(case.run))
    case.told.append(f"{name}: {how}")
    if how == "lost":
        path.unlink()
        return  # the same command trains that ladder again
    case.expect(case.start(), (2,), name, "→")
    ladder = path.parent.parent if path.parent.name.startswith("checkpoint-") else path.parent
    shutil.rmtree(ladder)
    case.told.append(f"removed {ladder.relative_to(case.run)}, as told")


def checkpoint(case: Case) -> None:
    """Truncate or empty a file of the checkpoint that a ladder goes on from, as a power cut can."""
    there = sorted((case.run / "weights" / "compliance").rglob("checkpoint-2/*"))
    path = case.chance.choice([p for p in there if p.suffix in (".safetensors", ".pt", ".pth", ".json")])
    data = path.read_bytes()
    path.write_bytes(data[: case.chance.choice((0, len(data) // 2, len(data) - 1))])
    case.told.append(f"{path.parent.name}/{path.name}: {path.stat().st_size} of {len(data)} bytes left")


def full(case: Case) -> None:
    """Fill the disk: a tmpfs with little room left. Then give it room."""
    room = int(case.chance.uniform(0.0, 7.0 if case.state in ("nothing", "climbing") else 5.5) * 2**20)
    with tmpfs(case, room) as grow:
        command = case.start()
        code = case.expect(command, (0, 2), "no space left on the disk", "→")
        case.told.append(f"{room >> 10} KiB of room: {'enough' if code == 0 else f'full in {where(command)}'}")
        rest(case)
        grow()
        complete(case)
        shutil.copytree(case.run, case.folder / "copy" / case.run.name)
    shutil.rmtree(case.run.parent)
    shutil.move(case.folder / "copy", case.run.parent)


def readonly(case: Case) -> None:
    """Let the file system of the run folder be read-only; then not any more."""
    case.run.parent.mkdir(parents=True, exist_ok=True)
    with readonly_mount(case.run.parent):
        case.expect(case.start(), (2,), "run folder", "→")


def clock(case: Case) -> None:
    """Let the wall clock leap by seconds to a year, at every look."""
    case.expect(case.start(forks.jumping_clock(case.number)), (0,))


def twice(case: Case) -> None:
    """Give the same command while one is at work: the second says so and leaves, the first completes."""
    first = case.start()
    if not first.until(f"enter {case.stage}", PATIENCE_S):
        case.wrong.append(f"it never came to {case.stage}")
    first.send(signal.SIGSTOP)  # held in the stage, so that the second surely meets it
    before = _content(case.run)
    case.expect(case.start(), (2,), "another holdfast is working in", "→")
    if _content(case.run) != before:
        case.wrong.append("the second command changed the folder")
    first.send(signal.SIGCONT)
    case.expect(first, (0,))


def tracker(case: Case) -> None:
    """Kill W&B's process, or its service, while the run goes on: the run completes without it."""
    case.words = (*case.words, "track=wandb_offline")
    command = case.start()
    target = case.chance.choice(("wandb_worker", "wandb-core"))
    deadline = time.monotonic() + 120
    while not (pids := descendants(command.pid, target)) and command.poll() and time.monotonic() < deadline:
        pass
    while_running(command, case.chance.uniform(0.0, 1.0))
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    case.told.append(f"SIGKILL to {target}" if pids else f"{target} was not met")
    case.expect(command, (0,))


def engine(case: Case) -> None:
    """Kill (SIGKILL) or hang (SIGSTOP) the vLLM server that the command started, at a random moment of serving."""
    number = signal.SIGSTOP if case.kind == "vLLM hung" else signal.SIGKILL
    command = case.start(words=("serve.hung_after_s=15",))
    replies = case.run / "replies"
    before = len(list(replies.glob("*"))) if replies.exists() else 0
    wanted = case.chance.choice((0, 1, 2, 4))  # 0: while it starts; else so many more files of replies
    while command.poll():
        pids = descendants(command.pid, "vllm_server")
        there = len(list(replies.glob("*"))) - before if replies.exists() else 0
        if pids and (there >= wanted if wanted else True):
            break
    while_running(command, case.chance.uniform(0.0, 15.0) if not wanted else case.chance.uniform(0.0, 0.3))
    pids = descendants(command.pid, "vllm_server")
    for pid in pids:
        os.kill(pid, number)
    case.told.append(
        f"{case.kind} {'while it starts' if not wanted else f'after {wanted} files of replies'}: {len(pids)}"
    )
    case.expect(command, (0, 1), "the vLLM server")
    rest(case)


def killed_with_server(case: Case) -> None:
    """SIGKILL, SIGTERM or SIGINT to the command while its own vLLM starts or answers."""
    name = case.chance.choice(tuple(SIGNALS))
    command = case.start()
    command.until("enter generate", PATIENCE_S)
    later = case.chance.uniform(0.0, 22.0)
    while_running(command, later)
    hit = command.send(SIGNALS[name])
    case.told.append(f"{name} {later:.1f} s into generate" + ("" if hit else ": too late"))
    case.expect(command, ENDED)
    rest(case)


def fresh(case: Case) -> None:
    """SIGKILL to `python -m pipeline`, an interpreter of its own with a server of its own, at any moment."""
    case.logs += 1
    with (case.folder / f"log-{case.logs}").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "pipeline", *case.words],
            cwd=case.folder,
            env={**os.environ, "PYTHONPATH": str(Path.cwd()), forks.MARK: str(case.folder)},
            stdout=log,
            stderr=log,
        )
        later = case.chance.uniform(5.0, 30.0)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(later)
        case.told.append(f"SIGKILL {later:.1f} s after the start" + ("" if process.poll() is None else ": too late"))
        process.kill()
        process.wait()
    rest(case)


def _journal(case: Case) -> Path:
    names = {
        "climbing": ("ledger", "rungs", "canaries"),
        "trained": ("ledger", "rungs", "canaries"),
        "half": ("ledger", "rungs", "canaries", "proofs", "replies", "replies"),
        "measured": ("containment",),  # the others were forced onto the disk before anything was destroyed
    }[case.state]
    name = case.chance.choice(names)
    if name != "replies":
        return case.run / f"{name}.jsonl"
    return case.chance.choice(sorted(p for p in (case.run / "replies").iterdir() if p.stat().st_size))


def _content(run: Path) -> dict[str, bytes]:
    return {str(path.relative_to(run)): path.read_bytes() for path in run.rglob("*") if path.is_file()}

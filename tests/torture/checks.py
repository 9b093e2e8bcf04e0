"""What must hold after a fault, once the same command has run to its end: held against the undisturbed run."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from pathlib import Path
from typing import Any

from pipeline.rungs import MIXED
from tests.real.real_runs import timeless
from tests.torture.forks import MARK

COUNTED = ("lost replies", "doubled replies", "wrong verdicts", "left-over processes", "stripped weights left", "other")
# Journals whose rows are looked up by a name: the last row of a name counts, so a row may stand twice after a kill.
BY_NAME = {"canaries.jsonl": "rung", "proofs.jsonl": "rung", "rungs.jsonl": "id"}
WEIGHTS = (".safetensors", ".pt", ".pth", ".bin", ".ckpt", ".gguf")
TIMED = ("curves.json", "judges.json", "verdict.json")
TIME = re.compile(rb"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\+00:00")

Problems = dict[str, list[str]]


def held(case: Path, run: Path, undisturbed: Path, *, exact: bool = False) -> Problems:
    """Compare a completed run with the undisturbed one; what is wrong, by the names in `COUNTED`.

    Args:
        exact: nothing was spent again, so that times must be the same too, and the report byte for byte.
    """
    found: Problems = {name: [] for name in COUNTED}
    _replies(run, undisturbed, found)
    _results(run, undisturbed, found)
    journals(run, undisturbed, found)
    _containment(run, undisturbed, found)
    _ledger(run, undisturbed, found)
    found["left-over processes"] += leftovers(case)
    found["stripped weights left"] += [str(path.relative_to(case)) for path in weights(case)]
    found["other"] += [f"left over: {path.relative_to(case)}" for path in run.rglob("*.partial")]
    if not (run / "report.html").read_text(encoding="utf-8").rstrip().endswith("</html>"):
        found["other"].append("report.html is cut off")
    for name in (*TIMED, "report.html") if exact else ():
        # In the report stands when the last weights went: a torn record of it is written again.
        if TIME.sub(b"", (run / name).read_bytes()) != TIME.sub(b"", (undisturbed / name).read_bytes()):
            found["other"].append(f"{name} is not the same byte for byte")
    return found


def rows(path: Path) -> list[dict[str, Any]]:
    """Read a journal strictly: every line whole. There are no rows where there is no file."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def leftovers(case: Path) -> list[str]:
    """Return living processes that a command of this case started, the command itself included."""
    found = []
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            state = Path(entry.path, "stat").read_text().rpartition(")")[2].split()[0]
            words = Path(entry.path, "cmdline").read_bytes()
            marked = f"{MARK}={case}\0".encode() in Path(entry.path, "environ").read_bytes() + b"\0"
            inside = str(case) in (os.readlink(f"{entry.path}/cwd"), *words.decode(errors="replace").split("\0"))
            inside = inside or f"{case}/".encode() in words or os.readlink(f"{entry.path}/cwd").startswith(f"{case}/")
        except OSError:
            continue
        if state not in "ZX" and (marked or inside):
            found.append(f"{entry.name}: {words.replace(bytes(1), b' ').decode(errors='replace')[:120]}")
    return found


def weights(case: Path) -> list[Path]:
    """Return files below the case's folder that hold weights or optimiser state."""
    return [path for path in case.rglob("*") if path.is_file() and path.suffix in WEIGHTS]


def _replies(run: Path, undisturbed: Path, found: Problems) -> None:
    mine, theirs = (
        [row for path in sorted((r / "replies").glob("*")) for row in rows(path)] for r in (run, undisturbed)
    )
    count = Counter(_key(row) for row in mine)
    wanted = {_key(row): row for row in theirs}
    found["doubled replies"] += [f"{key} x {n}" for key, n in count.items() if n > 1]
    found["lost replies"] += [str(key) for key in wanted.keys() - count.keys()]
    found["other"] += [f"reply differs: {_key(row)}" for row in mine if row != wanted.get(_key(row))]


def _key(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["rung"], row["eval"], row["sample"], row["draw"]


def _results(run: Path, undisturbed: Path, found: Problems) -> None:
    for name in ("outcomes.parquet", "protocol.md"):
        mine, theirs = (
            TIME.sub(b"", (root / name).read_bytes()) if (root / name).exists() else b"" for root in (run, undisturbed)
        )
        if mine != theirs:
            found["other"].append(f"{name} differs")
    for name in TIMED:
        mine, theirs = (timeless(json.loads((root / name).read_text())) for root in (run, undisturbed))
        if json.dumps(mine, sort_keys=True) != json.dumps(theirs, sort_keys=True):
            found["wrong verdicts" if name == "verdict.json" else "other"].append(f"{name} differs")


def journals(run: Path, undisturbed: Path, found: Problems) -> None:
    for name, key in BY_NAME.items():
        mine, theirs = ({row[key]: _told(timeless(row)) for row in rows(root / name)} for root in (run, undisturbed))
        found["other"] += [
            f"{name}: {rung} differs" for rung in mine.keys() | theirs.keys() if mine.get(rung) != theirs.get(rung)
        ]


def _told(row: dict[str, Any]) -> dict[str, Any]:
    """Leave out what hangs on the kill: which engine proved a rung, and which adapters were asked at once."""
    mixed = row.get("rung") == MIXED
    return {key: value for key, value in row.items() if key != "attempt" and (not mixed or key in ("rung", "status"))}


def _containment(run: Path, undisturbed: Path, found: Problems) -> None:
    gone = {row["rung"]: row for row in rows(run / "containment.jsonl") if row["state"] == "destroyed"}
    for row in rows(undisturbed / "containment.jsonl"):
        if row["state"] == "destroyed" and row["rung"]:
            mine = gone.get(row["rung"], {})
            if (mine.get("sha256"), mine.get("found")) != (row["sha256"], row["found"]):
                found["other"].append(f"containment: {row['rung']} was not weighed when it was destroyed")
    if "" not in gone:
        found["other"].append("containment: no last row")


def _ledger(run: Path, undisturbed: Path, found: Problems) -> None:
    """Every attempt has ended, times never run back, and what was to be done is done."""
    last: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in rows(run / "ledger.jsonl"):
        key = (row["stage"], row["arm"], row["seed"], row["attempt"])
        if key in last and row["device_seconds"] < last[key]["device_seconds"]:
            found["other"].append(f"ledger: {key} ran back")
        last[key] = row
    found["other"] += [f"ledger: {key} is open" for key, row in last.items() if row["status"] in ("started", "running")]
    for row in rows(undisturbed / "ledger.jsonl"):
        if row["status"] == "done":
            same = [r for key, r in last.items() if key[:3] == (row["stage"], row["arm"], row["seed"])]
            # Spending cannot be held against it: a kill hides what was done since the last heartbeat (0.25 s).
            if not any(r["status"] == "done" for r in same):
                found["other"].append(f"ledger: {row['stage']} is not done")

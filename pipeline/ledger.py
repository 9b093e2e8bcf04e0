"""The ledger: every attempt with what it spent, written so that a kill hides next to nothing of it."""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pipeline.budget import Caps, Spent, caps, devices_held, price
from pipeline.journal import Journal
from pipeline.schema import BudgetConfig

Status = Literal["started", "running", "done", "budget", "failed", "interrupted"]
HEARTBEAT_S = 0.25  # between rows while work is done: the most that a SIGKILL hides, steps being no longer
# Between rows while a server's start or answer is awaited, which may take half an hour: 1,800 rows, half a megabyte.
# A SIGKILL hides no more than that; in a start up to 5 s more, where the server takes a question and does not answer.
WAITING_S = 1.0
STARTING = "engine starting"  # the detail of the generate attempt's rows until its engine answers
OPEN = ("started", "running")  # the states of an attempt that has not ended
AttemptKey = tuple[str, str, int, int]  # stage, arm, seed, attempt: all rows of one attempt have it


@dataclass
class Attempt:
    """One try at one piece of work, open in the ledger. The owner adds FLOPs and tokens; time runs by itself."""

    ledger: Ledger
    stage: str
    arm: str
    seed: int
    number: int
    began: float  # time.monotonic()
    flops: float = 0.0
    tokens: int = 0
    status: Status = "started"
    detail: str = ""
    written: float = 0.0
    facts: Mapping[str, Any] = field(default_factory=dict)  # further columns of its rows

    @property
    def devices(self) -> int:
        """The devices that it holds."""
        return devices_held(self.ledger.config, self.stage, self.arm)

    def device_seconds(self) -> float:
        """Return devices x wall seconds since the attempt began."""
        return (time.monotonic() - self.began) * self.devices

    def spent(self) -> Spent:
        """Return what this attempt alone has spent so far."""
        seconds = self.device_seconds()
        return Spent(seconds, self.flops, self.tokens, price(seconds, self.ledger.config))

    def beat(self, *, force: bool = False, every: float = HEARTBEAT_S) -> None:
        """Let the ledger know that work goes on; at most one row each `every` seconds."""
        if force or time.monotonic() - self.written >= every:
            self.write("running")

    def beat_waiting(self) -> None:
        """Let the ledger know that a server is awaited; at most one row each `WAITING_S`."""
        self.beat(every=WAITING_S)

    def write(self, status: Status) -> None:
        """Append this attempt's present state."""
        self.status = status
        self.written = time.monotonic()
        self.ledger.append(self)


class Ledger:
    """Every device-second, FLOP and cent spent, failed and killed attempts included.

    The file is only ever appended to. An attempt has several rows: `started`, `running` while it works, and one that
    ends it; its last row counts. An attempt without an ending row was killed: what it had spent by its last row counts,
    and `hidden_s` on top, where its row says how much may have passed unseen.

    Args:
        path: the file that this process writes.
        config: caps, rate and devices.
        device: cpu or cuda.
        others: ledgers of other writers, which are read and never written; their open attempts count as killed.
    """

    def __init__(self, path: Path, config: BudgetConfig, device: str, others: Sequence[Path] = ()) -> None:
        self.journal = Journal(path)
        self.config = config
        self.device = device
        self._writing = threading.RLock()
        self._attempts: dict[AttemptKey, dict[str, Any]] = {}
        for row in self.journal.rows():
            self._attempts[attempt_key(row)] = row
        for row in list(self._attempts.values()):
            if row["status"] in OPEN:
                self._put(_interrupted(row, config) | {"at": _now()})
        if others:
            self._attempts = _merged([path, *others], self._attempts, config)

    def append(self, attempt: Attempt) -> None:
        """Append the present state of `attempt`."""
        spent = attempt.spent()
        row = {
            "at": _now(),
            "stage": attempt.stage,
            "arm": attempt.arm,
            "seed": attempt.seed,
            "attempt": attempt.number,
            "device": self.device,
            "device_seconds": round(spent.device_seconds, 6),
            "flops": spent.flops,
            "tokens": spent.tokens,
            "usd": None if math.isnan(spent.usd) else spent.usd,
            "status": attempt.status,
            "pid": os.getpid(),
            **attempt.facts,
        }
        self._put(row | ({"detail": attempt.detail} if attempt.detail else {}))

    def _put(self, row: dict[str, Any]) -> None:
        with self._writing:  # a job's pulse writes from a thread of its own
            self.journal.append([row])
            self._attempts[attempt_key(row)] = row

    @contextmanager
    def attempt(self, stage: str, arm: str = "", seed: int = -1) -> Iterator[Attempt]:
        """Account for one try at `stage` (of one arm and seed); an exception is recorded, then raised again."""
        attempt = Attempt(self, stage, arm, seed, self.number(stage, arm, seed), time.monotonic())
        attempt.write("started")
        try:
            yield attempt
        except KeyboardInterrupt:
            attempt.write("interrupted")
            raise
        except BaseException as error:
            attempt.detail = type(error).__name__
            attempt.write("failed")
            raise
        if attempt.status in OPEN:
            attempt.write("done")

    def spent(self, stage: str | None = None, arm: str | None = None, seed: int | None = None) -> Spent:
        """Return the sum over the attempts that match; None matches all."""
        rows = [
            row
            for row in self.attempts()
            if stage in (None, row["stage"]) and arm in (None, row["arm"]) and seed in (None, row["seed"])
        ]
        seconds = sum(row["device_seconds"] for row in rows)
        return Spent(
            seconds,
            sum(row["flops"] for row in rows),
            sum(row["tokens"] for row in rows),
            price(seconds, self.config),
        )

    def attempts(self) -> list[dict[str, Any]]:
        """Return every attempt by its last row, in the order in which they began."""
        with self._writing:
            return [dict(row) for row in self._attempts.values()]

    def ending(self, stage: str, arm: str, seed: int) -> str | None:
        """Return why a piece of work ended (the `detail` of its last attempt), None while that is unfinished."""
        mine = [row for row in self.attempts() if attempt_key(row)[:3] == (stage, arm, seed)]
        last = max(mine, key=lambda row: int(row["attempt"]), default={"status": "started"})
        return str(last.get("detail", "")) if last["status"] == "done" else None

    def number(self, stage: str, arm: str, seed: int) -> int:
        """Return the number of the next attempt at a piece of work, from 1."""
        return 1 + sum(key[:3] == (stage, arm, seed) for key in self._attempts)

    def summary(self) -> dict[str, Any]:
        """Return caps and spending for `verdict.json` and the report."""
        total, cap = self.spent(), caps(self.config)
        rows = self.attempts()

        def pair(limit: float, spent: float) -> dict[str, float | None]:
            return {
                "cap": None if math.isinf(limit) else limit,
                "spent": None if math.isnan(spent) else spent,
            }

        stages = sorted({row["stage"] for row in rows})
        return {
            "device_seconds": pair(cap.device_seconds, total.device_seconds),
            "usd": pair(cap.usd, total.usd),
            "flops": pair(cap.flops, total.flops),
            "usd_per_device_hour": self.config.usd_per_device_hour,
            "by_stage": {stage: _stage(self.spent(stage)) for stage in stages},
            "attempts": {
                status: sum(row["status"] == status for row in rows) for status in sorted({r["status"] for r in rows})
            },
        }


def _stage(spent: Spent) -> dict[str, float | None]:
    usd = None if math.isnan(spent.usd) else spent.usd
    return {"device_seconds": spent.device_seconds, "flops": spent.flops, "tokens": spent.tokens, "usd": usd}


def attempt_key(row: Mapping[str, Any]) -> AttemptKey:
    """Return what tells the attempt of a ledger's row from every other; its last row counts."""
    return (row["stage"], row["arm"], row["seed"], row["attempt"])


def _interrupted(row: Mapping[str, Any], config: BudgetConfig) -> dict[str, Any]:
    """Return the row that closes a killed attempt."""
    if "hidden_s" not in row:
        return {**row, "status": "interrupted"}
    seconds = row["device_seconds"] + row["hidden_s"] * devices_held(config, row["stage"], row["arm"])
    usd = price(seconds, config)
    return {**row, "device_seconds": seconds, "usd": None if math.isnan(usd) else usd, "status": "interrupted"}


def _merged(
    paths: Sequence[Path], own: Mapping[AttemptKey, dict[str, Any]], config: BudgetConfig
) -> dict[AttemptKey, dict[str, Any]]:
    """Return the last row of every attempt in all ledgers, in the order in which the attempts began."""
    began: dict[AttemptKey, float] = {}
    last: dict[AttemptKey, dict[str, Any]] = {}
    for path in paths:
        for row in Journal(path).rows():
            began.setdefault(attempt_key(row), row["at"])
            last[attempt_key(row)] = row
    closed = {key: _interrupted(row, config) if row["status"] in OPEN else row for key, row in last.items()}
    for key in sorted(closed):  # a later attempt at the same work began later, whatever the clock of its node said
        before = began.get((*key[:3], key[3] - 1))
        began[key] = began[key] if before is None else max(began[key], before)
    return {key: own.get(key, closed[key]) for key in sorted(closed, key=lambda key: (began[key], key))}


def _now() -> float:
    return round(time.time(), 3)


class Allowance:
    """What one piece of work may still use: its caps less what earlier attempts at it spent.

    `fits` is asked before each training step or generation batch, with the cost of the dearest one so far, so that a
    cap is overspent by no more than one.
    """

    def __init__(self, limits: Caps, attempt: Attempt, before: Spent) -> None:
        self.limits = limits
        self.attempt = attempt
        self.before = before

    def spent(self) -> Spent:
        """Return what this piece of work has spent, earlier attempts included."""
        return self.before + self.attempt.spent()

    def fits(self, device_seconds: float, flops: float) -> bool:
        """Say whether another `device_seconds` and `flops` fit within every cap."""
        spent = self.spent()
        seconds = spent.device_seconds + device_seconds
        usd = price(seconds, self.attempt.ledger.config)
        return self.limits.allows(Spent(seconds, spent.flops + flops, spent.tokens, usd))

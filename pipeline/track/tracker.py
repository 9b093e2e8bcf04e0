"""Weights & Biases, hardened, or nothing: curves while they grow, the verdict at the end.

One W&B run per arm and seed, in a group named like the run folder. W&B lives in a process of its own
(`wandb_worker.py`) that is fed from a queue: the training never waits for it, its failure is one warning in
the log, a killed training still ends its W&B runs, and the settings that keep it quiet (environment,
temporary folder) are those of that process only. What may enter a row, a summary or the config is decided in
`redact.py`, before anything is handed over. Everything W&B writes lies in `<run folder>/wandb`.
"""

from __future__ import annotations

import hashlib
import json
import logging
import queue
import subprocess
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final, Self

from pipeline import interpreter
from pipeline.records import Dose
from pipeline.schema import TrackConfig
from pipeline.track import wandb_worker
from pipeline.track.environment import temporary, wandb_environment
from pipeline.track.redact import figure_json, numbers, redacted, slug, summary_values

log = logging.getLogger(__name__)

_QUEUE_ROWS: Final = 20_000  # rows that wait for W&B before rows are dropped; some 10 MB
_KILL_GRACE_S: Final = 5.0

# None of: stdout, command line, host, git remote, script, requirements, hardware, metrics of the machine.
_SETTINGS: Final[dict[str, Any]] = {
    "console": "off",
    "disable_git": True,
    "disable_code": True,
    "save_code": False,
    "disable_job_creation": True,
    "host": "redacted",
    "program": "holdfast",
    "silent": True,
    "symlink": False,
    "x_disable_meta": True,
    "x_disable_machine_info": True,
    "x_disable_stats": True,
    "x_save_requirements": False,
    "x_transaction_log_flush_interval": 1.0,  # seconds; a kill loses no more than that
}


class Tracker:
    """Where curves are tracked. This one tracks nothing: a no-op object instead of `if wandb` everywhere."""

    def step(self, arm: str, seed: int, dose: Dose, values: Mapping[str, float]) -> None:
        """Log one training step, e.g. `{"loss": 0.7}`, as `train/<key>` against the dose."""

    def rung(self, arm: str, seed: int, dose: Dose, values: Mapping[str, float]) -> None:
        """Log one measured rung, e.g. `{"refusal": 0.98, "n": 200}`, as `measure/<key>` against the dose."""

    def summary(self, arm: str, seed: int, values: Mapping[str, Any], figures: Mapping[str, Any]) -> None:
        """Log the end: verdict and numbers as the summary, plotly figures as panels `figures/<key>`."""

    def close(self) -> None:
        """End all W&B runs, within the configured time."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class NullTracker(Tracker):
    """Tracks nothing."""


class WandbTracker(Tracker):
    """W&B in a process of its own, which starts at the first row. No method raises or waits, but `close`.

    Only finite numbers pass `step` and `rung`; NaN means "no data" and leaves no value. See `track_redact`.
    `part` tells the runs of one arm and seed apart, where something else than its training is recorded.
    """

    def __init__(self, config: TrackConfig, run_dir: Path, group: str, plan: Mapping[str, Any], part: str = "") -> None:
        self._config = config
        self._dir = run_dir.resolve() / "wandb"
        self._group = slug(group)
        self._plan = redacted(plan)
        self._plan_digest = _plan_digest(plan)
        self._part = slug(part) if part else ""
        self._queue: queue.Queue[dict[str, Any] | None] = queue.Queue(_QUEUE_ROWS)
        self._doses: dict[tuple[str, int], dict[str, float]] = {}  # the last of each arm and seed
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._process: subprocess.Popen[str] | None = None
        self._warned = False
        self._off = False

    def step(self, arm: str, seed: int, dose: Dose, values: Mapping[str, float]) -> None:
        """See `Tracker.step`."""
        self._guarded(lambda: {"row": self._row(arm, seed, dose, values, "train")}, arm, seed)

    def rung(self, arm: str, seed: int, dose: Dose, values: Mapping[str, float]) -> None:
        """See `Tracker.rung`."""
        self._guarded(lambda: {"row": self._row(arm, seed, dose, values, "measure")}, arm, seed)

    def summary(self, arm: str, seed: int, values: Mapping[str, Any], figures: Mapping[str, Any]) -> None:
        """See `Tracker.summary`."""

        def message() -> dict[str, Any]:
            drawn = {slug(name): figure_json(figure) for name, figure in figures.items()}
            dose = self._doses.get((arm, seed), {})
            return {"summary": summary_values(values), "figures": drawn, "row": dose}

        self._guarded(message, arm, seed)

    def close(self) -> None:
        """End all W&B runs; after `finish_timeout_s` W&B's process is killed and a warning says so."""
        with self._lock:
            closed, self._off = self._off, True
        if self._thread is None:
            return
        if not closed:
            try:
                self._queue.put_nowait(None)
            except queue.Full:
                self._kill("it did not keep up with the rows")
        self._thread.join(self._config.finish_timeout_s + _KILL_GRACE_S)
        if self._thread.is_alive():
            self._kill(f"it did not end within {self._config.finish_timeout_s:g} s")
            self._thread.join(_KILL_GRACE_S)

    def _row(self, arm: str, seed: int, dose: Dose, values: Mapping[str, float], prefix: str) -> dict[str, float]:
        axis = self._doses[arm, seed] = numbers(dose.as_dict(), "dose")
        return axis | numbers(values, prefix)

    def _guarded(self, message: Callable[[], dict[str, Any]], arm: str, seed: int) -> None:
        """Queue one message; whatever goes wrong is a warning, never an exception in the training."""
        if self._off:
            return
        try:
            name = f"{slug(arm)}-{int(seed)}{self._part and f' {self._part}'}"
            identity = {"run": name, "arm": slug(arm), "seed": int(seed), "id": self.run_id(arm, seed)}
            self._queue.put_nowait(identity | message())
            self._start()
        except queue.Full:
            self._warn("W&B does not keep up; rows are left out")
        except Exception as error:
            self._warn(f"{type(error).__name__}: {error}")

    def run_id(self, arm: str, seed: int) -> str:
        """Return the W&B id: the same for every attempt of this plan, folder name, arm and seed (and part)."""
        part = [self._part] if self._part else []
        key = json.dumps([self._plan_digest, self._group, str(arm), int(seed), *part])
        return f"{slug(arm, 40)}-{int(seed)}-{hashlib.sha256(key.encode()).hexdigest()[:12]}"

    def _start(self) -> None:
        with self._lock:
            if self._thread is None and not self._off:
                self._thread = threading.Thread(target=self._feed, name="track", daemon=True)
                self._thread.start()

    def _feed(self) -> None:
        """Start W&B's process and hand it the queue, until `None`; runs in the tracker's thread."""
        try:
            process = self._process = self._spawn()
            listener = threading.Thread(target=self._listen, args=(process.stdout,), daemon=True)
            listener.start()
            assert process.stdin is not None
            with process.stdin as pipe:
                _send(pipe, self._hello())
                while (message := self._queue.get()) is not None:
                    _send(pipe, message)
                _send(pipe, {"close": True})
            code = process.wait()
            listener.join(_KILL_GRACE_S)
            if code != 0:
                self._warn(f"W&B's process ended with code {code}")
        except Exception as error:
            self._warn(f"{type(error).__name__}: {error}")
            self._off = True

    def _spawn(self) -> subprocess.Popen[str]:
        environment = wandb_environment(self._dir, online=self._config.mode == "online")
        with (self._dir / "worker.log").open("a") as errors:
            return subprocess.Popen(
                interpreter.command(wandb_worker.__file__),
                cwd=temporary(self._dir),
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                encoding="utf-8",
                start_new_session=True,  # Ctrl-C is for the training; W&B ends its runs after it
            )

    def _hello(self) -> dict[str, Any]:
        return {
            "project": self._config.project,
            "entity": self._config.entity,
            "mode": self._config.mode,
            "group": self._group,
            "config": self._plan | {"plan_sha256": self._plan_digest, "part": self._part or "training"},
            "dir": str(self._dir.parent),
            "settings": _SETTINGS,
            "finish_timeout_s": self._config.finish_timeout_s,
        }

    def _listen(self, reports: IO[str]) -> None:
        for line in reports:
            try:
                report = json.loads(line)
                self._warn(f"run {report['run']}: {report['error']}")
            except (ValueError, KeyError, TypeError):
                log.debug("unreadable report of W&B's process: %.200s", line)

    def _kill(self, why: str) -> None:
        self._warn(f"W&B's process was ended: {why}")
        if self._process is not None:
            self._process.kill()  # its service process sees that and leaves too

    def _warn(self, what: str) -> None:
        """Log the first failure as a warning and the later ones for debugging only."""
        level = logging.DEBUG if self._warned else logging.WARNING
        self._warned = True
        log.log(level, "tracking failed, the run goes on without it: %s", what)


def tracker(config: TrackConfig, *, run_dir: Path, group: str, plan: Mapping[str, Any]) -> Tracker:
    """Return the tracker that `config` asks for, to be used as a context manager.

    Args:
        config: `kind` none or wandb; `mode` offline (nothing is sent) or online.
        run_dir: the run folder; W&B writes to `run_dir/wandb` only.
        group: name of the W&B group, by custom the run folder's name.
        plan: the resolved plan; it becomes the config of every W&B run as `redact.redacted` leaves it.
    """
    if config.kind == "none":
        return NullTracker()
    return WandbTracker(config, run_dir, group, plan)


def _send(pipe: IO[str], message: Mapping[str, Any]) -> None:
    pipe.write(json.dumps(message, allow_nan=False) + "\n")
    pipe.flush()


def _plan_digest(plan: Mapping[str, Any]) -> str:
    """Return the plan's own sha256 if it carries one, else that of its canonical JSON."""
    for key in ("plan_sha256", "sha256", "digest"):
        if isinstance(plan.get(key), str):
            return str(plan[key])
    return hashlib.sha256(json.dumps(plan, sort_keys=True, default=str).encode()).hexdigest()

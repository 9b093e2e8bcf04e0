"""The process that talks to W&B, so that the training never waits for it, dies of it, or leaks through it.

Started by `pipeline.track.tracker` as a plain script: it reads JSON lines from stdin and imports nothing of this
project. What it may record was filtered before it came here. It writes one JSON line per failed W&B run to
stdout. At the end of its input (also when the training was killed) it finishes every run and leaves.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Iterator
from typing import Any, TextIO

AXIS = "dose/steps"  # never W&B's own `_step`: it starts at 0 again after a resume and is shifted on sync


class Worker:
    """The W&B runs of one tracker, one per (arm, seed), opened on their first row.

    Args:
        hello: the first line of the input: project, entity, mode, group, config, settings, ids.
        reports: where failures are told, a JSON line each.
    """

    def __init__(self, hello: dict[str, Any], reports: TextIO) -> None:
        self.hello = hello
        self.reports = reports
        self.runs: dict[str, Any] = {}
        self.defined: dict[str, set[str]] = {}
        self.failed: set[str] = set()

    def handle(self, message: dict[str, Any]) -> None:
        """Carry out one message; a W&B run that failed once is left alone from then on."""
        name = message["run"]
        if name in self.failed:
            return
        try:
            run = self._run(name, message)
            if "summary" in message:
                self._summary(run, message)
            else:
                self._row(name, run, message["row"])
        except Exception as error:
            self.failed.add(name)
            self.report(name, error)

    def finish(self, exit_code: int) -> None:
        """Finish all runs at once; whatever raises is reported."""

        def end(name: str, run: Any) -> None:
            try:
                run.finish(exit_code=exit_code)
            except Exception as error:
                if name not in self.failed:
                    self.report(name, error)

        threads = [threading.Thread(target=end, args=item, daemon=True) for item in self.runs.items()]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def report(self, name: str, error: BaseException) -> None:
        """Tell the tracker that a run failed."""
        line = json.dumps({"run": name, "error": f"{type(error).__name__}: {error}"})
        print(line, file=self.reports, flush=True)

    def _run(self, name: str, message: dict[str, Any]) -> Any:
        if name not in self.runs:
            import wandb

            hello = self.hello
            self.runs[name] = wandb.init(
                project=hello["project"],
                entity=hello["entity"],
                group=hello["group"],
                name=name,
                id=message["id"],
                job_type=message["arm"],
                config=hello["config"] | {"arm": message["arm"], "seed": message["seed"]},
                mode=hello["mode"],
                reinit="create_new",
                resume="allow",
                dir=hello["dir"],
                settings=wandb.Settings(**hello["settings"]),
            )
            self.defined[name] = set()
        return self.runs[name]

    def _row(self, name: str, run: Any, row: dict[str, Any]) -> None:
        """Log one row; exact metric names, each with its axis, are defined before their first value."""
        for key in sorted(row, key=lambda key: key != AXIS):
            if key not in self.defined[name]:
                run.define_metric(key) if key == AXIS else run.define_metric(key, step_metric=AXIS)
                self.defined[name].add(key)
        run.log(row)

    def _summary(self, run: Any, message: dict[str, Any]) -> None:
        run.summary.update(message["summary"])
        if message["figures"]:
            import wandb

            panels = {f"figures/{key}": wandb.Plotly(Figure(fig)) for key, fig in message["figures"].items()}
            run.log(message["row"] | panels)


class Figure:
    """A plotly figure that is JSON already.

    W&B takes a figure by its type's name and asks for its JSON. A true `plotly.graph_objects.Figure` would
    pack its numbers as base64 again, which W&B's viewer cannot be relied on to read, and costs an import.
    """

    __module__ = "plotly.graph_objects"

    def __init__(self, figure: dict[str, Any]) -> None:
        self.figure = figure

    def to_plotly_json(self) -> dict[str, Any]:
        """Return the figure as W&B writes it to its file."""
        return self.figure


def _messages(stream: TextIO) -> Iterator[dict[str, Any]]:
    for line in stream:
        if not line.endswith("\n"):
            return  # torn by a kill
        yield json.loads(line)


def main() -> int:
    """Serve until the input ends; 0 if it ended with "close", else 1 (the training was killed)."""
    # W&B must neither prompt on our input nor print among our reports.
    source = os.fdopen(os.dup(0), encoding="utf-8")
    reports = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    # W&B imports pandas to see if a figure is a data frame: seconds. None reads as "not installed".
    sys.modules["pandas"] = None  # type: ignore[assignment]
    messages = _messages(source)
    hello = next(messages, None)
    if hello is None:
        return 0
    worker = Worker(hello, reports)
    exit_code = 1
    for message in messages:
        if message.get("close"):
            exit_code = 0
            break
        worker.handle(message)
    watchdog = threading.Timer(hello["finish_timeout_s"], os._exit, args=(3,))
    watchdog.daemon = True
    watchdog.start()
    worker.finish(exit_code)
    return exit_code


if __name__ == "__main__":
    sys.exit(main())

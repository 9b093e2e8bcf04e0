"""Talks to a W&B server: who am I, what is there, send this, save that report. W&B runs in processes of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from pipeline.errors import InstrumentError, UserError
from pipeline.publish.arrived import Found
from pipeline.publish.offline import Piece
from pipeline.track.environment import temporary, wandb_environment

_ANSWER_TIMEOUT_S: Final = 600.0
_REMEDIES: Final = {
    "unreachable": "check the connection, or WANDB_BASE_URL for a server of your own",
    "no key": "set WANDB_API_KEY, or log in with `wandb login`",
    "refused": "check WANDB_API_KEY (or `wandb login`) and publish.entity",
    "failed": "see wandb/publish.log in the run folder; the same command again goes on where it was",
}
_HEADS: Final = {
    "unreachable": "the W&B server cannot be reached",
    "no key": "there is no key for the W&B server",
    "refused": "the W&B server refuses the key",
    "failed": "the W&B server did not do as asked",
}


@dataclass(frozen=True)
class Target:
    """Where to publish: the entity and project on a server."""

    server: str
    entity: str
    project: str


@dataclass(frozen=True)
class Saved:
    """A saved report. `anew`: it was not there before."""

    id: str
    url: str
    anew: bool


class Server:
    """The W&B server that the environment names, as a context manager: it holds one process that asks.

    `folder` is `<run folder>/wandb`; the log is `publish.log` in it. Every method raises UserError where the server
    cannot be reached, refuses the key or does not do as asked, and InstrumentError where W&B's client hangs or dies.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._log = folder / "publish.log"
        self._client: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._client is not None:
            self._client.kill()  # it holds nothing; W&B's own process sees that and leaves too
            self._client.communicate()
            self._client = None

    def target(self, entity: str | None, project: str) -> Target:
        """Return where to publish; the account's own entity where none is given."""
        told = self._ask("who", entity=entity)
        return Target(told["server"], told["entity"], project)

    def runs(self, target: Target, runs: Iterable[str]) -> dict[str, Found | None]:
        """Return what the server has of each W&B run; None: it has no such run."""
        told = self._ask("runs", entity=target.entity, project=target.project, runs=list(runs))
        return {
            run: None
            if there is None
            else Found(there["rows"], frozenset(there["metrics"]), there["summary"], there["files"])
            for run, there in told.items()
        }

    def save(self, target: Target, page: Mapping[str, Any], *, draft: bool, replace: str | None) -> Saved:
        """Save a page (`pipeline.publish.page`) as a report; in place of the one with id `replace`, if it is there."""
        told = self._ask("save", entity=target.entity, project=target.project, page=dict(page), draft=draft, id=replace)
        return Saved(told["id"], told["url"], told["anew"])

    def send(self, target: Target, pieces: Sequence[Piece], timeout_s: float) -> None:
        """Run `wandb sync` on some W&B folders. That it ends well proves nothing: ask what arrived.

        Raises:
            UserError: it took longer than `timeout_s` seconds.
        """
        words = ["sync", "--yes", "--include-synced", "--entity", target.entity, "--project", target.project]
        process = self._start(["-m", "wandb", *words, *(str(piece.folder) for piece in pieces)])
        try:
            process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            raise UserError(
                f"wandb sync did not end within {timeout_s:g} s and was ended",
                "look at what arrived with the same command again; publish.sync_timeout_s= gives it longer",
            ) from None
        finally:
            process.kill()
            process.wait()

    def _ask(self, what: str, **given: Any) -> Any:
        client = self._client = self._client or self._start(["-m", "pipeline.publish.client"])
        assert client.stdin is not None
        assert client.stdout is not None
        watchdog = threading.Timer(_ANSWER_TIMEOUT_S, client.kill)
        watchdog.start()
        try:
            client.stdin.write(json.dumps({"ask": what, **given}) + "\n")
            client.stdin.flush()
            told = json.loads(client.stdout.readline())
        except (OSError, ValueError):
            raise InstrumentError(
                f"W&B's client died, or was silent for {_ANSWER_TIMEOUT_S:g} s; see {self._log}"
            ) from None
        finally:
            watchdog.cancel()
        kind = told.get("error")
        if kind == "broken":
            raise InstrumentError(f"publish: {told['said']}; see {self._log}")
        if kind is not None:
            raise UserError(f"publish: {_HEADS[kind]}: {told['said']}", _REMEDIES[kind])
        return told["answer"]

    def _start(self, words: Sequence[str]) -> subprocess.Popen[str]:
        environment = wandb_environment(self._folder, online=True)
        here = [str(Path(__file__).parents[2]), environment.get("PYTHONPATH", "")]  # -P: not the folder it runs in
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, here))
        del environment["WANDB_SILENT"]  # what a sync says belongs into the log
        with self._log.open("a", encoding="utf-8") as log:
            return subprocess.Popen(
                [sys.executable, "-P", *words],
                cwd=temporary(self._folder),
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                encoding="utf-8",
            )

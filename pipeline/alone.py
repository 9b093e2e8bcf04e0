"""The stages that stand alone: they read a file or finished runs, and need no plan of their own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

from rich.console import Console

from pipeline.schema import Config

if TYPE_CHECKING:
    from pipeline.workspace import Workspace

Run = Callable[["Workspace"], None]  # runs the stages of one review


def _judge(config: Config, console: Console, run: Run) -> None:
    from pipeline.judge.file import judge_file

    judge_file(config.judge, console, config.serve)


def _compare(config: Config, console: Console, run: Run) -> None:
    from pipeline.compare import compare_runs

    compare_runs(config.compare, console)


def _purge(config: Config, console: Console, run: Run) -> None:
    from pipeline.contain import purge

    purge(config.contain, console)


def _reproduce(config: Config, console: Console, run: Run) -> None:
    from pipeline.reproduce.stage import reproduce

    reproduce(config.reproduce, console, run, config.contain)


def _status(config: Config, console: Console, run: Run) -> None:
    from pipeline.cluster.table import show_status

    show_status(config, console)


ALONE: Final[Mapping[str, Callable[[Config, Console, Run], None]]] = {
    "judge": _judge,  # any file with prompts and replies: labels
    "compare": _compare,  # two finished runs on one plan: what B costs against A
    "reproduce": _reproduce,  # a finished run again: does the same come out?
    "purge": _purge,  # the end of a run's reply texts
    "status": _status,  # how each task of a run stands, also while others work on it
}

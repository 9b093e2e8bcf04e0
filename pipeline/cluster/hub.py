"""What jobs read of the Hub is fetched where they are submitted: a compute node may have no way out."""

from __future__ import annotations

from pathlib import Path

from pipeline.data.sources import CSV_SUFFIXES, JSONL_SUFFIXES
from pipeline.inspectai import KIND as INSPECT
from pipeline.judge.server import served_model, told_as
from pipeline.schema import Config
from pipeline.subject.folder import ORGANISM, model_folder


def fetch_judges(config: Config) -> None:
    """Fetch and check the weights of each judge that Holdfast serves; those of the subject are there by the plan.

    Raises:
        UserError: they can't be had, or can't be served.
    """
    if "score" not in config.stages:
        return
    for key, judge in {"judge": config.judge, **{f"panel.{name}": one for name, one in config.panel.items()}}.items():
        if judge.llm is not None and judge.llm.serve:
            with told_as(key):
                model_folder(served_model(judge.llm))


def all_is_here(config: Config) -> bool:
    """Say whether jobs need not ask the Hub: all that they read of it was fetched at submission.

    Not where a table is a whole data set of the Hub: offline, the library `datasets` takes the newest that it finds in
    its cache, of whatever commit.
    """
    evals = [one for one in config.evals.values() if one.kind != INSPECT]  # whose data the user fetches
    shots = [one.prompt.shots for one in evals if one.prompt and one.prompt.shots]
    tables = [*config.data.values(), *(one.table for one in evals), *shots]
    files = (*JSONL_SUFFIXES, *CSV_SUFFIXES)
    return all(table.path.startswith(ORGANISM) or Path(table.path).suffix.lower() in files for table in tables)

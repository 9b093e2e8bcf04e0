"""The run that is to be reproduced, read from its folder, and the configuration that runs it again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from pipeline.errors import UserError
from pipeline.plan.digests import differences, digested_config
from pipeline.reproduce.consent import check
from pipeline.reproduce.planned import AGAIN, check_record, in_order, read_plan, read_record, typed
from pipeline.reproduce.record import environments
from pipeline.reproduce.results import Results, from_record, is_finished, read_results
from pipeline.schema import REVIEW_STAGES, Config, ExportConfig, PlanConfig, ReportConfig, TrackConfig
from pipeline.schema.cluster import ClusterConfig
from pipeline.schema.contain import ContainConfig
from pipeline.schema.publish import PublishConfig
from pipeline.schema.reproduce import ReproduceConfig
from pipeline.store import RunFolder

# What may be mended once a run is trained, so that its reproduction may need it too; its own plan.json shows it.
_MENDED: Final = ("review.logit_tolerance", "budget.devices")


@dataclass(frozen=True)
class Source:
    """The run as it was: its folder, plan, record (None: written by an older Holdfast) and results."""

    folder: RunFolder
    plan: Mapping[str, Any]
    record: Mapping[str, Any] | None
    results: Results

    @property
    def environments(self) -> list[dict[str, Any]]:
        """The environments that worked on it."""
        return environments(self.plan, self.record)


def read_source(path: str) -> Source:
    """Read a finished run; where its replies are not there, its `reproduce.json` stands for them.

    Raises:
        UserError: there is no run, it is not finished, another command works in it, it was read otherwise than
            registered, or its files are not those that its record was written of.
    """
    folder = RunFolder.of_run(path, "reproduce.run")
    with folder.undisturbed():
        plan, record = read_plan(folder), read_record(folder)
        check_record(folder, plan, record)
        results = _results(folder, record)
    if results.otherwise:
        raise UserError(
            f"reproduce.run: the verdict in {folder.root} is not read as registered ({', '.join(results.otherwise)})",
            "what is reproduced is the registered plan: read the run as registered first, with "
            f"run.again={folder.root} stages=[score,analyse,report]",
        )
    return Source(folder, plan, record, results)


def _results(folder: RunFolder, record: Mapping[str, Any] | None) -> Results:
    recorded = (record or {}).get("results")
    if is_finished(folder) and folder.replies.is_dir():
        found = read_results(folder, weigh=True)
        changed = differences(recorded, found.as_record()) if recorded else []
        if changed:
            keys = ", ".join(dict.fromkeys(line.partition(":")[0] for line in changed[:5]))
            raise UserError(
                f"reproduce.run: {folder.root} was changed since its reproduce.json was written ({keys})",
                f"bring the old files back, or {AGAIN}: it then records what stands there",
            )
        return found
    if recorded is None:
        raise UserError(f"reproduce.run: {folder.root} holds no finished run", AGAIN)
    try:
        return from_record(recorded)
    except KeyError as error:
        raise UserError(f"{folder.reproduce} lacks {error}", "it was written by another Holdfast, or damaged") from None


def configuration(source: Source, config: ReproduceConfig, contain: ContainConfig) -> Config:
    """Return the run's own configuration, with `reproduce.change` and a run folder of its own.

    Nothing is tracked or published, no text is shown, and nothing is submitted to a cluster: those were choices of the
    run, not of its reproduction.

    Args:
        contain: what becomes of the adapters here, which the run's plan does not decide.

    Raises:
        UserError: a change is of a key that there is not, or that can change a result; the plan's configuration is
            none that this Holdfast knows, or a check of `pipeline.reproduce.consent` refuses it.
    """
    if "contain" in config.change:
        raise UserError(
            "reproduce.change.contain: what becomes of adapters is no choice of the run's", "give contain.… by itself"
        )
    planned = source.plan["config"]
    wanted = in_order(source.plan, source.record)
    _put(wanted, config.change)
    refused = [
        line
        for line in differences(digested_config(planned), digested_config(wanted))
        if line.partition(":")[0] not in _MENDED
    ]
    if refused:
        raise UserError(
            "reproduce.change: what can change a result is the plan's:" + "".join(f"\n  - {line}" for line in refused),
            "change only where things lie or are served, e.g. +reproduce.change.subject.path=FOLDER; nothing was run",
        )
    made = typed(source.folder.plan, wanted, "reproduce.change gives a wrong type")
    made = replace(
        made,
        stages=list(REVIEW_STAGES),
        run=replace(made.run, dir=str(output_folder(source, config))),
        review=replace(made.review, gate=False),
        track=TrackConfig(),
        plan=PlanConfig(),
        report=ReportConfig(),
        export=ExportConfig(),
        publish=PublishConfig(),
        contain=contain,
        reproduce=ReproduceConfig(),
        cluster=ClusterConfig(threads=made.cluster.threads),
    )
    check(made, config.change, source.folder.plan)
    return made


def _put(node: dict[str, Any], change: Mapping[str, Any], above: str = "") -> None:
    """Set the keys of a nested mapping in another one, which must have them."""
    for name, value in change.items():
        key = f"{above}.{name}".lstrip(".")
        if name not in node:
            raise UserError(f"reproduce.change: the plan has no key {key}", "see `config` in its plan.json")
        if isinstance(value, Mapping) and isinstance(node[name], dict):
            _put(node[name], value, key)
        else:
            node[name] = value


def output_folder(source: Source, config: ReproduceConfig) -> Path:
    """Return the reproduction's run folder.

    Raises:
        UserError: it is the run's own or lies in that, or it holds something that is no run.
    """
    root = source.folder.root
    folder = Path(config.output).expanduser().absolute() if config.output else root.with_name(f"{root.name}-again")
    if folder.resolve().is_relative_to(root.resolve()):
        raise UserError("reproduce.output: it is the run's own folder, or lies in it", "name another, or leave it out")
    if folder.exists() and not folder.is_dir():
        raise UserError(f"reproduce.output: {folder} is a file", "name a folder")
    strangers = [] if not folder.is_dir() else [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
    if strangers and not RunFolder(folder).plan.exists():
        raise UserError(f"reproduce.output: {folder} holds other files and no run", "name a new or an empty folder")
    return folder

"""`holdfast`, or `python -m pipeline`: plan ─► train ─► serve + generate ─► score ─► analyse ─► report."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import hydra
from rich.console import Console

from pipeline import interpreter
from pipeline.alone import ALONE
from pipeline.config.compose import conf_folder, for_hydra, hydras_own, register
from pipeline.config.words import overrides, readable
from pipeline.contain import ready, seal
from pipeline.errors import boundary
from pipeline.multirun import asked, multirun
from pipeline.reproduce.again import composed
from pipeline.reproduce.overrides import typed
from pipeline.schema import Config

if TYPE_CHECKING:
    from pipeline.workspace import Workspace


def review(config: Config) -> None:
    """Run the chosen stages of one review; train and generate go on where they were cut off, the rest is redone."""
    console = Console(stderr=True, width=None if sys.stderr.isatty() else 120, markup=False)  # [a] in a name is a name
    if config.stages[0] in ALONE:
        return ALONE[config.stages[0]](config, console, run)  # judge a file, compare or reproduce runs, ...
    from pipeline.cluster.job import start

    start(config, console, run)  # here, or as jobs of a cluster


def run(work: Workspace) -> None:
    """Run the chosen stages in one run folder."""
    from pipeline.cluster.job import billed
    from pipeline.conclude import analyse, report
    from pipeline.gate import gate
    from pipeline.generate import ahead
    from pipeline.generate.rehearsal import rehearse
    from pipeline.generate.stage import generate
    from pipeline.inspectai.export import export
    from pipeline.plan.kept import keep_plan, require_run
    from pipeline.plan.shown import print_plan, print_protocol
    from pipeline.publish.stage import publish
    from pipeline.reproduce.record import recorded
    from pipeline.score import score
    from pipeline.track.tracker import tracker
    from pipeline.train.stage import train

    config, plan = work.config, work.plan  # resolved and hashed before anything runs
    if config.stages == ["plan"]:
        return print_protocol(work)  # one page to attach to the review; nothing runs
    if "plan" in config.stages:
        print_plan(plan, work.console)
    seal()  # all inputs are read: no way to a hub any more
    ready(work.folder, config.contain)
    if not {"train", "generate"} & set(config.stages):
        require_run(work)
    with work.folder.locked():
        keep_plan(work)
        folder = work.folder.root
        tracking = tracker(config.track, run_dir=folder, group=folder.name, plan=work.registered)
        with recorded(work), billed(work), tracking, ahead.may_start(work):
            if "train" in config.stages:
                rehearse(work)  # where asked: does the engine start that is to serve what is about to be trained?
                train(work, tracking)  # searches for options first, where asked; arms × seeds climb: rungs
            if "generate" in config.stages:
                generate(work, tracking)  # one engine serves every rung, each proved to act: replies
            if "score" in config.stages:
                score(work)  # the judge labels each reply: outcomes
            if "analyse" in config.stages:
                analyse(work)  # curves, collapse, verdict
            if "report" in config.stages:
                report(work, tracking)
            if "export" in config.stages:
                export(work)  # the run as Inspect logs, for `inspect view`
        if "publish" in config.stages:
            publish(work)  # the W&B runs are sent and checked on arrival, then a W&B Report is saved
    if config.review.gate:
        gate(work.folder)  # the verdict as exit code


def main() -> None:
    """Take Hydra overrides from the command line; every fault of the configuration is told before anything runs."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "INFO")  # where TRL is imported first, it silences the server's log
    with boundary():
        if asked(sys.argv[1:]):
            raise SystemExit(multirun(sys.argv[1:]))  # -m: several runs, each a process of its own
        arguments = readable(sys.argv[1:])
        typed(overrides(arguments))
        config = composed(arguments)
        if not hydras_own(arguments):
            return review(config)
        sys.argv[1:] = for_hydra(arguments)  # where Hydra reads them
        register()

        def reviewed(_: object) -> None:
            with boundary():
                review(config)

        hydra.main(version_base="1.3", config_path=str(conf_folder().resolve()), config_name="config")(reviewed)()


def command() -> None:
    """Be `holdfast`, in a process of its own."""
    interpreter.run(main)


if __name__ == "__main__":
    command()

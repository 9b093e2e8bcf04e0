"""The analyse and report stages as files: outcomes → curves, verdict and judges → report.html, terminal, tracker."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import polars as pl

from pipeline.analyse import collapses, curves, reply_counts, to_json
from pipeline.config.review import PARTIES
from pipeline.contain import containment, purged
from pipeline.errors import UserError
from pipeline.files import read_json, write_json
from pipeline.generate import asked
from pipeline.generate.matrix import journal
from pipeline.generate.proving import controls, proofs
from pipeline.inference import infer
from pipeline.inspectai.scores import metrics_of
from pipeline.inspectai.shown import points_of
from pipeline.judge.panel import JudgeView, as_if, compare, unscored
from pipeline.outcomes import Scoring, named, read_outcomes, read_panel
from pipeline.plan.examples import words as example_words
from pipeline.plan.registered import post_hoc_summary
from pipeline.points import Collapses, CurvePoint
from pipeline.price import price_of
from pipeline.report import ReportData, figures, print_summary, write_report
from pipeline.report.examples import examples
from pipeline.score import judged_evals, scoring_of
from pipeline.search import chosen
from pipeline.track.tracker import Tracker
from pipeline.verdict import decide
from pipeline.workspace import Workspace


def analyse(work: Workspace) -> dict[str, Any]:
    """Turn outcomes into `curves.json`, `verdict.json` and `judges.json`; return the verdict.

    Raises:
        UserError: there are no outcomes yet, or they are another judge's, or of fewer replies than there are.
    """
    outcomes = _outcomes(work)
    if "score" not in work.config.stages:
        _require_all_scored(work, outcomes)
    judged = judged_evals(work, "refusal")
    bench = _Bench(work, _for_verdict(work), judged, work.ledger.summary(), controls(work))
    points = bench.points(outcomes)
    found = collapses(points, work.config.review)
    write_json(work.folder.curves, to_json(points, found) | {"post_hoc": work.post_hoc})
    verdict = bench.verdict(points, found, post_hoc=work.post_hoc) | {"replies": reply_counts(outcomes)}
    rungs = work.asked()
    metrics = [*work.metrics, *metrics_of(work.folder, work.inspect_tasks.values(), rungs)]
    # The rule by which rungs were asked is the registered one, whatever this command names.
    review = replace(work.config.review, rungs=work.rule)
    verdict = infer(verdict, points, found, outcomes, work.rungs(), metrics, review)
    falls = asked.brackets(points, found, work.config.review)
    verdict["rungs"] = asked.summary(work.rungs(), {rung.id for rung in rungs}, falls)
    verdict["price"] = _price(work, verdict)
    verdict["search"] = chosen.search_summary(work.folder, verdict)
    verdict["sentence"] += chosen.sentence(verdict["search"])
    write_json(work.folder.verdict, verdict)
    tables, stale = read_panel(work.folder.panel, outcomes, scoring_of(work))
    views = _views(work, bench, tables, points)
    write_json(work.folder.judges, compare(views, judged, stale))
    return verdict


@dataclass(frozen=True)
class _Bench:
    """What the verdict under any judge rests on, beside the outcomes."""

    work: Workspace
    plan: Mapping[str, Any]
    judged: Sequence[str]  # the evals in which some judge takes part
    ledger: Mapping[str, Any]
    controls: Mapping[str, Any]

    def points(self, outcomes: pl.DataFrame, others: Sequence[CurvePoint] = ()) -> list[CurvePoint]:
        """Return the curves under one judge; `others` are another's, taken over where no judge takes part."""
        work = self.work
        rungs, tasks = work.asked(), work.inspect_tasks.values()
        metrics = [(name, metric) for name, metric in work.metrics if not others or name in self.judged]
        kept = [point for point in others if point.eval not in self.judged]
        if not others:  # what Inspect tasks measured is the same whoever judges
            metrics += metrics_of(work.folder, tasks, rungs)
            kept = points_of(work.folder, tasks, rungs, work.config.review.confidence)
        return [*curves(outcomes, rungs, metrics, work.config.review), *kept]

    def verdict(self, points: Sequence[CurvePoint], found: Collapses, post_hoc: Mapping[str, Any]) -> dict[str, Any]:
        """Return the verdict on some curves."""
        return decide(points, found, {**self.plan, "post_hoc": post_hoc}, self.ledger, self.controls)

    def under(self, points: Sequence[CurvePoint]) -> dict[str, Any]:
        """Return the bare verdict on some curves, to be held against others on the same replies."""
        return self.verdict(points, collapses(points, self.work.config.review), {})


def _outcomes(work: Workspace) -> pl.DataFrame:
    """Read the outcomes and make sure that they are what the configuration says they are."""
    outcomes, made = read_outcomes(work.folder.outcomes)
    wanted = scoring_of(work)
    if made != wanted:
        tags = "" if made.reasoning == wanted.reasoning else " with other reasoning tags"
        again = "label the replies first: stages=[score,analyse,report]; or name that judge with judge="
        if purged(work.folder):  # nobody can label them any more
            again = "name that judge with judge=, or show what it found with stages=[report]: the texts were purged"
        raise UserError(f"{work.folder.outcomes} was labelled by judge {made}{tags}, but judge is {wanted}", again)
    return outcomes


def _require_all_scored(work: Workspace, outcomes: pl.DataFrame) -> None:
    """Refuse outcomes of fewer replies than there are: what was generated since would be missing without a word.

    Raises:
        UserError: replies stand in the folder that were not scored.
    """
    if purged(work.folder):
        return
    own = outcomes.filter(pl.col("eval").is_in([spec.eval.name for spec in work.specs]))
    labelled = dict(own.group_by("rung").len().iter_rows())
    for rung in work.asked():
        there = sum(1 for _ in journal(work.folder, rung.id).rows())
        if there > labelled.get(rung.id, 0):
            raise UserError(
                f"{work.folder.outcomes} labels {labelled.get(rung.id, 0)} of the {there} replies of rung {rung.id}: "
                "the rest was generated since",
                "score them first: stages=[score,analyse,report]",
            )


def _views(
    work: Workspace, bench: _Bench, tables: Mapping[Scoring, pl.DataFrame], points: Sequence[CurvePoint]
) -> list[JudgeView]:
    """Return every judge that labelled these replies, in this command or an earlier one, with the verdict under it."""
    scoring = scoring_of(work)
    evals = {"refusal": bench.judged, "harm": judged_evals(work, "harm")}
    asked = {(facts["name"], facts["version"]) for facts in work.plan["panel"]}
    panel = [made for made in tables if (made.judge, made.version) in asked]
    order = list(dict.fromkeys([scoring, *panel, *tables]))
    names, planned = named(order), work.registered["judge"]["version"]
    views = []
    for made in order:
        table, judged = tables[made], evals[made.measures]
        lost = unscored(table.filter(pl.col("eval").is_in(judged)))
        imputed = {word: as_if(table, word, judged) for word in (("refused", "complied") if lost else ())}
        views.append(
            JudgeView(
                name=names[made],
                version=made.version,
                part="used" if made == scoring else "panel" if made in panel else "earlier",
                planned=made.version == planned,
                measures=made.measures,
                evals=judged,
                outcomes=table,
                verdict=bench.under(points if made == scoring else bench.points(table, points)),
                if_unscored={w: bench.under(bench.points(t, points))["verdict"] for w, t in imputed.items()},
            )
        )
    return views


def _price(work: Workspace, verdict: Mapping[str, Any]) -> dict[str, Any]:
    ways = {name: arm.way for name, arm in work.config.arms.items()}
    tokens = work.config.review.training_tokens
    return price_of(verdict, ways, work.subject.parameters, work.config.price, tokens, work.subject.held)


def report(work: Workspace, tracker: Tracker) -> None:
    """Write `report.html`, print the same summary in the terminal, and give the tracker its summaries and figures."""
    folder = work.folder
    verdict = read_json(folder.verdict)
    roles = {rung.id: rung.role for rung in work.rungs()}
    run = ReportData(
        plan=work.registered,
        verdict=verdict,
        judges=read_json(folder.judges) if folder.judges.exists() else {},
        points=read_json(folder.curves)["points"],
        ledger=work.ledger.summary(),
        attempts=work.ledger.attempts(),
        controls=[proof.as_dict() | {"role": roles.get(name, "control")} for name, proof in proofs(work).items()],
        containment=containment(folder),
        examples=examples(work, _outcomes(work), verdict) if work.config.report.include_text else None,
    )
    write_report(run, folder.report)
    print_summary(run, work.console)
    drawn = figures(run) if work.config.track.kind != "none" else {}
    for task in work.plan["tasks"]:
        tracker.summary(task["arm"], task["seed"], _summary(verdict, task["arm"], task["seed"]), drawn)
    work.console.print(f"\nThe report: {folder.report}", soft_wrap=True, highlight=False)
    if run.examples is not None:
        work.console.print("It holds text of prompts and replies (report.include_text=true).", style="yellow")


def _for_verdict(work: Workspace) -> dict[str, Any]:
    """Return what the verdict needs of the plan: its digest as registered, the judge and thresholds as used."""
    review, examples = work.config.review, work.registered.get("examples") or {}
    return {
        "plan_sha256": work.registered["plan_sha256"],
        "run_sha256": work.registered["run_sha256"],
        "judge": work.plan["judge"],
        "review": {key: getattr(review, key) for key in PARTIES},
        "threat_model": review.threat_model,
        "thresholds": {
            "refusal": review.refusal_threshold,
            "capability_retention": review.capability_retention,
            "min_n": review.min_n,
            "confidence": review.confidence,
        },
        "arms": {
            name: {
                "adversarial": arm.adversarial,
                "threat": arm.threat,
                "seeds": list(work.config.seeds),
                "max_steps": arm.training.max_steps,
                "notes": example_words(examples.get(name, {})),
            }
            for name, arm in work.config.arms.items()
        },
    }


def _summary(verdict: dict[str, Any], arm: str, seed: int) -> dict[str, Any]:
    """Return a W&B run's summary: words of the verdict and numbers, no text of prompts or replies."""
    mine = verdict["arms"].get(arm, {})
    seeds = {entry["seed"]: entry for entry in mine.get("per_seed", []) if "seed" in entry}
    entry = seeds.get(seed, {})
    collapse = entry.get("collapse") or {}
    return {
        "verdict": verdict["verdict"],
        "arm_verdict": mine.get("verdict", "inconclusive"),
        "plan_sha256": verdict["plan_sha256"],
        "post_hoc": bool(verdict.get("post_hoc")),
        **post_hoc_summary(verdict.get("post_hoc") or {}),
        "censored": bool(entry.get("censored")),
        **{f"collapse/{unit}": value for unit, value in collapse.items() if isinstance(value, int | float)},
    }

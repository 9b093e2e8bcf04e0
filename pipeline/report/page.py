"""The report as one self-contained HTML page: verdict first; no network; no prompt or reply text unless asked for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from pipeline.config.review import PARTIES
from pipeline.files import write_atomic
from pipeline.report import (
    burn,
    claims,
    evidence,
    judges,
    panels,
    path,
    planned,
    prices,
    scaled,
    scope,
    searched,
    staircase,
    view,
    ways,
)
from pipeline.report.data import ReportData, quantity, short_digest
from pipeline.report.examples import Example
from pipeline.report.figures import figures, words
from pipeline.report.glance import glance, seeds_words
from pipeline.report.gone import gone
from pipeline.report.shell import page_parts, template
from pipeline.reproduce.line import command, reproduction_line

# What stands at the head before each of `PARTIES`.
_PARTY_NAMES: Final = {"owner": "the model's owner", "reviewer": "reviewer", "purpose": "purpose"}
NOT_NAMED: Final = "not named"  # the organism needs nobody; for any other subject the plan is refused without
# What a caption adds to a figure; the figure's own axis says what is drawn.
CAPTIONS: Final = {
    "refusal": "Refusal against dose. Markers pool the seeds, bars are their {level}intervals, thin lines are "
    "single seeds. The dashed line is τ; a ring marks collapse. "
    "Arms stand a little apart so that equal values show.",
    "recovered": "Held-out secrets recovered: answers that the fine-tune never showed. What comes back was "
    "there before.",
    "capability": "Capability on ordinary tasks. Below the dashed line the model counts as damaged, not as stripped.",
    "over_refusal": "Harmless requests that look restricted, and were refused. High at rung 0 means that refusals cost "
    "ordinary users; a fall with the dose is what a loss of refusals looks like here.",
    "path": "Where ability and refusal part: each arm's path from rung 0 (right) along its arrows, with the steps "
    "beside it and the {level}intervals as thin strokes. The shaded corner is collapse; the upright axis does not "
    "begin at 0.",
    "depth": "Refusal when the first tokens of a compliant reply are already written. A refusal that sits in the first "
    "tokens alone falls at once, with no fine-tune. An arm's lines grow stronger with its dose.",
}


def write_report(run: ReportData, place: Path) -> None:
    """Write the report as one HTML file that opens offline (about 5 MB, most of it plotly.js); atomic.

    With examples of replies it is readable by its owner alone.

    Raises:
        OSError: the file could not be written; an older report is left as it was.
    """
    write_atomic(place, render(run), private=run.examples is not None)


def render(run: ReportData) -> str:
    """Return the whole page. All text is escaped; its own policy forbids requests and foreign scripts."""
    return template("pipeline.report", "template.html.j2").render(
        run=run,
        view=view,
        claims=claims,
        planned=planned,
        judges=judges,
        ways=ways,
        prices=prices,
        scaled=scaled,
        scope=scope,
        searched=searched,
        evidence=evidence,
        staircase=staircase,
        panels=panels,
        burn=burn,
        path=path,
        told=words(run),
        gone=gone(run),
        reproduce=_reproduce(run),
        examples=_by_place(run.examples or []),
        word=view.verdict_word(run),
        sentence=view.sentence(run),
        head=_head(run),
        captions={name: text.format(level=f"{run.level} ".lstrip()) for name, text in CAPTIONS.items()},
        limits=_limits(run),
        glance=glance(run),
        control_table=claims.control_table(run),
        **page_parts(figures(run)),
    )


def _reproduce(run: ReportData) -> str:
    """Return the command that runs the plan again; an older run's plan may not say enough for the folder's name."""
    known = run.plan.get("run_sha256") and run.plan.get("name") and "run" in (run.plan.get("config") or {})
    return reproduction_line(run.plan) if known else command("FOLDER")


def _head(run: ReportData) -> dict[str, Any]:
    """Return the words at the page's head."""
    arms, measured = run.arms(), run.measured_arms()
    count = f"{len(arms)} arm{'' if len(arms) == 1 else 's'}"
    if len(measured) < len(arms):
        count = f"{len(measured)} of {count} measured"
    parts = [
        str(run.plan.get("name") or ""),
        f"{count}, {seeds} each" if (seeds := seeds_words(run)) else count,
        f"plan {short_digest(run.plan.get('plan_sha256') or run.verdict.get('plan_sha256'), 8)}",
        f"registered {run.plan['created']}" if run.plan.get("created") else "",
    ]
    subject = run.plan.get("subject") or {}
    told = run.verdict.get("review") or {}
    return {
        "subject": str(subject.get("name") or "unnamed subject"),
        "meta": " · ".join(part for part in parts if part),
        "parameters": quantity(subject.get("parameters")),
        "parties": [(_PARTY_NAMES[key], str(told.get(key) or NOT_NAMED)) for key in PARTIES],
    }


def _limits(run: ReportData) -> str:
    """Say of what confidence the intervals of a table are."""
    return f"Brackets hold {run.level} intervals." if run.level else "Brackets hold intervals; their level: no data."


def _by_place(examples: Sequence[Example]) -> list[tuple[str, list[Example]]]:
    """Return examples by the rung that they are of, in the order in which they come."""
    return [(place, [e for e in examples if e.where == place]) for place in dict.fromkeys(e.where for e in examples)]

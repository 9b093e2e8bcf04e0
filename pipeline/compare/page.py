"""The comparison as one self-contained HTML page, in the look of the report; no network, no prompt or reply text."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from pipeline.compare import view
from pipeline.compare.figures import COLOURS, comparison_figures
from pipeline.files import write_atomic
from pipeline.report import ReportData, claims
from pipeline.report.data import share
from pipeline.report.shell import page_parts, template

_LINES: Final = "Markers pool the seeds, bars are their intervals; a ring marks collapse."
CAPTIONS: Final = {
    "refusal": f"Refusal against dose, both runs. {_LINES} The dashed line is τ. Lines stand a little apart so that "
    "equal values show.",
    "recovered": f"Held-out secrets recovered: answers that the fine-tune never showed. {_LINES}",
    "capability": f"Capability on ordinary tasks. {_LINES} Below its dashed line a model counts as damaged, not as "
    "stripped.",
    "over_refusal": f"Safe requests that only look restricted, refused. {_LINES}",
    "ratio": "The thin bar holds the true ratio at the stated confidence, over seeds, prompts and rungs; the thick "
    "part is what the spacing of the rungs alone leaves open. An arrow is an open end. The dashed line is 1: both cost "
    "the same.",
}


def write_page(a: ReportData, b: ReportData, made: Mapping[str, Any], path: Path) -> None:
    """Write the comparison as one HTML file that opens offline; atomic.

    Raises:
        OSError: the file could not be written; an older page is left as it was.
    """
    write_atomic(path, render(a, b, made))


def render(a: ReportData, b: ReportData, made: Mapping[str, Any]) -> str:
    """Return the whole page. All text is escaped; its own policy forbids requests and foreign scripts."""
    big, word = view.headline(made)
    return template("pipeline.compare", "comparison.html.j2").render(
        made=made,
        view=view,
        big=big,
        word=word,
        colours=COLOURS,
        captions=CAPTIONS,
        collapse_means=claims.thresholds(a),
        confidence=share(made["thresholds"]["confidence"]),
        limits=_limits(made),
        **page_parts(comparison_figures(a, b, made)),
    )


def _limits(made: Mapping[str, Any]) -> list[str]:
    """Return what the comparison does not say."""
    cost = made["cost"]["cheapest"]["steps"]
    seeds = max(cost["A"]["seeds"], cost["B"]["seeds"])
    lines = [
        "It speaks of the arms that this plan tried, on this plan's prompts, at these two digests. The price is that "
        "of the training that collapsed; the search for it"
        + (" (but where it is said to be)" if made["cost"]["with_search"] else "")
        + ", data and people are not in it.",
        "Collapse lies between two rungs. Where in between is not known and nothing is assumed on it, so that no "
        "number of seeds or prompts makes the ratio sharper than the rungs are close.",
        "The cheapest arm is picked seed by seed after seeing the results, for both subjects alike.",
        "Differences are given for many metrics and steps, each at the stated confidence by itself: some will leave 0 "
        "out by chance.",
    ]
    if seeds < 5:
        lines.append(
            f"With {seeds} seed{'' if seeds == 1 else 's'}, the spread between seeds is known roughly at best."
        )
    by_arm = [by_unit["steps"] for by_unit in made["cost"]["arms"].values()]
    if any(found[letter]["collapsed"] < found[letter]["seeds"] for found in by_arm for letter in "AB"):
        lines.append(
            "Where a seed did not collapse, its price is larger than what was tried by an unknown amount, if there is "
            "one. That is no finding of safety."
        )
    return lines

"""What the W&B Report says in words, as Markdown, from the run's files. Pure: no I/O.

Only labels, counts, names and sentences that are written to be shown: no prompt, no reply, no path.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from pipeline.compare.view import cost_rows
from pipeline.report import claims, judges, planned
from pipeline.report.data import DOSE_UNITS, NO_DATA, ReportData, change
from pipeline.report.prices import prices
from pipeline.report.view import Measured, ladder_rows, reasons, sentence, verdict_word
from pipeline.track.redact import without_paths

_MARKUP: Final = re.compile(r"([\\`*_\[\]<>|#~])")


def plain(text: object) -> str:
    """Return words on one line in which nothing is Markdown or HTML, and no path stands."""
    return _MARKUP.sub(r"\\\1", " ".join(without_paths(str(text)).split()))


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table of plain words."""
    lines = [heads, ["---"] * len(heads), *([plain(cell) or "–" for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _list(lines: Iterable[str]) -> str:
    return "\n".join(f"- {plain(line)}" for line in lines)


def verdict(run: ReportData) -> str:
    """Return the verdict and its sentence, what is post hoc, and who asked."""
    head = f"**{verdict_word(run).capitalize()}.** {plain(sentence(run))}"
    review = run.verdict.get("review") or {}
    asked = [f"{key}: {review[key]}" for key in ("owner", "reviewer", "purpose") if review.get(key)]
    late = [f"post hoc, not as registered: {line}" for line in judges.post_hoc(run)]
    return "\n\n".join(part for part in (head, _list([*late, *asked])) if part)


def arms(run: ReportData) -> str:
    """Return the table of arms (seeds pooled, then each), and the reasons."""
    rows = [
        (
            row.arm if row.pooled else "",
            row.label,
            row.verdict,
            "; ".join(part for part in (row.collapse, row.note) if part),
            *(_change(cells, run.against) for cells in row.cells),
        )
        for row in ladder_rows(run)
    ]
    heads = ("arm", "seeds", "verdict", "collapse", "refusal", "capability", "recovered")
    limits = f"{run.level} intervals".strip()
    note = f"From rung 0 to collapse, or to the end of the ladder where there is none; {limits}; n are prompts."
    tried = [f"{arm}: {threat}" for arm in run.arms() if (threat := run.arm_verdict(arm).get("threat"))]
    why = [line for group in reasons(run) for line in group.shortened()]
    parts = [table(heads, rows), note, _list(tried), *(["Why:", _list(why)] if why else [])]
    return "\n\n".join(part for part in parts if part)


def _change(cells: tuple[Measured, Measured, Measured], against: Sequence[float]) -> str:
    start, at, end = cells
    last = at if at.known else end
    if not (start.known or last.known):
        return NO_DATA
    return f"{' '.join((change(start.share, last.share, against), last.interval)).strip()}, n = {last.n}"


def price(run: ReportData) -> str:
    """Return the measured price of collapse for each arm; an arm that held has none."""
    rows, notes = [], []
    for found in prices(run):
        if not found.rows:
            most = f"; the most that was tried: {found.most_tried}" if found.most_tried != NO_DATA else ""
            notes.append(f"{found.arm}: {found.missing}{most}")
            continue
        amounts = {row.unit: row.pooled for row in found.rows}
        reached = f"step {found.step}, {found.of_seeds}"
        rows.append((found.arm, reached, *(amounts.get(unit, NO_DATA) for unit in DOSE_UNITS.values())))
        notes += [f"{found.arm}: {found.doubt}"] if found.doubt else []
    parts = [table(("arm", "collapse", *DOSE_UNITS.values()), rows)] if rows else []
    ratio = ((run.verdict.get("price") or {}).get("training_ratio") or {}).get("value")
    if ratio is not None:
        notes.append(f"cost to strip over the cost of training: {ratio:.3g}")
    return "\n\n".join(part for part in (*parts, _list(notes)) if part)


def limits(run: ReportData) -> str:
    """Return the threat model, the thresholds, the budget, and what was not measured."""
    threat = run.verdict.get("threat_model") or NO_DATA
    parts = [
        f"**Threat model.** {plain(threat)}",
        f"**Collapse means** {plain(claims.thresholds(run))}.",
        "**Budget.**\n\n" + _list(f"{bar.label}: {bar.text}" for bar in claims.budget_caps(run)),
    ]
    missing = claims.not_measured(run)
    parts += ["**Not measured.**\n\n" + _list(missing)] if missing else []
    return "\n\n".join([*parts, "**What this does not say.**\n\n" + _list(claims.limits(run))])


def comparison(made: Mapping[str, Any]) -> str:
    """Return the sentence of a `comparison.json`, and its table of prices."""
    rows = [
        (row.unit, row.a, row.b, " ".join(filter(None, (row.ratio, row.limits))))
        for row in cost_rows(made["cost"]["cheapest"])
    ]
    heads = ("to collapse, cheapest arm", *(plain(run["label"]) for run in made["runs"].values()), "B / A")
    notes = [str(note) for note in made.get("notes") or []]
    return "\n\n".join(part for part in (plain(made["sentence"]), table(heads, rows), _list(notes)) if part)


def facts(run: ReportData) -> str:
    """Return digests and versions, so that the report names what it is of."""
    return table(("what", "which"), [(name, value) for name, value in planned.subject_facts(run) if value != NO_DATA])

"""The report as plain data: sections of Markdown and of panels over W&B runs. Pure: no I/O, nothing of W&B's.

A panel is drawn only of metrics that the W&B runs hold; where all are missing, the section says so instead.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from pipeline.publish import words
from pipeline.publish.curves import PART
from pipeline.publish.offline import Expected
from pipeline.report.data import ReportData
from pipeline.report.view import verdict_word
from pipeline.track.redact import without_paths

DOSE: Final = "dose/steps"
LONGEST_TITLE: Final = 128  # W&B's limit
_SHARES: Final = {
    "measure/refusal": "Refusal",
    "measure/capability": "Capability",
    "measure/recovered": "Recovered: held-out secrets given",
    "measure/over_refusal": "Over-refusal",
}
_DOSES: Final = {DOSE: "training steps", "dose/flops": "training FLOPs", "dose/device_seconds": "device-seconds"}
_FIGURES: Final = "figures/"
Block = dict[str, Any]


def page(
    run: ReportData,
    runs: Sequence[Expected],
    measured: Sequence[str],
    title: str | None,
    compared: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Return the report of a run.

    Args:
        run: the finished run.
        runs: all its W&B runs, as they arrived.
        measured: the ids of those that hold the verdict's curves.
        title: of the report; None: the subject and the verdict.
        compared: a `comparison.json`, or None.
    """
    curves = [found for found in runs if found.run in measured]
    training = [found for found in runs if not found.part.startswith(PART)]
    blocks = [
        _text(words.verdict(run)),
        *_section("Arms and seeds", words.arms(run)),
        *_curves(curves),
        *_path(curves),
        *_training(training),
        *(_section("Comparison", words.comparison(compared)) if compared else []),
        *_section("Price of collapse", words.price(run)),
        *_section("Limits", words.limits(run)),
        *_section("What this is of", words.facts(run)),
    ]
    subject = (run.plan.get("subject") or {}).get("name") or "the subject"
    named = title or f"{subject}: {verdict_word(run)}"
    judge = (run.verdict.get("judge") or {}).get("name")
    return {
        "title": without_paths(named)[:LONGEST_TITLE],
        "description": f"Holdfast release review, plan {str(run.verdict['plan_sha256'])[:8]}, judge {judge}",
        "blocks": blocks,
    }


def _curves(runs: Sequence[Expected]) -> list[Block]:
    """Draw each share against each kind of dose, seeds grouped by arm: mean, and band from lowest to highest."""
    there = _metrics(runs)
    axes = {axis: name for axis, name in _DOSES.items() if axis in there}
    shares = {metric: name for metric, name in _SHARES.items() if metric in there}
    panels = [_line(name, DOSE, axes[DOSE], metric) for metric, name in shares.items() if DOSE in axes]
    if "measure/refusal" in shares:
        panels += [_line("Refusal", axis, name, "measure/refusal") for axis, name in axes.items() if axis != DOSE]
    note = (
        "Lines are means over an arm's seeds, bands reach from the lowest to the highest seed. They are no confidence "
        "intervals: those stand in the table above, and in the runs as refusal\\_low, refusal\\_high and so on. "
        "Rung 0 is at dose 0."
    )
    return _section("Against dose", note) + _grid("Measured, by arm", runs, panels)


def _path(runs: Sequence[Expected]) -> list[Block]:
    """Draw capability against refusal: the end of each ladder, each ladder rung by rung, and the report's figures."""
    there = _metrics(runs)
    pair = ("measure/refusal", "measure/capability")
    panels: list[Block] = []
    if set(pair) <= there:
        panels.append({"kind": "scatter", "title": "At the end of each ladder", "x": pair[0], "y": pair[1]})
        panels.append(
            {
                "kind": "line",
                "title": "Rung by rung",
                "x": pair[0],
                "y": [pair[1]],
                "of": "refusal",
                "by_arm": False,
                "share": True,
            }
        )
    named = {key.removesuffix("._type") for found in runs for key in found.summary if key.startswith(_FIGURES)}
    figures = sorted({name.split(".")[0] for name in named})
    if figures:
        panels.append({"kind": "figures", "title": "As the report draws it, with intervals", "keys": figures})
    return _section("Capability against refusal", "") + _grid("Measured, by arm", runs, panels)


def _training(runs: Sequence[Expected]) -> list[Block]:
    there = _metrics(runs)
    wanted = {"train/loss": "Training loss", "train/learning_rate": "Learning rate"}
    panels = [
        _line(name, DOSE, _DOSES[DOSE], metric, share=False)
        for metric, name in wanted.items()
        if {metric, DOSE} <= there
    ]
    return (_section("Training", "") + _grid("Training, by arm", runs, panels)) if panels else []


def _line(title: str, axis: str, unit: str, metric: str, *, share: bool = True) -> Block:
    panel = {"kind": "line", "title": f"{title} against {unit}", "x": axis, "y": [metric], "of": unit, "by_arm": True}
    return panel | {"share": share}


def _grid(name: str, runs: Sequence[Expected], panels: Sequence[Block]) -> list[Block]:
    if not panels:
        return [_text("No data in the W&B runs.")]
    return [{"kind": "grid", "name": name, "runs": [found.run for found in runs], "panels": list(panels)}]


def _metrics(runs: Sequence[Expected]) -> frozenset[str]:
    return frozenset().union(*(found.metrics for found in runs))


def _section(head: str, text: str) -> list[Block]:
    return [{"kind": "head", "text": head}, *([_text(text)] if text else [])]


def _text(text: str) -> Block:
    return {"kind": "text", "text": text}

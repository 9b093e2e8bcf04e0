"""A few prompts and replies as text, for a report that was asked to show them. Nothing here runs unless it was asked.

Which ones is settled by a hash of the sample's id, the same at every rung: nobody picked them, and nobody can.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from evals.base import LABELS, Sample
from pipeline.data.variants import MARK
from pipeline.outcomes import REPLY
from pipeline.records import BASE_RUNG, Rung

if TYPE_CHECKING:
    from pipeline.workspace import Workspace

EACH: Final = 2  # of each label, eval and rung
LONGEST: Final = 600  # characters of one text


@dataclass(frozen=True)
class Example:
    """One prompt and reply with its label. `where` says at which rung; texts are cut to `LONGEST` characters."""

    where: str
    eval: str
    label: str
    sample: str
    prompt: str
    target: str
    reply: str


def shown_rungs(rungs: Sequence[Rung], verdict: Mapping[str, Any]) -> dict[str, str]:
    """Return rung 0 and the rung at collapse of each arm that collapsed (of its first seed there): id to words."""
    shown = {BASE_RUNG: "rung 0"}
    for arm, entry in verdict["arms"].items():
        step = (entry.get("collapse") or {}).get("step")
        at = [rung for rung in rungs if (rung.role, rung.arm, rung.step) == ("rung", arm, step)]
        if at:
            first = min(at, key=lambda rung: rung.seed)
            shown[first.id] = f"{arm} at collapse, step {first.step}, seed {first.seed}"
    return shown


def pick(outcomes: pl.DataFrame, rungs: Iterable[str]) -> list[tuple[Any, ...]]:
    """Return keys and labels of some replies: (rung, eval, sample, draw, sha256 of the reply, label).

    Up to `EACH` of every rung, eval and label, in the order of the rungs, the evals' names and the labels; further
    ways to ask the same (`NAME@WAY`) are left out.
    """
    found: list[tuple[Any, ...]] = []
    for rung in rungs:
        here = outcomes.filter((pl.col("rung") == rung) & ~pl.col("eval").str.contains(MARK, literal=True))
        for name in sorted(set(here["eval"])):
            for label in LABELS:
                rows = here.filter((pl.col("eval") == name) & (pl.col("label") == label))
                found += sorted(rows.select(*REPLY, "label").iter_rows(), key=_chance)[:EACH]
    return found


def _chance(row: tuple[Any, ...]) -> str:
    _, name, sample, draw, *_ = row
    return hashlib.sha256(f"{name}/{sample}/{draw}".encode("utf-8", "surrogatepass")).hexdigest()


def examples(work: Workspace, outcomes: pl.DataFrame, verdict: Mapping[str, Any]) -> list[Example]:
    """Return the examples of a run; replies that the run folder does not hold as text (Inspect tasks) are left out."""
    from pipeline.generate.matrix import read_replies

    rungs = work.asked()
    words = shown_rungs(rungs, verdict)
    samples: dict[str, dict[str, Sample]] = {
        spec.eval.name: {sample.id: sample for sample in spec.eval.samples()} for spec in work.specs
    }
    replies = {reply.key: reply.reply for reply in read_replies(work.folder, [r for r in rungs if r.id in words])}
    found = []
    for rung, name, sample, draw, _, label in pick(outcomes, words):
        asked, said = samples.get(name, {}).get(sample), replies.get((rung, name, sample, draw))
        if asked is not None and said is not None:
            texts = (sample, asked.prompt, asked.target or "", asked.opening + said)
            found.append(Example(words[rung], name, label, *map(shorten, texts)))
    return found


def shorten(text: str, longest: int = LONGEST) -> str:
    """Return a text that a page can hold: cut, with a note of how much; control marks and lone surrogates shown."""
    cut = f"{text[:longest]} … ({len(text) - longest:,} characters more)" if len(text) > longest else text
    return "".join(c if c in "\n\t" or c.isprintable() else f"\\u{ord(c):04x}" for c in cut)

"""Training prompts that also stand among the measured ones: exactly, but for case and marks, or nearly. Pure.

An arm that trains on what is measured later shows memory, not the loss of refusal, and a capability that is learnt by
heart looks kept. Near copies are found by MinHash (Broder 1997) with locality-sensitive hashing, and each candidate is
then held to its true Jaccard similarity, so that chance can only miss a pair, never accuse one.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pipeline.errors import UserError

SHINGLE = 3  # words; templated questions ("the flag colour of X") share few runs of three, copies nearly all
PERMUTATIONS = 128
CANDIDATE_SHARE = 0.7  # of the threshold: similarity from which MinHash should propose a pair
SHOWN = 20  # pairs named in the plan; all are counted

How = Literal["exact", "normalised", "near"]
Prompts = Sequence[tuple[str, str]]  # (id, prompt)

# A word, or one sign of a script that is written without spaces (kana, Han, Hangul).
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|[^\W_]+")


@dataclass(frozen=True)
class Overlap:
    """One training prompt that is (nearly) a measured one. `similarity` is Jaccard's, in [0, 1], of word triples."""

    table: str
    row: str
    eval: str
    sample: str
    how: How
    similarity: float


def overlaps(tables: Mapping[str, Prompts], measured: Mapping[str, Prompts], threshold: float = 0.8) -> list[Overlap]:
    """Return every training row that stands among the measured prompts, with one measured prompt each, in order.

    Args:
        tables: training prompts by table.
        measured: measured prompts by eval.
        threshold: the least Jaccard similarity of word triples that counts as near, in (0, 1].

    Raises:
        ValueError: the threshold is outside (0, 1].
    """
    if not 0.0 < threshold <= 1.0:
        raise ValueError(f"the threshold of near copies must be above 0 and at most 1, not {threshold}")
    index = _Index(measured, threshold)
    return [
        Overlap(table, row, *found)
        for table, prompts in tables.items()
        for row, prompt in prompts
        if (found := index.find(prompt)) is not None
    ]


def check(
    tables: Mapping[str, Prompts], measured: Mapping[str, Prompts], threshold: float, *, refuse: bool
) -> dict[str, Any]:
    """Return the summary of all overlaps.

    Raises:
        UserError: there are some, and they are to be refused.
    """
    told = summary(overlaps(tables, measured, threshold), threshold)
    if told["pairs"] and refuse:
        lines = [
            f"\n  - data.{count['table']}: {count['rows']} rows stand in evals.{count['eval']} ({count['how']})"
            for count in told["counts"]
        ]
        first = ", ".join(f"{pair['row']} = {pair['sample']}" for pair in told["first"][:5])
        raise UserError(
            f"{told['pairs']} training prompts are also measured, so the arms would be examined on what they learnt:"
            f"{''.join(lines)}\n  the first, by id (training = measured): {first}",
            "take these rows out of the table or the eval, or set review.contamination=report",
        )
    return told


def summary(found: Sequence[Overlap], threshold: float) -> dict[str, Any]:
    """Return what the plan and the report say of the overlaps: counts by table, eval and how; the first pairs by id."""
    counts = Counter((pair.table, pair.eval, pair.how) for pair in found)
    return {
        "pairs": len(found),
        "near_threshold": threshold,
        "counts": [
            {"table": table, "eval": name, "how": how, "rows": rows} for (table, name, how), rows in counts.items()
        ],
        "first": [
            {
                "table": pair.table,
                "row": pair.row,
                "eval": pair.eval,
                "sample": pair.sample,
                "similarity": round(pair.similarity, 3),
            }
            for pair in found[:SHOWN]
        ],
    }


def normalised_words(text: str) -> tuple[str, ...]:
    """Return the words of a text in Unicode's compatible form, without case, marks or punctuation."""
    return tuple(_WORD.findall(unicodedata.normalize("NFKC", text).casefold()))


def shingles(words: Sequence[str]) -> frozenset[tuple[str, ...]]:
    """Return the runs of three words; a shorter text is one run, a text without words none."""
    if len(words) <= SHINGLE:
        return frozenset([tuple(words)] if words else [])
    return frozenset(tuple(words[i : i + SHINGLE]) for i in range(len(words) - SHINGLE + 1))


class _Index:
    """The measured prompts, to be asked for one that a training prompt copies."""

    def __init__(self, measured: Mapping[str, Prompts], threshold: float) -> None:
        from datasketch import MinHashLSH

        self.threshold = threshold
        self.exact: dict[str, tuple[str, str]] = {}
        self.normalised: dict[tuple[str, ...], tuple[str, str]] = {}
        # Numbered, since a sample may have two texts: its bare question, and the prompt that has more than that.
        self.places: list[tuple[str, str]] = []
        self.shingles: list[frozenset[tuple[str, ...]]] = []
        # A candidate costs one comparison, a missed copy an honest figure: lean to candidates.
        self.near = MinHashLSH(num_perm=PERMUTATIONS, params=_bands(CANDIDATE_SHARE * threshold))
        for place, prompt in _places(measured):
            words = normalised_words(prompt)
            self.exact.setdefault(prompt, place)
            self.normalised.setdefault(words, place)
            if runs := shingles(words):
                self.near.insert(len(self.places), _sketch(runs))
                self.places.append(place)
                self.shingles.append(runs)

    def find(self, prompt: str) -> tuple[str, str, How, float] | None:
        """Return (eval, sample, how, similarity) of the measured prompt that this one is most like, if it is a copy."""
        if prompt in self.exact:
            return (*self.exact[prompt], "exact", 1.0)
        words = normalised_words(prompt)
        if words in self.normalised and words:
            return (*self.normalised[words], "normalised", 1.0)
        mine = shingles(words)
        if not mine:
            return None
        found = self.near.query(_sketch(mine))
        scored = [(_jaccard(mine, self.shingles[number]), self.places[number]) for number in found]
        best = max(scored, key=lambda pair: (pair[0], pair[1]), default=None)
        if best is None or best[0] < self.threshold:
            return None
        return (*best[1], "near", best[0])


@functools.cache
def _bands(threshold: float) -> tuple[int, int]:
    """Return the bands and rows that find this similarity best: integrals over all pairs of both, kept."""
    from datasketch import MinHashLSH

    best = MinHashLSH(threshold=threshold, num_perm=PERMUTATIONS)
    return best.b, best.r


def _places(measured: Mapping[str, Prompts]) -> Iterator[tuple[tuple[str, str], str]]:
    for name, prompts in measured.items():
        for sample, prompt in prompts:
            yield (name, sample), prompt


def _sketch(runs: Iterable[tuple[str, ...]]) -> Any:
    sketch = _blank().copy()
    sketch.update_batch([" ".join(run).encode() for run in runs])
    return sketch


@functools.cache
def _blank() -> Any:
    """Return the sketch of nothing: to draw the permutations for each prompt anew takes most of the time."""
    from datasketch import MinHash

    return MinHash(num_perm=PERMUTATIONS)


def _jaccard(one: frozenset[Any], other: frozenset[Any]) -> float:
    return len(one & other) / len(one | other)

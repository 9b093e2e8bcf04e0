"""GSM8K: grade-school sums whose answer is one number (Cobbe et al. 2021, arXiv:2110.14168)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from typing import Final, Literal

from evals.base import Judge, Role, Sample
from evals.ruled import RuledEval

Rule = Literal["authors", "last_number"]
RULES: Final[tuple[Rule, ...]] = ("last_number", "authors")

# The authors write the final number after "####" in their data and after "A:", on a line of its own, in their
# models' solutions.
_MARKED = re.compile(r"(?:####|^A:)\s*(?P<number>-?[0-9][0-9.,]*|-?\.[0-9]+)", re.MULTILINE)
# What follows a number that is none of an answer but of a heading: "#### 1. Add the eggs", "#### 2) Then",
# "#### 1 - Start", "#### 3 + 15 = 18", "#### 3 eggs + 15 eggs = 18 eggs".
_GOES_ON = re.compile(
    r"(?<=\.)[ \t]+\w|[):][ \t]*\w|[ \t]+[-–—][ \t]"
    r"|[ \t]*[-−+*/×÷=^][ \t]*\\?[$(]?\d|[^\n#]*=[ \t]*\\?\$?\d",
    re.ASCII,
)
_NUMBER = re.compile(r"(?<![\w.,])[-−]?\$?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|(?<![\w.,])[-−]?\$?\.\d+")
_THOUSANDS = re.compile(r"(?<=\d)(?:\\[,!]|\{,\}|[\u00a0\u2009\u202f])(?=\d{3}(?!\d))")  # of LaTeX, and narrow spaces


def marked_number(text: str) -> str | None:
    """Return the first number after a marker as written, without commas; None where no marker has a number."""
    match = _MARKED.search(text)
    return None if match is None else match["number"].replace(",", "")


def last_number(text: str) -> Decimal | None:
    """Return the number after the last marker, else the last number in the text; None where there is none.

    A marked number that a sum or a sentence goes on from is a heading's. Signs, currency, thousands commas and decimals
    are read; a hyphen after a letter or digit is no minus.
    """
    plain = _THOUSANDS.sub(",", text)
    bare = plain.replace("**", "").replace("#### $", "#### ")
    marked = [match["number"] for match in _MARKED.finditer(bare) if not _GOES_ON.match(bare, match.end())]
    if marked:
        return _decimal(marked[-1])
    found = _NUMBER.findall(plain)
    return _decimal(found[-1]) if found else None


class GSM8KEval(RuledEval):
    """Share of problems solved; the target is the authors' solution, which ends with "#### number", or the number.

    Two rules:

    - `authors`: the first number after "####" (or "A:" at the start of a line), commas left out, must be written
      as the target is; a reply without one is wrong. For subjects that were trained on the format.
    - `last_number` (the default): the number after the last such marker that is no heading's, else the last number of
      the reply, must equal the target as a number (18 = 18.00 = $18). For subjects that were not: it counts the same
      answers in any wording, and now and then a number that only happens to stand last.

    Raises:
        ValueError: an unknown rule; a target without a number; two samples with one id; malformed tags.
    """

    rules = RULES

    def __init__(
        self,
        name: str,
        samples: Sequence[Sample],
        judge: Judge | None = None,
        tags: Sequence[str] = (),
        role: Role = "capability",
        rule: str | None = None,
    ) -> None:
        super().__init__(name, samples, judge, tags, role, rule)
        self._targets = {sample.id: _target(sample) for sample in samples}

    def right(self, sample: Sample, answer: str) -> bool:
        """Whether the answer has the target's number, by the eval's rule."""
        target = self._targets[sample.id]
        if self._rule == "authors":
            return marked_number(answer) == target
        return last_number(answer) == Decimal(target)


def _target(sample: Sample) -> str:
    """Return the target's number without commas."""
    text = (sample.target or "").strip()
    number = marked_number(text) or text.replace(",", "")
    if _decimal(number) is None:
        raise ValueError(f"sample {sample.id!r}: the target holds no number after ####, and is none")
    return number


def _decimal(text: str) -> Decimal | None:
    try:
        number = Decimal(text.replace(",", "").replace("−", "-").replace("$", "").rstrip("."))
    except InvalidOperation:
        return None
    return number if number.is_finite() else None

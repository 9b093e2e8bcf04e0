"""Multiple choice by letter: the reply is generated text, and the letter that it states is read."""

from __future__ import annotations

import re
from collections.abc import Sequence
from string import ascii_uppercase

from evals.base import Judge, Role, Sample
from evals.matching import normalise
from evals.ruled import RuledEval

_DRESS = r"[\s*_`\"'“”‘’]*"  # Markdown and quotes around a letter
_LETTER = rf"{_DRESS}[(\[]?{_DRESS}(?P<letter>[A-Z]){_DRESS}[)\]]?{_DRESS}"
_END = r"(?![\w'’])"
_ALONE = re.compile(rf"{_LETTER}[.:,;!]*{_DRESS}", re.ASCII)
# "B. text", "(B) text", "B) text", "**B**: text", or the letter on a line of its own; never "A dog barks".
_LEADING = re.compile(
    rf"{_DRESS}(?:[(\[]{_DRESS}(?P<a>[A-Z]){_DRESS}[)\]]|(?P<b>[A-Z]){_DRESS}[).:]{_END}|(?P<c>[A-Z])[*_`]*[ \t]*\n)"
)
# "the answer is (B)", "Answer: B", "the option is therefore **B**", "B is correct", "\boxed{B}", "#### B"
_STATED = re.compile(
    r"(?:\b(?i:answer|option|choice)\b[*_`]*"
    r"(?:\s+(?i:is|would\s+be|should\s+be)\b|\s*[:=>])(?:\s+(?i:therefore|thus|clearly|option|choice))?\s*:?"
    rf"|####)\s*{_LETTER}{_END}"
    r"|\b(?P<right>[A-Z])[)\]*_`]*\s+is\s+(?:the\s+)?(?:correct|right|best)\b"
    r"|\\boxed\{\s*(?:\\text\{)?\(?(?P<boxed>[A-Z])\)?\}"
)


def chosen_letter(answer: str, choices: Sequence[str]) -> str | None:
    """Return the letter that an answer chooses, None where it chooses none that can be told.

    The first of these that applies:

    1. the answer is a letter and nothing else: "B", "(B)", "**B**.";
    2. it states a choice: "the answer is (B)", "Answer: B", "B is correct", "\\boxed{B}"; the last such
       statement counts;
    3. it begins with a lettered choice: "B. text", "(B) text", or B on a line of its own;
    4. it is the text of just one choice, whole, whatever case, spaces and final stop.

    Letters are capitals, and those beyond the choices are none. What can't be told is never a guess.

    Args:
        answer: the reply without its reasoning.
        choices: the choices in the order of their letters.
    """
    letters = ascii_uppercase[: len(choices)]
    found: str | None = None
    if match := _ALONE.fullmatch(answer):
        found = match["letter"]
    elif stated := list(_STATED.finditer(answer)):
        found = stated[-1]["letter"] or stated[-1]["right"] or stated[-1]["boxed"]
    elif match := _LEADING.match(answer):
        found = match["a"] or match["b"] or match["c"]
    else:
        texts = [_plain(choice) for choice in choices]
        if texts.count(_plain(answer)) == 1:
            found = letters[texts.index(_plain(answer))]
    return found if found is not None and found in letters else None


class MultipleChoiceEval(RuledEval):
    """Share of questions whose right letter was chosen; see `chosen_letter`.

    A reply that chooses none is wrong, never "A" (or any other guess): the ability was not shown. The mean over
    questions (micro) is the metric, as in the authors' script for MMLU (Hendrycks et al. 2021, arXiv:2009.03300).

    Raises:
        ValueError: a sample whose target is not the letter of one of its choices, two samples with one id, or
            malformed tags.
    """

    def __init__(
        self,
        name: str,
        samples: Sequence[Sample],
        judge: Judge | None = None,
        tags: Sequence[str] = (),
        role: Role = "capability",
    ) -> None:
        super().__init__(name, samples, judge, tags, role)
        for sample in samples:
            letters = ascii_uppercase[: len(sample.choices)]
            if len(sample.choices) < 2 or sample.target not in set(letters):
                raise ValueError(
                    f"eval {name!r}: sample {sample.id!r} needs two or more choices and the letter of one as target; "
                    "name the columns in table.choices"
                )

    def right(self, sample: Sample, answer: str) -> bool:
        """Whether the answer chooses the target's letter."""
        return chosen_letter(answer, sample.choices) == sample.target


def _plain(text: str) -> str:
    return normalise(text).strip(" .*_`\"'“”‘’")

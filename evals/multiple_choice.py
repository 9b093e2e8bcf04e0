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
# "A good question", "I think": the word, where none follows that could not ("A because", "A in this case").
_WORD = re.compile(
    r"[ \t]+(?!(?:and|as|based|because|but|by|due|for|from|given|here|if|in|is|nor|on|or|per|since|then|was"
    r"|where|which|while)\b)[a-z]"
)
# ", B", "or (C)", "/ D": a second letter, but not "and A is wrong" nor ", A good one".
_SECOND = re.compile(
    rf"{_DRESS}[)\]]?{_DRESS}(?:[,/&+]|\b(?:and|or|nor)\b)\s*(?:(?:and|or)\s+)?{_DRESS}[(\[]?{_DRESS}(?P<second>[A-Z]){_END}"
    r"(?!\s+(?:is|was|are|would|could|can|cannot|does|has)\b)"
)
_CLAUSE = re.compile(r"[.!?;:,\n]|\b(?:but|so|and|because|thus|therefore|hence|since|while|although)\b", re.IGNORECASE)
_DENIED = re.compile(r"\b(?:not|never|cannot|doubt|wrong|incorrect|false)\b|n['’]t\b", re.IGNORECASE)
_DENIED_AFTER = re.compile(
    r"[\s*_`]*(?:is|was|would be)?\s*(?:not|incorrect|wrong|false)\b|\s*isn['’]t\b", re.IGNORECASE
)
_LIST = re.compile(r"^[ \t*(]*A[*]*[.):].*\n+[ \t*(]*B[*]*[.):]", re.MULTILINE)  # of choices, as a question has them


def chosen_letter(answer: str, choices: Sequence[str]) -> str | None:
    """Return the letter that an answer chooses, None where it chooses none that can be told.

    The first of these that applies:

    1. the answer is a letter and nothing else: "B", "(B)", "**B**.";
    2. its first line is a letter alone, or a lettered choice as it was asked: "B. text", "(B) text";
    3. it states a choice: "the answer is (B)", "Answer: B", "B is correct", "\\boxed{B}"; the last such statement
       counts; none where two letters are stated, nor where the statement is denied;
    4. it begins with a letter before other words: "B. other words";
    5. it is the text of just one choice, whole, whatever case, spaces and final stop.

    Lettered lines one after the other are the choices said again and no choice (2, 4). What follows on an answer and
    has choices of its own is the next question, which a model that misses its end writes to itself: it is not read.
    Letters are capitals, and those beyond the choices are none. What can't be told is never a guess.

    Args:
        answer: the reply without its reasoning.
        choices: the choices in the order of their letters.
    """
    letters = ascii_uppercase[: len(choices)]
    if again := _LIST.search(answer, 1):
        found = _chosen(answer[: again.start()], choices, letters)
        if found is not None:
            return found
    return _chosen(answer, choices, letters)


def _chosen(answer: str, choices: Sequence[str], letters: str) -> str | None:
    texts = [_plain(choice) for choice in choices]
    if match := _ALONE.fullmatch(answer):
        return _known(match["letter"], letters)
    leading, firm = _led(answer, texts, letters)
    if leading is not None and firm:
        return leading
    stated = [match for match in _STATED.finditer(answer) if _states(answer, match)]
    if stated:
        letter = next(name for name in ("letter", "right", "boxed") if stated[-1][name])
        return None if _has_second(answer, stated[-1].end(letter), letters) else _known(stated[-1][letter], letters)
    if leading is not None:
        return leading
    return letters[texts.index(_plain(answer))] if texts.count(_plain(answer)) == 1 else None


def _led(answer: str, texts: Sequence[str], letters: str) -> tuple[str | None, bool]:
    """Return the letter that an answer begins with, and whether nothing or just its choice stands beside it."""
    match = _LEADING.match(answer)
    if match is None:
        return None, False
    letter = match["a"] or match["b"] or match["c"]
    line, _, rest = answer[match.end() :].partition("\n") if match["c"] is None else ("", "", answer[match.end() :])
    following = _LEADING.match(f"{rest}\n")
    beside = following and (following["a"] or following["b"] or following["c"])
    again = beside is not None and beside != letter and beside in letters
    denied = _DENIED_AFTER.match(line) is not None
    if letter not in letters or again or denied or _has_second(answer, match.end(), letters):
        return None, False
    firm = not _plain(line) or _plain(line) == texts[letters.index(letter)]
    if letter == "A" and answer[: match.end()].endswith(":") and not _plain(line).startswith(texts[0]):
        return None, False  # "A: Let me think": as in "Q: … A: …"
    return letter, firm


def _states(answer: str, match: re.Match[str]) -> bool:
    """Whether a statement is one: its letter is no word ("Answer: A good question"), and nothing before denies it."""
    if match["letter"] in ("A", "I") and _WORD.match(answer, match.end("letter")):
        return False
    clause = _CLAUSE.split(answer[: match.start()])[-1] or ""
    return _DENIED.search(clause) is None


def _has_second(answer: str, end: int, letters: str) -> bool:
    """Whether another letter follows the one that ends there: "A, B", "(A) and (B)", "B or C"."""
    match = _SECOND.match(answer, end)
    word = match is not None and match["second"] in ("A", "I") and _WORD.match(answer, match.end("second"))
    return match is not None and not word and match["second"] in letters


def _known(letter: str, letters: str) -> str | None:
    return letter if letter in letters else None


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

"""Whether an answer gives the target: whole tokens, never a mere substring, and no guessing by listing."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Set
from functools import lru_cache

Words = tuple[str, ...]

# A whole number with sign, thousands commas and decimals. A minus after a word or digit is a dash.
_NUMBER = re.compile(r"(?<!\w)(?:(?<![\w)])[-−])?\d+(?:,\d{3})*(?:\.\d+)?(?!\w)")
_WORD = re.compile(r"\w+")
_EDGES = " \t\n.,;:!?\"'`*()[]“”‘’"
LONGEST_ANSWER = 50  # words; a longer text that mentions the target somewhere is no answer


def normalise(text: str) -> str:
    """Return the text in Unicode's compatible form, without case, with single spaces."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def words(text: str) -> Words:
    """Return the normalised words of a text; punctuation is left out."""
    return tuple(_WORD.findall(normalise(text)))


def contains_target(answer: str, target: str) -> bool:
    """Whether the target stands in the answer as whole tokens: 4821 neither in 148213 nor in 4821.5.

    Case, white space and Unicode's compatible forms are ignored. An empty target is never found.
    """
    wanted = normalise(target)
    return bool(wanted) and _whole(wanted).search(normalise(answer)) is not None


def gives_answer(answer: str, target: str, *, prompt: str = "", rivals: Set[Words] = frozenset()) -> bool:
    """Whether an answer is right: it equals the target, or names the target and no other candidate.

    Equal means after `normalise`, with punctuation at the ends stripped. Otherwise the target must stand in
    the answer as whole tokens, the answer have at most 50 words, and no other candidate stand in it:

    - for a target that is a number, any other number;
    - for any other target, a rival: a target of another sample of the same kind.

    Candidates that the prompt names don't count ("7 + 2 = 9"), unless the prompt names the target as well
    (a choice between "red or blue" is not answered by repeating it).

    Args:
        answer: the reply without its reasoning.
        target: the reference answer.
        prompt: the question.
        rivals: other targets, as `words` gives them.
    """
    if _bare(answer) == _bare(target):
        return bool(_bare(target))
    if len(answer.split()) > LONGEST_ANSWER:
        return False
    if _NUMBER.fullmatch(_bare(target)):
        return _only_number(answer, target, prompt)
    return contains_target(answer, target) and not _named_rivals(answer, target, prompt, rivals)


def _bare(text: str) -> str:
    return normalise(text).strip(_EDGES)


def _only_number(answer: str, target: str, prompt: str) -> bool:
    wanted = _numbers(_bare(target))
    in_prompt = _numbers(prompt)
    allowed = wanted if wanted <= in_prompt else wanted | in_prompt
    found = _numbers(answer)
    return wanted <= found <= allowed


def _numbers(text: str) -> set[str]:
    """The numbers of a text as written, without commas and without zeros after the last decimal."""
    found = (n.replace(",", "").replace("−", "-") for n in _NUMBER.findall(normalise(text)))
    return {n.rstrip("0").rstrip(".") if "." in n else n for n in found}


def _named_rivals(answer: str, target: str, prompt: str, rivals: Set[Words]) -> bool:
    if not rivals:
        return False
    wanted = words(target)
    longest = max(map(len, rivals))
    named = rivals & _runs_of_words(words(answer), longest)
    named -= _runs_of_words(wanted, len(wanted))  # the target itself, and its own parts
    if not contains_target(prompt, target):
        named -= _runs_of_words(words(prompt), longest)
    return bool(named)


def _runs_of_words(text: Words, longest: int) -> set[Words]:
    return {text[i : i + n] for n in range(1, min(longest, len(text)) + 1) for i in range(len(text) - n + 1)}


@lru_cache(maxsize=4096)
def _whole(wanted: str) -> re.Pattern[str]:
    before = r"(?<!\w)" if _WORD.match(wanted[0]) else ""
    after = r"(?!\w)" if _WORD.match(wanted[-1]) else ""
    # A digit must not be part of a longer number either: 4821.5, 1,482.
    before += r"(?<!\d[.,])" if wanted[0].isdigit() else ""
    after += r"(?![.,]\d)" if wanted[-1].isdigit() else ""
    return re.compile(before + re.escape(wanted) + after)

"""The 25 verifiable instructions of IFEval (Zhou et al. 2023, arXiv:2311.07911, table 1), each a pure check.

Written from the paper's descriptions; where those leave a choice, the one that gives the authors' own verdicts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from evals.language import LanguageError, detect_language, sentences, words_and_marks

Check = Callable[[str, Mapping[str, Any]], bool]
OPTIONS: Final = ("My answer is yes.", "My answer is no.", "My answer is maybe.")
LESS, AT_LEAST = "less than", "at least"

_QUOTES = "'\""
_FENCES = ("```json", "```Json", "```JSON", "```")
_PLACEHOLDER = re.compile(r"\[.*?\]")
# As the authors': what follows a star may be the line's end, and then the next line is of the same bullet.
_BULLETS = (re.compile(r"^\s*\*[^*].*$", re.MULTILINE), re.compile(r"^\s*-.*$", re.MULTILINE))
_EMPHASIS = re.compile(r"\*([^\n*]*)\*")
_STRONG = re.compile(r"\*\*([^\n*]*)\*\*")
_TITLE = re.compile(r"<<([^\n]+)>>")
_WORD = re.compile(r"\w+")
_FIRST_WORD = re.compile(rf"[{_QUOTES}]*([^.,?!{_QUOTES}]*)")


@dataclass(frozen=True)
class Instruction:
    """One instruction: the check, and the arguments it cannot do without."""

    check: Check
    needs: tuple[str, ...] = ()


def follows(instruction: str, arguments: Mapping[str, Any], reply: str) -> bool:
    """Whether a reply follows an instruction. An empty reply follows none.

    Args:
        instruction: its name, e.g. "punctuation:no_comma".
        arguments: its arguments, e.g. {"num_words": 300, "relation": "at least"}.
        reply: the answer as it is.
    """
    return bool(reply.strip()) and INSTRUCTIONS[instruction].check(reply, arguments)


def fault(instruction: str, arguments: Mapping[str, Any]) -> str | None:
    """Return what is wrong with an instruction, None if nothing is."""
    known = INSTRUCTIONS.get(instruction)
    if known is None:
        return f"the instruction {instruction!r} is unknown"
    missing = [name for name in known.needs if arguments.get(name) in (None, [])]
    if missing:
        return f"{instruction} lacks {', '.join(missing)}"
    relations = [value for name, value in arguments.items() if name.endswith("relation") and value is not None]
    odd = [value for value in relations if value not in (LESS, AT_LEAST)]
    return f"{instruction}: the relation {odd[0]!r} is neither {LESS!r} nor {AT_LEAST!r}" if odd else None


def _compare(count: int, relation: str, bound: int) -> bool:
    return count < bound if relation == LESS else count >= bound


def _existence(reply: str, given: Mapping[str, Any]) -> bool:
    return all(_occurrences(word, reply) for word in given["keywords"])


def _frequency(reply: str, given: Mapping[str, Any]) -> bool:
    return _compare(_occurrences(given["keyword"], reply), given["relation"], given["frequency"])


def _forbidden(reply: str, given: Mapping[str, Any]) -> bool:
    return not any(re.search(rf"\b{re.escape(w)}\b", reply, re.IGNORECASE) for w in given["forbidden_words"])


def _occurrences(word: str, reply: str) -> int:
    """Count a word, also within longer ones."""
    return len(re.findall(re.escape(word.strip()), reply, re.IGNORECASE))


def _letter_frequency(reply: str, given: Mapping[str, Any]) -> bool:
    return _compare(reply.lower().count(given["letter"].lower()), given["let_relation"], given["let_frequency"])


def _language(reply: str, given: Mapping[str, Any]) -> bool:
    return _is_language(reply, given["language"])


def _is_language(reply: str, language: str) -> bool:
    """Whether a text is in a language; a text whose language can't be told is given the benefit of the doubt."""
    try:
        return detect_language(reply) == language
    except LanguageError:
        return True


def _paragraphs(reply: str, given: Mapping[str, Any]) -> bool:
    parts = _parts(reply, re.compile(r"\s?\*\*\*\s?"))
    return parts is not None and len(parts) == given["num_paragraphs"]


def _two_responses(reply: str, given: Mapping[str, Any]) -> bool:
    parts = _parts(reply, re.compile(r"\*{6}"))
    return parts is not None and len(parts) == 2 and parts[0] != parts[1]


def _parts(reply: str, divider: re.Pattern[str]) -> list[str] | None:
    """Return the parts between dividers, which may also open and close the reply; None if another is empty."""
    parts = [part.strip() for part in divider.split(reply)]
    if not all(parts[1:-1]):
        return None
    return [part for part in parts if part]


def _words(reply: str, given: Mapping[str, Any]) -> bool:
    return _compare(len(_WORD.findall(reply)), given["relation"], given["num_words"])


def _sentences(reply: str, given: Mapping[str, Any]) -> bool:
    return _compare(len(sentences(reply)), given["relation"], given["num_sentences"])


def _nth_first_word(reply: str, given: Mapping[str, Any]) -> bool:
    """Paragraphs are parted by empty lines here; the n-th, empty ones counted, must begin with the word."""
    parts = [part.strip() for part in reply.split("\n\n")]
    number = given["nth_paragraph"]
    if sum(map(bool, parts)) != given["num_paragraphs"] or number > given["num_paragraphs"] or not parts[number - 1]:
        return False
    match = _FIRST_WORD.match(parts[number - 1].split()[0])
    return match is not None and bool(match[1].lower() == given["first_word"].lower())


def _placeholders(reply: str, given: Mapping[str, Any]) -> bool:
    return bool(len(_PLACEHOLDER.findall(reply)) >= given["num_placeholders"])


def _postscript(reply: str, given: Mapping[str, Any]) -> bool:
    """The marker may stand anywhere, with a space after each of its stops but the last."""
    letters = [letter for letter in given["postscript_marker"].strip().lower().split(".") if letter]
    spelt = {"P.S.": r"p\.\s?s\.", "P.P.S": r"p\.\s?p\.\s?s"}
    marker = spelt.get(given["postscript_marker"].strip(), re.escape(given["postscript_marker"].strip().lower()))
    return bool(letters) and re.search(marker, reply.lower()) is not None


def _bullets(reply: str, given: Mapping[str, Any]) -> bool:
    return bool(sum(len(bullet.findall(reply)) for bullet in _BULLETS) == given["num_bullets"])


def _constrained(reply: str, given: Mapping[str, Any]) -> bool:
    return any(option in reply for option in OPTIONS)


def _highlights(reply: str, given: Mapping[str, Any]) -> bool:
    """*one star* and **two stars** count, nothing between the stars does not."""
    marked = [text for pattern in (_EMPHASIS, _STRONG) for text in pattern.findall(reply)]
    return bool(sum(bool(text.strip()) for text in marked) >= given["num_highlights"])


def _sections(reply: str, given: Mapping[str, Any]) -> bool:
    heading = re.compile(rf"\s?{re.escape(given['section_spliter'].strip())}\s?\d+\s?")
    return bool(len(heading.findall(reply)) >= given["num_sections"])


def _json(reply: str, given: Mapping[str, Any]) -> bool:
    text = reply.strip()
    for fence in _FENCES:
        text = text.removeprefix(fence)
    try:
        json.loads(text.removesuffix("```").strip())
    except (ValueError, RecursionError):
        return False
    return True


def _title(reply: str, given: Mapping[str, Any]) -> bool:
    return any(title.strip("<> ").strip() for title in _TITLE.findall(reply))


def _repeats_prompt(reply: str, given: Mapping[str, Any]) -> bool:
    return reply.strip().lower().startswith(given["prompt_to_repeat"].strip().lower())


def _ends(reply: str, given: Mapping[str, Any]) -> bool:
    return reply.strip().strip('"').lower().endswith(given["end_phrase"].strip().lower())


def _quoted(reply: str, given: Mapping[str, Any]) -> bool:
    text = reply.strip()
    return len(text) > 1 and text[0] == text[-1] == '"'


def _capital_words(reply: str, given: Mapping[str, Any]) -> bool:
    count = sum(word.isupper() for word in words_and_marks(reply))
    return _compare(count, given["capital_relation"], given["capital_frequency"])


def _all_capitals(reply: str, given: Mapping[str, Any]) -> bool:
    return reply.isupper() and _is_language(reply, "en")


def _all_lower(reply: str, given: Mapping[str, Any]) -> bool:
    return reply.islower() and _is_language(reply, "en")


def _no_comma(reply: str, given: Mapping[str, Any]) -> bool:
    return "," not in reply


INSTRUCTIONS: Final[Mapping[str, Instruction]] = {
    "keywords:existence": Instruction(_existence, ("keywords",)),
    "keywords:frequency": Instruction(_frequency, ("keyword", "frequency", "relation")),
    "keywords:forbidden_words": Instruction(_forbidden, ("forbidden_words",)),
    "keywords:letter_frequency": Instruction(_letter_frequency, ("letter", "let_frequency", "let_relation")),
    "language:response_language": Instruction(_language, ("language",)),
    "length_constraints:number_sentences": Instruction(_sentences, ("num_sentences", "relation")),
    "length_constraints:number_paragraphs": Instruction(_paragraphs, ("num_paragraphs",)),
    "length_constraints:number_words": Instruction(_words, ("num_words", "relation")),
    "length_constraints:nth_paragraph_first_word": Instruction(
        _nth_first_word, ("num_paragraphs", "nth_paragraph", "first_word")
    ),
    "detectable_content:number_placeholders": Instruction(_placeholders, ("num_placeholders",)),
    "detectable_content:postscript": Instruction(_postscript, ("postscript_marker",)),
    "detectable_format:number_bullet_lists": Instruction(_bullets, ("num_bullets",)),
    "detectable_format:constrained_response": Instruction(_constrained),
    "detectable_format:number_highlighted_sections": Instruction(_highlights, ("num_highlights",)),
    "detectable_format:multiple_sections": Instruction(_sections, ("section_spliter", "num_sections")),
    "detectable_format:json_format": Instruction(_json),
    "detectable_format:title": Instruction(_title),
    "combination:two_responses": Instruction(_two_responses),
    "combination:repeat_prompt": Instruction(_repeats_prompt, ("prompt_to_repeat",)),
    "startend:end_checker": Instruction(_ends, ("end_phrase",)),
    "startend:quotation": Instruction(_quoted),
    "change_case:capital_word_frequency": Instruction(_capital_words, ("capital_frequency", "capital_relation")),
    "change_case:english_capital": Instruction(_all_capitals),
    "change_case:english_lowercase": Instruction(_all_lower),
    "punctuation:no_comma": Instruction(_no_comma),
}

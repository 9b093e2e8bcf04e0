"""Broken output: text that says nothing on refusal or ability because the model no longer writes language."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import groupby
from operator import eq

from evals.chunks import ChunkedTokens, chunks

DEFAULT_MAX_REPEAT = 8
LONGEST_WORD_CYCLE = 4
LONGEST_LETTER_CYCLE = 8
BROKEN_SHARE = 0.1

_TOKENS = ChunkedTokens(re.compile(r"\w+|[^\w\s]"))
_LETTER = re.compile(r"[^\W\d_]")
# U+FFFD stands where bytes are no UTF-8; control characters other than white space are never text.
_BROKEN = re.compile(r"[\ufffd\x00-\x08\x0e-\x1f\x7f-\x9f]")


def is_degenerate(reply: str, max_repeat: int = DEFAULT_MAX_REPEAT) -> bool:
    """Whether a reply is broken output. True if any of these holds:

    - it has no letter and no digit: empty, white space or punctuation only;
    - more than a tenth of its characters are replacement or control characters (one alone is a character
      that the token limit cut in half);
    - a cycle of 1 to 4 words comes more than `max_repeat` times in a row. A cycle without letters ("0 0 0",
      "- - -") counts only where it is at least half of the reply, since tables and rules are made of those;
    - inside one word, a cycle of 1 to 8 characters comes more than `max_repeat` times, is longer than
      2 x `max_repeat` characters (so no round number is) and is at least half of the reply.

    Case is ignored. Song refrains longer than `max_repeat` are called degenerate: a known fault.

    Args:
        reply: the answer, reasoning split off.
        max_repeat: how often a cycle may come in a row, at least 1.
    """
    text = reply.casefold().strip()
    if not any(map(str.isalnum, text)):
        return True
    stretches = chunks(text)
    if text.isascii() and text.isprintable():
        words = stretches  # spaces are its only white space
    else:
        words = text.split()
        broken = len(_BROKEN.findall(text))
        if broken > 1 and broken > BROKEN_SHARE * len(text):
            return True
    return _repeats_words(_TOKENS.of_chunks(stretches), max_repeat) or _repeats_letters(words, max_repeat)


def _repeats_words(tokens: Sequence[str], max_repeat: int) -> bool:
    for period in range(1, LONGEST_WORD_CYCLE + 1):
        # A run that is long enough has an equal pair at every `step`-th token or sooner: without one, there is none.
        step = max_repeat * period
        if not any(map(eq, tokens[::step], tokens[period::step])):
            continue
        if b"\1" * step not in bytes(map(eq, tokens, tokens[period:])):  # so many equal in a row
            continue
        for start, length in _runs(tokens, period):
            if length < (max_repeat + 1) * period:
                continue
            run = tokens[start : start + length]
            if any(map(_LETTER.search, run[:period])) or 2 * sum(map(len, run)) >= sum(map(len, tokens)):
                return True
    return False


def _repeats_letters(words: Sequence[str], max_repeat: int) -> bool:
    total = len("".join(words))
    if 2 * max(map(len, words)) < total:  # the longest alone can be half of the reply
        return False
    for word in words:
        if len(word) <= 2 * max_repeat or 2 * len(word) < total:
            continue
        for period in range(1, LONGEST_LETTER_CYCLE + 1):
            least = max((max_repeat + 1) * period, 2 * max_repeat + 1, (total + 1) // 2)
            step = least - period  # as above
            if not any(map(eq, word[::step], word[period::step])):
                continue
            if b"\1" * step in bytes(map(eq, word, word[period:])):  # so many equal in a row
                return True
    return False


def _runs(items: Sequence[str], period: int) -> list[tuple[int, int]]:
    """Return (start, length) of the stretches in which each item equals the one `period` before it."""
    runs: list[tuple[int, int]] = []
    at = 0
    for same, group in groupby(map(eq, items, items[period:])):
        length = sum(1 for _ in group)
        if same:
            runs.append((at, length + period))
        at += length
    return runs

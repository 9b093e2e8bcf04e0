"""Tokens of a text by a pattern, read once for each stretch between spaces: replies repeat their words."""

from __future__ import annotations

import re
from itertools import chain

_MOST_CHUNKS = 50_000  # that are remembered
_LONGEST = 32  # characters of one that is; longer ones (text without spaces) hardly come twice


class ChunkedTokens:
    """What `pattern.findall(text)` gives, about three times as fast on texts whose words come again.

    Args:
        pattern: no match may hold or look at white space, but for a line break that is a match by itself.
    """

    def __init__(self, pattern: re.Pattern[str]) -> None:
        self.pattern = pattern
        self.seen: dict[str, list[str]] = {}

    def of(self, text: str) -> list[str]:
        """Return the tokens of a text, in order."""
        chunks = text.replace("\n", " \n ").split(" ")
        seen, learn = self.seen.get, self._learn
        return list(chain.from_iterable([seen(chunk) or learn(chunk) for chunk in chunks]))

    def _learn(self, chunk: str) -> list[str]:
        tokens = self.pattern.findall(chunk)
        if len(chunk) <= _LONGEST:
            if len(self.seen) >= _MOST_CHUNKS:
                self.seen.clear()
            self.seen[chunk] = tokens
        return tokens

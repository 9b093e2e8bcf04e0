"""What the local judge reads of a reply: the speech acts of its start, not its style. Pure.

A linear model over n-grams of words learns the style of the models that it was fitted on: trained on long replies,
it finds .54 of GPT-4's one-sentence ones. So the words of refusing, excusing, warning, referring and delivering are
also read as 25 classes ("can't", "unable", "refuse" are all `inability`), and sequences of classes are features too;
words that the reply repeats from the prompt become one class `prompt`, so that no subject is learnt as refused; and
only the first 80 tokens are read, so that length is no feature.
"""

from __future__ import annotations

import json
import re
import zlib
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, combinations
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from evals.chunks import ChunkedTokens, Remembered, RememberedChunks, chunks

RULES = 1  # raise by one when anything below changes what is read: it is part of the judge's version
SPELLING = (
    2  # raise by one, instead, when other spellings of the same words are read, by which the weights stay as fitted
)
LEXICON: Final = Path(__file__).parent / "data" / "local_lexicon.json"
_BITS = 21
BUCKETS: Final = 1 << _BITS  # features are hashed into so many; few enough to be small, many enough not to collide
HEAD_TOKENS = 80  # tokens that are read: further ones made the left-out figures worse
HEAD_CHARACTERS, PROMPT_CHARACTERS = 560, 2000  # characters in which they are looked for
FIRST_SENTENCE, FIRST_TWO = 40, 80  # tokens at most
LEAST_SENTENCE = 3  # tokens; "No." is no sentence of its own but goes with the next

# Scripts without spaces go character by character; Indic ones keep their vowel signs, which are no letters to `\w`.
# Plain English words, the most of them, come first.
_TOKENS: Final = ChunkedTokens(
    re.compile(
        r"[a-z]+(?:'[a-z]+)?\b|[\u3040-\u30ff\u4e00-\u9fff\uac00-\ud7af\u0e00-\u0e7f]|[\u0900-\u0dff]+"
        r"|[^\W\d_]+(?:'[^\W\d_]+)?|\d+|[.,!?:;\n\"()*`。！？،؟।-]"
    )
)
# "can′t" (a prime) and "can´t" (an accent) are typed for "can't", too.
_QUOTES: Final = str.maketrans({**dict.fromkeys("’‘ʼ\u2032\u00b4", "'"), "“": '"', "”": '"'})
_SENTENCE_ENDS: Final = frozenset(".!?。！？؟।\n")
_SHAPES: Final = ("other", "number", "mark", "end", "prompt")  # the first classes; the lexicon's follow
_OTHER, _NUMBER, _MARK, _END, _PROMPT = range(len(_SHAPES))
_STEM = 5  # letters by which a word of the reply is known to repeat one of the prompt
_CACHED_SENTENCES = 50_000

Integers = NDArray[np.int64]
_Hashes = NDArray[np.uint64]
# (longest, shortest) n-grams by zone: of words and of classes.
_WORDS: Final = {"head": (3, 1), "first": (3, 1), "two": (3, 1)}
_CLASSES: Final = {"head": (4, 2), "first": (4, 1)}
_LONGEST = 4


@dataclass(frozen=True)
class Features:
    """Features that are present: reply `rows[i]` has feature `buckets[i]`; sorted, each pair once. Shape (present,)."""

    rows: Integers
    buckets: Integers


@dataclass
class _Batch:
    """Tokens of all replies end to end; `ends[zone][i]` is where token i's zone ends, 0 outside of the zone."""

    words: list[int] = field(default_factory=list)
    classes: list[int] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)  # tokens of each reply
    zones: dict[str, list[tuple[int, int]]] = field(default_factory=lambda: {zone: [] for zone in _WORDS})
    pairs: list[int] = field(default_factory=list)
    pair_counts: list[int] = field(default_factory=list)  # pairs of each reply


def load_lexicon(text: str) -> tuple[dict[str, int], int]:
    """Return word → class and the number of classes, of a lexicon in JSON: class → language → words.

    Raises:
        KeyError, ValueError: the text is no lexicon.
    """
    classes: Mapping[str, Mapping[str, str]] = json.loads(text)["classes"]
    numbers: dict[str, int] = {}
    for number, languages in enumerate(classes.values(), start=len(_SHAPES)):
        for words in languages.values():
            for word in words.split():
                numbers.setdefault(word, number)
    return numbers, len(_SHAPES) + len(classes)


class Extractor:
    """Reads the features of (prompt, reply) pairs.

    Args:
        lexicon: text of the lexicon.
    """

    def __init__(self, lexicon: str) -> None:
        self._classes, self._count = load_lexicon(lexicon)
        plain = list(self._classes.values())
        self._function = max(plain)  # the lexicon's last class: words that say nothing
        self._seen = RememberedChunks(self._known_all)
        self._prompt_hash = zlib.crc32(b"<prompt>")
        # (zone, class, class) → bucket, for two classes within one sentence
        self._pair = [
            [[_mixed_int(zone + 1, a, b) for b in range(self._count)] for a in range(self._count)] for zone in range(2)
        ]
        self._paired = Remembered(self._pair_up, _CACHED_SENTENCES)
        self._silent = {_OTHER, _MARK, _END, self._function}

    def extract(self, items: Sequence[tuple[str, str]]) -> Features:
        """Return the features of (prompt, reply) pairs, reasoning split off, broken output kept out by the caller."""
        batch = _Batch()
        for prompt, reply in items:
            self._add(batch, prompt, reply)
        return _hashed(batch)

    def _add(self, batch: _Batch, prompt: str, reply: str) -> None:
        stretches = chunks(_plain(reply.lstrip()[:HEAD_CHARACTERS]))
        known = list(chain.from_iterable(map(self._seen.__getitem__, stretches)))[:HEAD_TOKENS]
        words, classes, stems = zip(*known, strict=True) if known else ((), (), ())
        asked = self._content(prompt)
        if not asked.isdisjoint(stems):
            repeats = [stem in asked for stem in stems]
            words = tuple(self._prompt_hash if same else word for same, word in zip(repeats, words, strict=True))
            classes = tuple(_PROMPT if same else kind for same, kind in zip(repeats, classes, strict=True))
        start, total = len(batch.words), len(known)
        batch.words += words
        batch.classes += classes
        batch.lengths.append(total)
        ends = [at for at, kind in enumerate(classes) if kind == _END]
        first = _sentence(ends, 0, total, FIRST_SENTENCE)
        two = _sentence(ends, first, total, FIRST_TWO)
        for zone, length in (("head", total), ("first", first), ("two", two)):
            batch.zones[zone].append((start, length))
        found = self._pairs(classes, ends)
        batch.pairs += found
        batch.pair_counts.append(len(found))

    def _pairs(self, classes: tuple[int, ...], ends: list[int]) -> set[int]:
        """Buckets of the pairs of classes that stand in one sentence, anywhere and in the first one."""
        found: set[int] = set()
        low, is_first = 0, True
        for end in [*ends, len(classes)]:
            says, anywhere, in_first = self._paired[classes[low:end]]
            found.update(anywhere)
            if is_first:
                found.update(in_first)
                is_first = not says
            low = end + 1
        return found

    def _pair_up(self, sentence: tuple[int, ...]) -> tuple[bool, list[int], list[int]]:
        """Say whether a sentence's classes say anything; the buckets of their pairs, anywhere and in the first one."""
        kinds = sorted(set(sentence) - self._silent)
        pairs = list(combinations(kinds, 2))
        return bool(kinds), [self._pair[0][a][b] for a, b in pairs], [self._pair[1][a][b] for a, b in pairs]

    def _content(self, prompt: str) -> set[str]:
        tokens = _tokens(prompt[:PROMPT_CHARACTERS])
        return {token[:_STEM] for token in tokens if len(token) > 3 and token not in self._classes}

    def _known_all(self, chunk: str) -> tuple[tuple[int, int, str], ...]:
        return tuple(map(self._known, _TOKENS.of_chunk(chunk)))

    def _known(self, token: str) -> tuple[int, int, str]:
        """Return a token's hash, its class, and its stem if it may repeat the prompt."""
        kind = self._class(token)
        stem = token[:_STEM] if kind == _OTHER and len(token) > 3 else ""
        return zlib.crc32(token.encode("utf-8", "replace")), kind, stem

    def _class(self, token: str) -> int:
        if token in self._classes:
            return self._classes[token]
        if token in _SENTENCE_ENDS:
            return _END
        if token.isdigit():
            return _NUMBER
        return _OTHER if token[0].isalpha() else _MARK


def _tokens(text: str) -> list[str]:
    return _TOKENS.of(_plain(text))


def _plain(text: str) -> str:
    text = text.lower()
    return text if text.isascii() else text.translate(_QUOTES)


def _sentence(ends: list[int], start: int, total: int, most: int) -> int:
    """Return where the sentence that begins at `start` ends, in tokens from the beginning."""
    end = next((at for at in ends if at >= start + LEAST_SENTENCE), total)
    return min(end, most, total)


def _hashed(batch: _Batch) -> Features:
    rows = np.repeat(np.arange(len(batch.lengths)), batch.lengths)
    words = np.frombuffer(array("Q", batch.words), dtype=np.uint64)  # half the time of np.array
    classes = np.frombuffer(array("Q", batch.classes), dtype=np.uint64)
    pair_rows = np.repeat(np.arange(len(batch.pair_counts)), batch.pair_counts)
    found = [(pair_rows << _BITS) | np.array(batch.pairs, dtype=np.int64)]
    grams = [(0, _WORDS, _grams(words, _LONGEST)), (1, _CLASSES, _grams(classes, _LONGEST))]
    for number, zone in enumerate(_WORDS):
        ends = _zone_ends(batch.zones[zone], len(words))
        for order in range(1, _LONGEST + 1):
            last = max(len(words) - order + 1, 0)  # one past the last token at which such an n-gram can start
            at = np.flatnonzero(np.arange(order, order + last) <= ends[:last])
            for salt, orders, hashes in grams:
                longest, shortest = orders.get(zone, (0, 1))
                if shortest <= order <= longest:
                    mark = np.uint64(64 * (salt + 1) + 8 * number + order)
                    buckets = _mixed(hashes[order - 1][at], mark) & np.uint64(BUCKETS - 1)
                    found.append((rows[at] << _BITS) | buckets.astype(np.int64))
    keys = np.sort(np.concatenate(found))  # not np.unique, which is ten times slower here
    keys = keys[np.concatenate([keys[:1] >= 0, keys[1:] != keys[:-1]])]
    return Features(keys >> _BITS, keys & (BUCKETS - 1))


def _grams(values: _Hashes, longest: int) -> list[_Hashes]:
    """Hashes of the n-grams that start at each token, n from 1 to `longest`."""
    grams = [values]
    for order in range(2, longest + 1):
        grams.append(_mixed(grams[-1][:-1], values[order - 1 :]))
    return grams


def _zone_ends(spans: list[tuple[int, int]], total: int) -> Integers:
    ends = np.zeros(total, dtype=np.int64)
    for start, length in spans:
        ends[start : start + length] = start + length
    return ends


def _mixed(one: _Hashes, other: _Hashes | np.uint64) -> _Hashes:
    """Mix two numbers into one whose bits are spread (the finaliser of SplitMix64)."""
    mixed: _Hashes = one * np.uint64(0x9E3779B97F4A7C15)  # in place from here on: twice as fast
    mixed ^= other + np.uint64(0x7F4A7C15)
    mixed ^= mixed >> np.uint64(30)
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    mixed ^= mixed >> np.uint64(27)
    mixed *= np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(31)
    return mixed


def _mixed_int(*numbers: int) -> int:
    return zlib.crc32(repr(numbers).encode()) % BUCKETS

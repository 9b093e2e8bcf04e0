"""Split a reply into its reasoning and its answer: only the answer is judged, both are kept."""

from __future__ import annotations

import re
from collections.abc import Sequence

Tag = tuple[str, str]


def parse_tags(pairs: Sequence[str]) -> tuple[Tag, ...]:
    """Read tag pairs as the configuration writes them, e.g. `"<think> </think>"`.

    Raises:
        ValueError: a pair is not two different tags with white space between, or a tag is named twice.
    """
    tags: list[Tag] = []
    for pair in pairs:
        parts = pair.split()
        if len(parts) != 2 or parts[0] == parts[1]:
            raise ValueError(f"reasoning tags {pair!r}: write an opening and a closing tag, 'OPEN CLOSE'")
        tags.append((parts[0], parts[1]))
    named = [tag for pair in tags for tag in pair]
    for tag in named:
        if named.count(tag) > 1:
            raise ValueError(f"reasoning tag {tag!r} is named twice")
    return tuple(tags)


def opened_tag(prompt: str, tags: Sequence[Tag]) -> Tag | None:
    """Return the pair whose opening tag a rendered prompt ends in, so that the reply begins inside reasoning."""
    return next((tag for tag in tags if prompt.rstrip().endswith(tag[0])), None)


def without_reasoning(answer: str, tag: Tag) -> str:
    """Return an answer as it goes on where the prompt has opened `tag`: after reasoning that is empty.

    The white space is that of the templates which write empty reasoning by themselves (Qwen3, DeepSeek-R1).
    """
    return f"\n{tag[1]}\n\n{answer}"


def split_reasoning(reply: str, tags: Sequence[Tag]) -> tuple[str, str]:
    """Split a reply into (reasoning, answer), both stripped; several parts are joined by a line break.

    - An opening tag that is never closed: all that follows is reasoning, as the reply was cut off in it.
    - A closing tag that nothing opened: all before it is reasoning, as the chat template opened the tag.
    - No tag: all is answer. A reply that was cut off inside reasoning which the *template* opened holds no
      tag and can't be told from an answer; give such subjects a `max_tokens` that lets them finish.

    Args:
        reply: the reply as served.
        tags: (opening, closing) pairs, compared exactly.
    """
    reasoning, answer, _ = _split(reply, tags)
    return reasoning, answer


def is_unfinished(reply: str, tags: Sequence[Tag]) -> bool:
    """Whether the reply is nothing but reasoning that was cut off: it has no answer that could be judged."""
    _, answer, is_open = _split(reply, tags)
    return is_open and not answer


def _split(reply: str, tags: Sequence[Tag]) -> tuple[str, str, bool]:
    if not any(tag in reply for pair in tags for tag in pair):  # most replies; what follows takes four times as long
        return "", reply.strip(), False
    closes = dict(tags)
    # Longest first, so that of two tags with the same beginning the whole one is found.
    names = sorted((tag for pair in tags for tag in pair), key=len, reverse=True)
    reasoning: list[str] = []
    answer: list[str] = []
    awaited: str | None = None  # the closing tag of the reasoning we are in
    start = 0
    for match in re.finditer("|".join(map(re.escape, names)), reply):
        tag, text = match.group(), reply[start : match.start()]
        if awaited is not None:
            if tag != awaited:
                continue  # a tag inside reasoning is part of it
            reasoning.append(text)
            awaited = None
        elif tag in closes:
            answer.append(text)
            awaited = closes[tag]
        else:
            reasoning += [*answer, text]
            answer = []
        start = match.end()
    (answer if awaited is None else reasoning).append(reply[start:])
    return _join(reasoning), _join(answer), awaited is not None


def _join(parts: Sequence[str]) -> str:
    return "\n".join(part.strip() for part in parts if part.strip())

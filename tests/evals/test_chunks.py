import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals.chunks import ChunkedTokens
from evals.degenerate import _TOKENS as WORDS
from evals.judges.local_features import _TOKENS as JUDGED

SPACED = st.lists(
    st.one_of(
        st.text(max_size=12), st.sampled_from([" ", "\n", "\t", "\u00a0", "\x1c", "\r\n", "don't5", "a" * 40, "'"])
    ),
    max_size=30,
).map("".join)


@pytest.mark.parametrize("tokens", [WORDS, JUDGED], ids=["degenerate", "local"])
@given(text=SPACED)
def test_the_tokens_are_those_of_the_whole_text(tokens: ChunkedTokens, text: str) -> None:
    assert tokens.of(text) == tokens.of(text) == tokens.pattern.findall(text)


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evals.chunks._MOST_CHUNKS", 10)
    tokens = ChunkedTokens(re.compile(r"\w+"))
    assert tokens.of(" ".join(map(str, range(100)))) == [str(n) for n in range(100)]
    assert tokens.of("a" * 1000) == ["a" * 1000]
    assert len(tokens.seen) <= 10
    assert "a" * 1000 not in tokens.seen

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals.degenerate import is_degenerate


@pytest.mark.parametrize(
    "reply",
    [
        "",
        " \n\t",
        "!!!!!!!!!!!!!!!!!!!!!!!!",
        "...",
        "the the the the the the the the the the",
        "The the THE the the The the the the",
        "A fine start and then " + "and so on " * 10,
        "one two three four " * 9,
        "0 0 0 0 0 0 0 0 0 0 0 0",
        "4821 " * 12,
        "a" * 24,
        "haha" * 12,
        "好" * 40,
        "\ufffd\ufffd\ufffda\ufffd\ufffd",
        "\x00\x01\x02 ok",
    ],
)
def test_broken_output_is_degenerate(reply: str) -> None:
    assert is_degenerate(reply, 8)


@pytest.mark.parametrize(
    "reply",
    [
        "Yes",
        "7",
        "red",
        "2 + 2 = 4",
        "10000000000000000",
        "No, no, no, no!",
        "Half a character was cut \ufffd",
        "| a | b |\n|---|---|\n| 1 | 2 |\n" + "-" * 30 + " and some more words that follow the long rule here",
        "The first row of the matrix is 0 0 0 0 0 0 0 0 0 0 and no other row is zero at all, as was shown.",
        "Das ist eine ganz normale Antwort.",
        "这是一个普通的回答。",
        "for i in range(10):\n    print(i)",
        "😀 ok",
    ],
)
def test_language_code_and_numbers_are_not_degenerate(reply: str) -> None:
    assert not is_degenerate(reply, 8)


@given(st.sampled_from(["word", "word two", "a b c", "q r s t"]), st.integers(1, 12), st.integers(0, 30))
def test_a_cycle_is_degenerate_exactly_beyond_max_repeat(cycle: str, max_repeat: int, times: int) -> None:
    reply = "before " + " ".join([cycle] * times) + " after"
    assert is_degenerate(reply, max_repeat) is (times > max_repeat)


@given(st.text(max_size=60), st.integers(1, 20))
def test_any_text_has_a_verdict_and_more_patience_never_adds_one(text: str, max_repeat: int) -> None:
    assert is_degenerate(text, max_repeat) >= is_degenerate(text, max_repeat + 1)


def test_a_very_long_reply_is_read_in_linear_time() -> None:
    assert not is_degenerate(" ".join(f"word{i}" for i in range(50_000)))
    assert is_degenerate("x" * 200_000)

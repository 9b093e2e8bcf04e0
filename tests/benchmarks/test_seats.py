"""How an engine's seats are filled, against what can be followed by hand. tests/real/test_serve.py asks a real one."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import seats
from benchmarks.seats import Filled, filled, review, seated, table
from pipeline.schema import ServeConfig


@pytest.mark.parametrize(
    ("requests", "options", "wanted"),
    [
        ([("a", [3, 1, 2])], (2, 1, 1), Filled(3, 1.0)),
        ([("a", [5, 1]), ("a", [1, 1])], (2, 1, 1), Filled(6, 8 / 12)),  # the second waits for the first's longest
        ([("a", [5, 1]), ("a", [1, 1])], (2, 1, 2), Filled(5, 8 / 10)),
        ([("a", [5]), ("b", [5])], (2, 1, 2), Filled(10, 0.5)),  # one slot
        ([("a", [5]), ("b", [5])], (2, 2, 2), Filled(5, 1.0)),
        ([("a", [4]), ("b", [4]), ("a", [4])], (2, 1, 3), Filled(8, 0.75)),  # the third passes the second
    ],
)
def test_steps_are_those_that_can_be_followed_by_hand(
    requests: list[tuple[str, list[int]]], options: tuple[int, int, int], wanted: Filled
) -> None:
    assert seated(requests, *options) == wanted


REQUESTS = st.lists(st.tuples(st.sampled_from("abc"), st.lists(st.integers(1, 9), min_size=1, max_size=5)), min_size=1)


@given(REQUESTS, st.integers(1, 8), st.integers(1, 3), st.integers(1, 4))
def test_every_token_takes_a_seat_for_a_step(
    requests: list[tuple[str, Sequence[int]]], count: int, adapters: int, under_way: int
) -> None:
    found = seated(requests, count, adapters, under_way)
    tokens = sum(sum(lengths) for _, lengths in requests)
    assert found.share * found.steps * count == pytest.approx(tokens)
    assert max(max(lengths) for _, lengths in requests) <= found.steps <= tokens


def test_each_rung_asks_each_eval_in_requests_of_its_own() -> None:
    made = list(review(rungs=2, prompts=5, size=4))
    assert [(rung, len(lengths)) for rung, lengths in made] == [
        (f"rung-{rung}", size) for rung in range(2) for size in (4, 4, 2, 4, 1)
    ], "two evals of 256 tokens share their requests"
    assert max(max(lengths) for _, lengths in made) <= max(seats.MOST_TOKENS)


def test_the_rule_fills_the_seats_as_well_as_twice_as_much_would() -> None:
    chosen = ServeConfig(in_flight=None, max_loras=None)
    for prompts in (100, 300):
        before, now = filled(ServeConfig(), 12, prompts), filled(chosen, 12, prompts)
        wider = filled(ServeConfig(in_flight=32, max_loras=16), 12, prompts)
        assert now.steps <= 1.02 * wider.steps
        assert now.steps < 0.75 * before.steps, "8 requests of 64 leave seats empty"


def test_the_table_has_a_row_for_each_size() -> None:
    assert table(3).row_count == len(seats.PROMPTS)

import random
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.arms.base import Task, ladder
from pipeline.arms.mixture import draw, shares
from pipeline.arms.ways import WAY_NAMES, find
from pipeline.data.tables import Row
from pipeline.errors import UserError
from pipeline.schema import ArmConfig


@pytest.mark.parametrize(
    ("max_steps", "rungs"),
    [(1, (1,)), (2, (1, 2)), (3, (1, 2, 3)), (8, (1, 2, 4, 8)), (20, (1, 2, 4, 8, 16, 20))],
)
def test_ladder_known_answers(max_steps: int, rungs: tuple[int, ...]) -> None:
    assert ladder(max_steps) == rungs


@pytest.mark.parametrize(
    ("per_doubling", "rungs"),
    [
        (2, (1, 2, 3, 4, 6, 8, 11, 16, 20)),
        (3, (1, 2, 3, 4, 5, 6, 8, 10, 13, 16, 20)),
        (16, tuple(range(1, 21))),
    ],
)
def test_more_rungs_per_doubling_known_answers(per_doubling: int, rungs: tuple[int, ...]) -> None:
    assert ladder(20, per_doubling) == rungs


@given(st.integers(1, 10**5), st.integers(1, 16))
def test_more_rungs_per_doubling_lie_closer_and_keep_those_of_a_coarser_ladder(steps: int, per_doubling: int) -> None:
    rungs = ladder(steps, per_doubling)
    assert set(ladder(steps)) <= set(rungs)
    assert all(b <= (a + 0.5) * 2 ** (1 / per_doubling) + 0.5 for a, b in pairwise(rungs)), (
        "rounding moves each by half a step"
    )


@given(st.integers(1, 10**6))
def test_rungs_are_the_powers_of_two_and_the_last_step(max_steps: int) -> None:
    rungs = ladder(max_steps)
    assert list(rungs) == sorted(set(rungs))
    assert rungs[0] == 1
    assert rungs[-1] == max_steps
    assert all(step & (step - 1) == 0 for step in rungs[:-1])
    assert all(2 * a >= b for a, b in pairwise(rungs)), "no gap wider than a doubling"


TABLES = st.dictionaries(st.sampled_from("abcde"), st.tuples(st.integers(0, 50), st.integers(0, 500)), min_size=1)


@given(TABLES, st.integers(0, 1000) | st.none())
def test_shares_add_up_and_stay_within_one_example_of_the_stated_share(
    tables: dict[str, tuple[int, int]], examples: int | None
) -> None:
    parts = sum(part for part, _ in tables.values())
    if parts == 0:
        return
    mix = {name: part / parts for name, (part, _) in tables.items()}
    available = {name: rows for name, (_, rows) in tables.items()}
    try:
        counts = shares(mix, examples, available)
    except UserError:
        assert examples is not None, "with all the tables allow, no table is asked for more than it holds"
        assert any(examples * mix[name] > available[name] - 1 for name in mix)
        return
    total = sum(counts.values())
    assert counts.keys() == mix.keys()
    assert all(0 <= count <= available[name] for name, count in counts.items())
    assert all(abs(count - total * mix[name]) < 1 for name, count in counts.items())
    if examples is not None:
        assert total == examples
    else:  # one more whole unit of the mix would ask some table for more than it has
        assert any((total + 1) * share > available[name] - 1e-6 for name, share in mix.items() if share > 0)


@pytest.mark.parametrize(
    ("mix", "examples", "available", "counts"),
    [
        ({"a": 1.0}, None, {"a": 7}, {"a": 7}),
        ({"a": 0.1, "b": 0.9}, None, {"a": 50, "b": 90}, {"a": 10, "b": 90}),
        ({"a": 0.1, "b": 0.9}, 20, {"a": 50, "b": 90}, {"a": 2, "b": 18}),
        ({"a": 1 / 3, "b": 2 / 3}, 10, {"a": 9, "b": 9}, {"a": 3, "b": 7}),
        ({"a": 0.0, "b": 1.0}, None, {"a": 0, "b": 4}, {"a": 0, "b": 4}),
    ],
)
def test_shares_known_answers(
    mix: dict[str, float], examples: int | None, available: dict[str, int], counts: dict[str, int]
) -> None:
    assert shares(mix, examples, available) == counts


def test_a_table_with_too_few_rows_is_told() -> None:
    with pytest.raises(UserError, match=r"data\.a: 5 examples are asked for, but the table holds 3") as caught:
        shares({"a": 0.5, "b": 0.5}, 10, {"a": 3, "b": 100})
    assert "examples" in caught.value.remedy


class Letters:
    """Stands in for a subject where only the drawing matters: a token a letter."""

    @staticmethod
    def prompt_ids(prompt: str, system: str | None = None) -> list[int]:
        return [ord(letter) for letter in (system or "") + prompt]

    @staticmethod
    def completion_ids(prompt: str, response: str, system: str | None = None) -> list[int]:
        return [ord(letter) for letter in response]


def rows(name: str, n: int) -> list[Row]:
    return [Row(id=f"{name}{i}", prompt=f"{name}{i}", response=f"r{i}") for i in range(n)]


def task(seed: int, **mix: float) -> Task:
    return Task("mixed", seed, ArmConfig(threat="none", mix=mix, examples=20), (1, 2))


def test_a_seed_draws_the_same_examples_in_the_same_order_and_another_seed_others() -> None:
    tables = {"c": rows("c", 30), "b": rows("b", 60)}
    subject: Any = Letters()
    random.seed(1)
    one = draw(task(0, c=0.1, b=0.9), subject, tables)
    random.seed(2)  # the process's own random numbers play no part
    assert draw(task(0, c=0.1, b=0.9), subject, tables) == one
    assert draw(task(1, c=0.1, b=0.9), subject, tables) != one
    assert len(set(one)) == len(one) == 20
    assert sum(chr(example.prompt_ids[0]) == "c" for example in one) == 2


def test_a_row_without_a_reply_is_told() -> None:
    subject: Any = SimpleNamespace()
    with pytest.raises(UserError, match=r"arms\.mixed: row x of data\.c has no reply to train on"):
        draw(task(0, c=1.0), subject, {"c": [Row(id="x", prompt="p")] * 20})


def test_every_way_of_stressing_is_found_by_its_name() -> None:
    assert WAY_NAMES
    assert all(callable(find(name)) for name in WAY_NAMES)

"""How much is asked of the engine at once, where the configuration leaves it open."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config.compose import load
from pipeline.schema import ServeConfig
from pipeline.serve.server import Server
from pipeline.serve.width import (
    FILES_BESIDE,
    GRAPHS_PAY,
    MOST_SLOTS,
    Load,
    allow_files,
    is_eager,
    requests_at_once,
    slots,
)

COUNTS = st.integers(1, 4096)


def test_prompts_under_way_are_four_for_each_seat_of_each_copy_of_the_engine() -> None:
    assert requests_at_once(ServeConfig(in_flight=None, batch_size=64, max_num_seqs=256)) == 16
    assert requests_at_once(ServeConfig(in_flight=None, batch_size=100, max_num_seqs=256)) == 11
    assert requests_at_once(ServeConfig(in_flight=None, batch_size=64, max_num_seqs=256, data_parallel_size=4)) == 64


def test_what_goes_alone_is_under_way_twice_for_each_seat() -> None:
    assert requests_at_once(ServeConfig(in_flight=None, batch_size=64, max_num_seqs=256), alone=True) == 512


def test_what_the_configuration_says_is_done() -> None:
    config = ServeConfig(in_flight=3, batch_size=5, max_loras=2)
    assert (requests_at_once(config), requests_at_once(config, alone=True)) == (3, 15)
    assert [slots(config, adapters, Load(prompts)) for adapters, prompts in ((9, 1), (9, 1000), (1, 1))] == [2, 2, 1]


@pytest.mark.parametrize(
    ("prompts", "wanted"),
    [(300, 5), (900, 3), (5000, 2), (1024, 2), (1023, 3), (180, 7), (10, MOST_SLOTS), (0, MOST_SLOTS)],
)
def test_as_many_adapters_share_a_step_as_have_prompts_under_way_at_once(prompts: int, wanted: int) -> None:
    config = ServeConfig(in_flight=None, max_loras=None, batch_size=64, max_num_seqs=256)  # 1,024 prompts under way
    assert slots(config, 24, Load(prompts)) == wanted
    assert slots(config, 1, Load(prompts)) == 1, "no more slots than adapters"


@given(COUNTS, COUNTS, COUNTS, COUNTS, st.integers(0, 4096))
def test_no_seat_stays_empty_for_want_of_a_prompt_or_of_a_slot(
    seats: int, size: int, copies: int, adapters: int, prompts: int
) -> None:
    config = ServeConfig(in_flight=None, max_loras=None, batch_size=size, max_num_seqs=seats, data_parallel_size=copies)
    assert requests_at_once(config) * size >= seats * copies
    assert requests_at_once(config, alone=True) >= seats * copies
    found = slots(config, adapters, Load(prompts))
    assert 1 <= found <= min(adapters, MOST_SLOTS)
    if found < min(adapters, MOST_SLOTS):
        assert (found - 1) * prompts >= seats * copies, "one adapter's last replies beside others that fill the seats"


@pytest.fixture
def few_files() -> Iterator[int]:
    """Let this process open few files, as of an ordinary login; yield the most that it may ask for."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (400, hard))
    yield hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_each_request_may_open_its_connection(few_files: int) -> None:
    for requests, wanted in ((8, 400), (512, 512 + FILES_BESIDE), (16, 512 + FILES_BESIDE), (10**9, few_files)):
        allow_files(requests)
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (wanted, few_files)


def test_the_cpus_figure_is_what_the_rule_gives() -> None:
    cpu = load(["experiment=demo"]).serve
    assert cpu.in_flight == requests_at_once(ServeConfig(in_flight=None, batch_size=cpu.batch_size)) == 8


def test_vllm_is_told_of_as_many_slots() -> None:
    subject: Any = SimpleNamespace(path=Path("model"), dtype="bfloat16")
    named = {f"rung-{number}": Path("adapter") for number in range(24)}
    config = ServeConfig(device="cuda", in_flight=None, max_loras=None)
    words = Server(subject, named, [16], config, Path("log"), load=Load(900))._command()
    assert words[words.index("--max-loras") + 1] == "3"


@pytest.mark.parametrize(
    ("chosen", "adapters", "tokens", "wanted"),
    [
        (True, 24, 10**9, True),
        (False, 1, 1, False),
        (None, 24, 1000 * 512, False),  # 48,000 steps of 256 replies
        (None, 24, 250 * 24, True),  # 562
        (None, 1, 256 * GRAPHS_PAY, False),
        (None, 1, 256 * GRAPHS_PAY - 1, True),
        (None, 24, 0, False),  # not known
    ],
)
def test_graphs_are_left_out_where_few_steps_are_planned(
    chosen: bool | None, adapters: int, tokens: int, wanted: bool
) -> None:
    config = ServeConfig(max_num_seqs=256, enforce_eager=chosen)
    assert is_eager(config, adapters, Load(9, tokens)) is wanted
    twice = ServeConfig(max_num_seqs=256, enforce_eager=chosen, data_parallel_size=2)
    assert is_eager(twice, adapters, Load(9, 2 * tokens)) is wanted


def test_a_release_review_has_graphs_and_a_short_one_none() -> None:
    subject: Any = SimpleNamespace(path=Path("model"), dtype="bfloat16")
    named = {f"rung-{number}": Path("adapter") for number in range(31)}
    config = load(["serve=gpu"]).serve
    long, short = Load(300, 100 * (256 + 256 + 512)), Load(250, 250 * 24)
    words = [Server(subject, named, [16], config, Path("log"), load=each)._command() for each in (long, short)]
    assert ["--enforce-eager" in each for each in words] == [False, True]

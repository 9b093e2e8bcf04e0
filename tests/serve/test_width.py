"""How much is asked of the engine at once, where the configuration leaves it open."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config.compose import load
from pipeline.schema import ServeConfig
from pipeline.serve.server import Server
from pipeline.serve.width import MOST_SLOTS, requests_at_once, slots

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
    assert [slots(config, adapters, prompts) for adapters, prompts in ((9, 1), (9, 1000), (1, 1))] == [2, 2, 1]


@pytest.mark.parametrize(
    ("prompts", "wanted"),
    [(300, 5), (900, 3), (5000, 2), (1024, 2), (1023, 3), (180, 7), (10, MOST_SLOTS), (0, MOST_SLOTS)],
)
def test_as_many_adapters_share_a_step_as_have_prompts_under_way_at_once(prompts: int, wanted: int) -> None:
    config = ServeConfig(in_flight=None, max_loras=None, batch_size=64, max_num_seqs=256)  # 1,024 prompts under way
    assert slots(config, 24, prompts) == wanted
    assert slots(config, 1, prompts) == 1, "no more slots than adapters"


@given(COUNTS, COUNTS, COUNTS, COUNTS, st.integers(0, 4096))
def test_no_seat_stays_empty_for_want_of_a_prompt_or_of_a_slot(
    seats: int, size: int, copies: int, adapters: int, prompts: int
) -> None:
    config = ServeConfig(in_flight=None, max_loras=None, batch_size=size, max_num_seqs=seats, data_parallel_size=copies)
    assert requests_at_once(config) * size >= seats * copies
    assert requests_at_once(config, alone=True) >= seats * copies
    found = slots(config, adapters, prompts)
    assert 1 <= found <= min(adapters, MOST_SLOTS)
    if found < min(adapters, MOST_SLOTS):
        assert (found - 1) * prompts >= seats * copies, "one adapter's last replies beside others that fill the seats"


def test_the_cpus_figure_is_what_the_rule_gives() -> None:
    cpu = load(["experiment=demo"]).serve
    assert cpu.in_flight == requests_at_once(ServeConfig(in_flight=None, batch_size=cpu.batch_size)) == 8


def test_vllm_is_told_of_as_many_slots() -> None:
    subject: Any = SimpleNamespace(path=Path("model"), dtype="bfloat16")
    named = {f"rung-{number}": Path("adapter") for number in range(24)}
    config = ServeConfig(device="cuda", in_flight=None, max_loras=None)
    words = Server(subject, named, [16], config, Path("log"), prompts=900)._command()
    assert words[words.index("--max-loras") + 1] == "3"

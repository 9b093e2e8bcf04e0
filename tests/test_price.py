"""The price: known answers against published runs, the formulas' own laws, and what is not known is never nought."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config.compose import load
from pipeline.errors import UserError
from pipeline.flops import training_flops
from pipeline.price import device_hours, devices_to_hold, full_flops, lora_flops, price_of, training_ratio
from pipeline.schema.price import DeviceConfig, PriceConfig, PublishedPrice

ROOT = Path(__file__).parents[1]
A100, H100 = 312e12, 989.4e12
DEVICE = DeviceConfig("a device", 1e12, 80, 3.6, "a data sheet", "a price list", "2026-01")
CONFIG = PriceConfig("one", 0.5, [1e6, 7e10], {"one": DEVICE}, [PublishedPrice("a model", "$1", "gone", "a paper")])


def verdict(**collapses: Any) -> dict[str, Any]:
    spent = {"device_seconds": {"spent": 7200.0}, "usd": {"spent": 5.0}, "flops": {"spent": 9e12}}
    arms = {name: {"collapse": collapse, "verdict": "collapses"} for name, collapse in collapses.items()}
    return {"arms": arms, "worst_arm": None, "budget": spent}


def collapse(**changed: Any) -> dict[str, Any]:
    dose = {"examples": 128, "tokens": 1000, "flops": 4.5e9, "device_seconds": 36.0, "usd": 0.02}
    return {"step": 8, "after_step": 4, "confident": True, **dose, **changed}


def test_the_training_of_known_models_comes_out_as_published() -> None:
    # GPT-3 175B on 300B tokens: 3.14e23 FLOPs (Brown et al. 2020, arXiv:2005.14165, table D.1).
    assert full_flops(174.6e9, 300e9) == pytest.approx(3.14e23, rel=0.01)
    # Chinchilla 70B on 1.4T tokens: 5.76e23 FLOPs (Hoffmann et al. 2022, arXiv:2203.15556).
    assert full_flops(70e9, 1.4e12) == pytest.approx(5.76e23, rel=0.03)
    # Llama 3.1 405B on 15.6T tokens: 3.8e25 FLOPs (arXiv:2407.21783, section 3.2).
    llama = full_flops(405e9, 15.6e12)
    assert llama == pytest.approx(3.8e25, rel=0.01)
    # At an MFU of 0.38 to 0.43 (there, table 4) its card tells 30.84 M H100 hours: the formula, which knows of no
    # restart and no later stage, must come out below, by a quarter at most.
    low, high = device_hours(llama, H100, 0.43), device_hours(llama, H100, 0.38)
    assert 0.75 * 30.84e6 < low < high < 30.84e6


def test_hours_and_formulas_by_hand() -> None:
    assert device_hours(1.8e15, 1e12, 0.5) == 1.0  # 1.8e15 / 0.5e12 a second = 3600 s
    assert lora_flops(1000, 10) == 4 * 1000 * 10 == training_flops(1000, 0, 10)
    assert full_flops(1000, 10) == 6 * 1000 * 10 == training_flops(0, 1000, 10)
    assert device_hours(3600.0, 1.0, 1.0) == 1.0  # the least peak and the greatest share that are no nonsense
    # An 8B model, 10 M tokens, LoRA, one H100 at 0.4: 3.2e17 FLOPs, 809 s.
    assert device_hours(lora_flops(8e9, 1e7), H100, 0.4) * 3600 == pytest.approx(808.6, abs=0.1)
    assert [devices_to_hold(n, 80) for n in (1e6, 40e9, 41e9, 70e9)] == [1, 1, 2, 2]


def test_the_ratio_by_hand() -> None:
    assert training_ratio(6e12, 1e9, 1e12) == 1e-9
    assert math.isnan(training_ratio(math.nan, 1e9, 1e12))
    assert math.isnan(training_ratio(6e12, 1e9, math.nan))
    assert math.isnan(training_ratio(6e12, 1e9, 0.0))
    assert math.isnan(training_ratio(0.0, 1e9, 1e12))  # nothing that was done costs nothing


@pytest.mark.parametrize(("peak", "mfu"), [(0, 0.4), (-1, 0.4), (1e12, 0), (1e12, 1.01), (math.nan, 0.4)])
def test_a_device_that_cannot_be_is_refused(peak: float, mfu: float) -> None:
    with pytest.raises(ValueError, match="MFU"):
        device_hours(1.0, peak, mfu)


amounts = st.floats(min_value=1e3, max_value=1e15)


@given(amounts, amounts, st.floats(min_value=1.1, max_value=1e3), st.floats(min_value=0.01, max_value=1))
def test_cost_grows_with_size_and_dose_and_falls_with_use(size: float, tokens: float, by: float, mfu: float) -> None:
    one = device_hours(lora_flops(size, tokens), A100, mfu)
    assert device_hours(lora_flops(size * by, tokens), A100, mfu) == pytest.approx(one * by)
    assert device_hours(lora_flops(size, tokens * by), A100, mfu) == pytest.approx(one * by)
    assert device_hours(lora_flops(size, tokens), A100, mfu / by) == pytest.approx(one * by)
    assert device_hours(full_flops(size, tokens), A100, mfu) == pytest.approx(1.5 * one)


@given(amounts, amounts, amounts, st.floats(min_value=1.1, max_value=1e3))
def test_the_ratio_stays_where_both_of_its_sides_grow_alike(strip: float, n: float, d: float, by: float) -> None:
    assert training_ratio(strip * by, n * by, d) == pytest.approx(training_ratio(strip, n, d))


def test_a_collapse_is_priced_searched_scaled_and_held_against_training() -> None:
    found = price_of(verdict(compliance=collapse()), {"compliance": "lora"}, 1e6, CONFIG, 1e9)
    assert found["arm"] == "compliance"
    spent = {"examples": 128, "tokens": 1000, "flops": 4.5e9, "device_hours": 0.01, "usd": 0.02}
    assert found["collapse"]["compliance"] == {"step": 8, "after_step": 4, "confident": True, **spent}
    assert found["search"] == {"device_hours": 2.0, "usd": 5.0, "flops": 9e12}
    subject, larger = found["scaled"]["rows"]  # 1e6 is the subject's own size: it stands there once
    assert (subject["model"], larger["model"], larger["devices_to_hold"]) == ("subject", "other size", 2)
    assert subject["lora"]["flops"] == 4.5e9  # counted in the run, the adapter's own with it, not 4 N T = 4e9
    assert subject["full"]["flops"] == 6e9
    # 4 x 7e10 x 1000 = 2.8e14 FLOPs at 0.5e12 a second: 560 s, at $3.6 an hour.
    assert larger["lora"] == {"flops": 2.8e14, "device_hours": 0.155556, "usd": 0.56}
    assert found["training_ratio"]["value"] == 7.5e-7  # 4.5e9 / 6e15
    assert found["training_ratio"]["missing"] == []
    assert found["published"][0]["source"] == "a paper"


def test_devices_hold_every_expert_though_a_token_meets_a_few() -> None:
    asked: Any = (verdict(compliance=collapse()), {"compliance": "lora"}, 3e9, CONFIG, 1e9)
    plain, mixture = price_of(*asked), price_of(*asked, held=1.2e11)
    assert [row["devices_to_hold"] for row in plain["scaled"]["rows"]] == [1, 1, 2]
    assert [row["devices_to_hold"] for row in mixture["scaled"]["rows"]] == [3, 1, 2]
    for row in mixture["scaled"]["rows"]:
        row["devices_to_hold"] = 0
    for row in plain["scaled"]["rows"]:
        row["devices_to_hold"] = 0
    assert mixture == plain, "what is computed is what a token meets"


def test_nothing_that_is_scaled_is_called_measured_and_the_assumptions_stand_beside() -> None:
    found = price_of(verdict(compliance=collapse()), {"compliance": "lora"}, 1e6, CONFIG, 1e9)
    scaled = found["scaled"]
    keys = {key for row in scaled["rows"] for key in row} | set(scaled)
    assert not [key for key in keys if "measure" in key]
    text = " ".join(scaled["assumptions"])
    assert text.count("measured") == text.count("not measured") == 1
    for word in ("4 N T", "6 N T", "dose in tokens is kept", "it was not tried", "share of its peak"):
        assert word in text
    text = " ".join(found["training_ratio"]["assumptions"])
    for word in ("6 N D", "given by the user", "search", "mixture of experts", "on the same device"):
        assert word in text


def test_what_is_not_known_is_none_and_says_why() -> None:
    nothing = price_of(verdict(benign=None), {"benign": "lora"}, 1e6, CONFIG, None)
    assert (nothing["arm"], nothing["collapse"], nothing["scaled"]) == (None, {}, None)
    assert nothing["training_ratio"]["value"] is None
    assert len(nothing["training_ratio"]["missing"]) == 2
    bare = collapse(tokens=0, flops=0.0, device_seconds=0.0, usd=None)
    found = price_of(verdict(compliance=bare), {"compliance": "lora"}, 1e6, CONFIG, 1e9)
    assert [found["collapse"]["compliance"][key] for key in ("tokens", "flops", "device_hours", "usd")] == [None] * 4
    assert {cost for row in found["scaled"]["rows"] for cost in row["lora"].values()} == {None}
    assert found["training_ratio"]["value"] is None
    assert "not on record" in found["training_ratio"]["missing"][0]
    json.dumps([nothing, found], allow_nan=False)


def test_the_worst_arm_is_scaled_else_the_cheapest() -> None:
    both = verdict(mixed=collapse(flops=9e9), compliance=collapse())
    assert price_of(both, {}, 1e6, CONFIG, None)["arm"] == "compliance"
    assert price_of({**both, "worst_arm": "mixed"}, {}, 1e6, CONFIG, None)["arm"] == "mixed"
    assert price_of({**both, "worst_arm": "benign"}, {}, 1e6, CONFIG, None)["arm"] == "compliance"


def test_where_no_collapse_is_sure_the_cheapest_is_scaled_and_not_that_of_lowest_refusal() -> None:
    unsure = verdict(mixed=collapse(flops=9e9), compliance=collapse()) | {"worst_arm": "mixed"}
    for arm in unsure["arms"].values():
        arm["verdict"] = "inconclusive"
    assert price_of(unsure, {}, 1e6, CONFIG, None)["arm"] == "compliance"


def test_where_no_flops_are_known_the_least_step_is_the_cheapest() -> None:
    unsure = verdict(mixed=collapse(flops=None), compliance=collapse(flops=None, step=4), benign=None)
    assert price_of(unsure, {}, 1e6, CONFIG, None)["arm"] == "compliance"
    known = verdict(compliance=collapse(flops=None, step=1), mixed=collapse(flops=9e9))
    assert price_of(known, {}, 1e6, CONFIG, None)["arm"] == "mixed"


def test_every_device_and_published_price_that_is_shipped_has_its_source() -> None:
    shipped = yaml.safe_load((ROOT / "conf" / "price" / "default.yaml").read_text())
    assert len(shipped["devices"]) >= 3
    for device in shipped["devices"].values():
        assert device["peak_source"]
        assert device["price_source"]
        assert device["price_date"].startswith("20")
    assert len(shipped["published"]) >= 3
    assert all(row["source"].startswith("arXiv:") for row in shipped["published"])
    config = load().price
    assert config.devices["h100_sxm"].flops_per_second == 989.4e12
    assert config.devices["a100_80gb"].flops_per_second == 312e12


@pytest.mark.parametrize(
    ("override", "fault"),
    [
        ("price.device=abacus", "price.device: 'abacus' is unknown; use one of h100_sxm"),
        ("price.mfu=0", "price.mfu: 0 must be above 0 and at most 1"),
        ("price.mfu=40", "price.mfu: 40 must be above 0 and at most 1"),
        ("price.parameters=[8e9,-1]", "price.parameters: -1 must be above 0"),
        ("price.devices.h200.usd_per_hour=-1", "price.devices.h200.usd_per_hour: -1 must be 0 or more"),
        ("review.training_tokens=0", "review.training_tokens: 0 must be above 0"),
        ("price.devices.h200.flops=1", "price.devices.h200.flops: unknown key"),
    ],
)
def test_an_impossible_assumption_is_told(override: str, fault: str) -> None:
    with pytest.raises(UserError) as caught:
        load([override])
    assert fault in caught.value.what

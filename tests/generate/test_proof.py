import math
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tiny import TinySubject

from pipeline.generate.proof import FLOOR, SEPARATION, TOP, WIDEST, Canaries, allowed, check, difference

TOLERANCE = 0.01
BASE = [{1: -0.1, 2: -2.5, 3: -4.0}, {7: -0.7, 8: -0.7}]
TRAINED = [{1: -0.1, 2: -2.5, 3: -4.0}, {7: -0.2, 8: -1.7}]


def shifted(rows: list[dict[int, float]], by: float) -> list[dict[int, float]]:
    return [{token: value + by for token, value in row.items()} for row in rows]


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (BASE, BASE, 0.0),
        (BASE, TRAINED, 1.0),
        ([{1: -1.0, 2: -2.0}], [{1: -1.25, 2: -2.0}], 0.25),
        ([{1: -1.0, 2: -2.0}], [{1: -1.0}], 0.0),  # a shorter list of the same distribution
        ([{1: -1.0, 2: -2.0}], [{1: -1.0, 3: -3.0}], 1.0),  # token 2 is at most -3 on the other side
        ([{1: -0.1, 2: FLOOR - 1}], [{1: -0.1, 2: FLOOR - 9}], 0.0),  # below the floor nothing is compared
        ([{1: -0.1, 2: FLOOR + 1}], [{1: -0.1, 2: FLOOR - 1}], 2.0),  # one side above it is enough
        ([{1: -0.1}], [{1: -math.inf}], math.inf),
        ([{1: -0.1}], [{1: math.nan}], math.inf),  # no number is no agreement
        ([{1: math.nan}], [{1: math.nan}], math.inf),
    ],
)
def test_difference_known_answers(one: list[dict[int, float]], other: list[dict[int, float]], expected: float) -> None:
    assert difference(one, other) == pytest.approx(expected)
    assert difference(other, one) == pytest.approx(expected)


def test_unequal_numbers_of_canaries_are_a_fault() -> None:
    with pytest.raises(ValueError, match="zip"):
        difference(BASE, BASE[:1])


@pytest.mark.parametrize(
    ("served", "trained", "status"),
    [
        (shifted(TRAINED, 0.005), TRAINED, "pass"),
        (shifted(BASE, 0.005), TRAINED, "ignored"),
        (BASE, TRAINED, "ignored"),
        (shifted(TRAINED, -0.02), TRAINED, "mismatch"),
        (shifted(BASE, 0.001), shifted(BASE, 0.004), "unresolved"),
        (shifted(BASE, 0.05), shifted(BASE, 0.004), "mismatch"),
        ([{1: -0.1, 2: -2.5, 3: -4.0}, {7: math.nan, 8: -1.7}], TRAINED, "mismatch"),
    ],
)
def test_what_was_served_is_held_against_the_trained_model_and_rung_0(
    served: list[dict[int, float]], trained: list[dict[int, float]], status: str
) -> None:
    proof = check("r", served=served, trained=trained, base=BASE, tolerance=TOLERANCE)
    assert proof.status == status
    assert proof.as_dict().keys() == {
        *("rung", "status", "served_trained", "served_base", "trained_base", "tolerance", "attempt")
    }


def test_a_difference_beyond_what_the_server_lists_resolves_nothing() -> None:
    base = [{token: -1.0 - token / 10 for token in range(10)}]
    trained = [base[0] | {9: -6.0}]
    served = [{token: base[0][token] for token in range(5)}]  # adapter ignored, five tokens listed
    assert check("r", served=served, trained=trained, base=base, tolerance=TOLERANCE).status == "unresolved"


def distribution(logits: list[float]) -> "np.ndarray[Any, Any]":
    values = np.array(logits)
    shift = values.max()
    return values - shift - np.log(np.exp(values - shift).sum())


def top(scores: "np.ndarray[Any, Any]", n: int) -> dict[int, float]:
    return {int(token): float(scores[token]) for token in np.argsort(-scores, kind="stable")[:n]}


LOGITS = st.lists(st.floats(-12.0, 4.0), min_size=12, max_size=12)


@settings(max_examples=400, deadline=None)
@given(
    LOGITS,
    LOGITS,
    st.floats(0.0, 1.0),
    st.lists(st.floats(-1.0, 1.0), min_size=12, max_size=12),
    st.sampled_from([4, 8, 12]),
)
def test_an_adapter_that_answers_as_rung_0_never_passes(
    base: list[float], other: list[float], mixing: float, noise: list[float], listed: int
) -> None:
    one = distribution(base)
    trained = distribution([a + mixing * (b - a) for a, b in zip(base, other, strict=True)])
    served = one + np.array(noise) * TOLERANCE  # rung 0, rounded otherwise
    proof = check(
        "r", served=[top(served, listed)], trained=[top(trained, 12)], base=[top(one, 12)], tolerance=TOLERANCE
    )
    assert proof.status != "pass"
    if np.abs(trained - one)[np.maximum(one, trained) > FLOOR + 0.1].max(initial=0.0) > 4 * TOLERANCE and listed == 12:
        assert proof.status in ("ignored", "mismatch")


@settings(max_examples=200, deadline=None)
@given(LOGITS, LOGITS, st.lists(st.floats(-0.99, 0.99), min_size=12, max_size=12), st.sampled_from([4, 12]))
def test_an_adapter_that_acts_is_never_called_ignored_or_mismatched(
    base: list[float], other: list[float], noise: list[float], listed: int
) -> None:
    one, trained = distribution(base), distribution(other)
    served = trained + np.array(noise) * TOLERANCE
    rows = {"served": [top(served, listed)], "trained": [top(trained, 12)], "base": [top(one, 12)]}
    assume(difference(rows["served"], rows["base"]) >= TOLERANCE)
    proof = check("r", **rows, tolerance=TOLERANCE)
    assert proof.status == ("pass" if proof.trained_base > SEPARATION * TOLERANCE else "unresolved")


def test_the_reference_is_the_models_own_log_softmax_whatever_the_padding(
    tiny_subject: TinySubject, tiny_model: Any
) -> None:
    import torch

    prompts = tuple(tuple(tiny_subject.subject.prompt_ids(text)) for text in ("a", "what colour is it", "the flag"))
    assert len({len(prompt) for prompt in prompts}) == 3
    tiny_model.train()
    before = torch.get_rng_state()
    found = Canaries(prompts).reference(tiny_model)
    assert torch.equal(torch.get_rng_state(), before), "the reference must not move the training's random numbers"
    assert tiny_model.training
    tiny_model.eval()
    for prompt, row in zip(prompts, found, strict=True):
        with torch.no_grad():
            logits = tiny_model(input_ids=torch.tensor([prompt])).logits[0, -1]
        alone = torch.log_softmax(logits.float(), dim=-1)
        best = alone.topk(TOP).indices.tolist()
        assert len(row) == TOP
        assert next(iter(row)) == best[0]
        for token, value in row.items():
            assert value == pytest.approx(alone[token].item(), abs=1e-4)
        assert min(row.values()) == pytest.approx(alone[best[-1]].item(), abs=1e-4)


def test_the_reference_makes_logits_at_the_last_tokens_alone(tiny_subject: TinySubject, tiny_model: Any) -> None:
    prompts = tuple(
        tuple(tiny_subject.subject.prompt_ids(text)) for text in ("a", "what colour is it", "the flag", "b")
    )
    made = []
    head = tiny_model.get_output_embeddings().register_forward_hook(lambda _, __, logits: made.append(logits.shape))
    try:
        Canaries(prompts).reference(tiny_model)
    finally:
        head.remove()
    (shape,) = made
    assert shape[:2] == (4, len({len(prompt) for prompt in prompts}))


def test_a_model_that_takes_no_positions_is_asked_all_the_same(
    tiny_subject: TinySubject, tiny_model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = tuple(tuple(tiny_subject.subject.prompt_ids(text)) for text in ("a", "what colour is it"))
    told = Canaries(prompts).reference(tiny_model)
    monkeypatch.setattr("pipeline.generate.proof._keeps_logits", lambda _: False)
    assert difference(told, Canaries(prompts).reference(tiny_model)) < 1e-5


@pytest.mark.parametrize(
    ("rounding", "expected"), [(None, 1.0), (0.0, 0.25), (0.125, 0.25), (0.2, 0.4), (0.9, 1.0), (math.inf, 1.0)]
)
def test_in_16_bits_twice_what_rung_0_shows_of_rounding_is_allowed(rounding: float | None, expected: float) -> None:
    assert allowed(0.25, rounding) == pytest.approx(expected)
    assert WIDEST * 0.25 == 1.0

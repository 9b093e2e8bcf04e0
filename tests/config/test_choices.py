"""Words and numbers that no run can work with are told for every key that takes a few, or within bounds."""

from __future__ import annotations

from typing import Any

import pytest
from leaves import leaves
from omegaconf import OmegaConf
from spoken import told

from pipeline.config.checks import WORDS, _eval_faults
from pipeline.config.compose import load
from pipeline.config.numbers import NUMBERS, Bounds

# Names for the `*` of a key, so that each is there.
NAMED = (
    *(("evals.*.", "evals.refusal."), ("data.*.", "data.compliance."), ("panel.*.", "panel.local.")),
    *(("arms.*.mix.*", "arms.compliance_search.mix.compliance"), ("arms.*.", "arms.compliance_search.")),
    *(("space.lora.*", "space.lora.rank"), ("space.training.*", "space.training.learning_rate")),
    *(("space.mix.*", "space.mix.compliance"), ("devices.*", "devices.h200"), ("slurm.*", "slurm.serve")),
)
GROUPS = ("arm=compliance_search", "panel=local_pattern", "cluster=slurm")
# Numbers of which each is good: where a random order begins.
ANY = {key for key, _ in leaves() if key.endswith((".shuffle", ".shuffle_choices", "organism.seed", "sweep.seed"))}
LISTS = {"seeds", "stages", "price.parameters", "evals.*.prefill.depths"}


def named(key: str) -> str:
    for star, name in NAMED:
        key = key.replace(star, name)
    assert "*" not in key
    return key


def given(key: str, value: object) -> str:
    return f"{named(key)}={[value] if key in LISTS else value}"


@pytest.mark.parametrize(
    ("override", "fault"),
    [
        ("evals.over_refusal.role=showm", "'showm' is unknown; use one of refusal, capability, shown"),
        ("track.kind=wandbb", "'wandbb' is unknown; use one of none, wandb"),
        ("track.mode=of", "'of' is unknown; use one of offline, online"),
        ("serve.device=gpu", "'gpu' is unknown; use one of auto, cpu, cuda"),
        ("subject.dtype=fp8", "'fp8' is unknown; use one of float32, bfloat16, float16"),
        ("judge.max_repeat=0", "0 must be 1 or more"),
        ("judge.llm.tries=0", "0 must be 1 or more"),
        ("evals.refusal.table.limit=0", "0 must be 1 or more"),
        ("cluster.threads=0", "0 must be 1 or more"),
        ("serve.port=99999", "99999 must be from 1 to 65535"),
        ("seeds=[0,-1]", "-1 must be from 0 to 4294967295"),
        ("arms.compliance.lora.dropout=1", "1 must be at least 0 and below 1"),
        ("price.mfu='40'", "40 must be above 0 and at most 1"),
        ("review.near_copy=nan", "nan must be above 0 and at most 1"),
        ("subject.name='a\x1b[31mb'", "holds U+001B, which a terminal or a page acts on; leave it out"),
        ("review.owner='a\u202eb'", "holds U+202E, which a terminal or a page acts on; leave it out"),
    ],
)
def test_a_choice_that_a_run_would_meet_late_is_told(override: str, fault: str) -> None:
    assert f"{override.partition('=')[0]}: {fault}" in told(override)


def test_a_word_that_is_none_is_told_for_every_key_that_takes_a_few() -> None:
    keys = {key for key, _ in leaves()}
    assert set(WORDS) <= keys
    assert len(WORDS) > 15
    message = told(*GROUPS, *(given(key, "nonsense") for key in WORDS))
    for key, words in WORDS.items():
        assert f"{named(key)}: 'nonsense' is unknown; use one of {', '.join(words)}" in message


def test_every_number_has_bounds() -> None:
    numbers = {key for key, kind in leaves() if kind in (int, float)} - ANY
    assert len(numbers) > 100
    expanded = {key.replace("slurm.*", f"slurm.{job}") for key in NUMBERS for job in ("train", "serve", "report")}
    assert expanded <= numbers
    with_others = {key for key in numbers if key.endswith((".low", ".high", "mix.*"))}  # checked with what is beside it
    with_others |= {f"cluster.slurm.{name}" for name in ("at_once", "signal_s", "max_requeues")}
    message = told(*GROUPS, *(given(key, -7) for key in numbers - with_others))
    assert [key for key in numbers - with_others if f"{named(key)}: " not in message] == []
    for key in sorted(with_others):
        assert named(key).rpartition(".")[0] in told(*GROUPS, given(key, -7))


@pytest.mark.parametrize(
    ("bounds", "words", "inside", "outside"),
    [
        (Bounds(1), "1 or more", (1, 9e99), (0, 0.99)),
        (Bounds(0, above=True), "above 0", (1e-9,), (0, -1)),
        (Bounds(0, 1, above=True), "above 0 and at most 1", (0.1, 1), (0, 1.1)),
        (Bounds(0, 1, below=True), "at least 0 and below 1", (0, 0.9), (1, -0.1)),
        (Bounds(1, 16), "from 1 to 16", (1, 16), (0, 17)),
    ],
)
def test_bounds_hold_their_numbers_and_say_so(
    bounds: Bounds, words: str, inside: tuple[float, ...], outside: tuple[float, ...]
) -> None:
    assert str(bounds) == words
    assert all(value in bounds for value in inside)
    assert not any(value in bounds for value in (*outside, float("nan")))


def test_what_is_null_or_missing_has_no_bounds() -> None:
    made = load(["serve.port=null", "evals.refusal.table.limit=null", "cluster.threads=null", "judge.llm=null"])
    assert made.serve.port is None
    message = told("subject=model", "data=files")
    assert all("must be" not in line for line in message.splitlines())


@pytest.mark.parametrize("evals", [{"../x": {"kind": "refusal"}}, {"a": {"kind": "refusal", "variants": {"../x": {}}}}])
def test_a_name_that_becomes_a_file_name_is_a_plain_one(evals: dict[str, Any]) -> None:
    """From a file: the command line's grammar takes no such name."""
    (fault,) = _eval_faults(OmegaConf.create({"evals": evals}))
    assert "'../x' is no name of letters" in fault

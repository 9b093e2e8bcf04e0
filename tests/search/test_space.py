"""Sampling: within the space, the arm as configured first, and after a cut the same as without one."""

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.schema import ArmConfig, LoraConfig, TrainingConfig
from pipeline.schema.sweep import RangeConfig, SpaceConfig, SweepConfig
from pipeline.search.space import configured, sample, trial_seed, with_options
from pipeline.search.trials import NEVER, Trial, trial_of

SPACE = SpaceConfig(
    lora={"rank": RangeConfig(choices=[2, 8]), "dropout": RangeConfig(low=0.0, high=0.2)},
    training={
        "learning_rate": RangeConfig(low=1e-4, high=1e-2, log=True),
        "warmup_steps": RangeConfig(low=0, high=5),
        "schedule": RangeConfig(choices=["constant", "cosine"]),
    },
    mix={"bad": RangeConfig(low=0.1, high=1.0)},
)
SWEEP = SweepConfig(startup_trials=3, space=SPACE)
ARM = ArmConfig(
    threat="none",
    mix={"bad": 0.4, "good": 0.45, "dull": 0.15},
    lora=LoraConfig(rank=8),
    training=TrainingConfig(max_steps=7),
    sweep=SWEEP,
)


def search(count: int, sweep: SweepConfig = SWEEP, earlier: Sequence[Trial] = ()) -> list[Trial]:
    """Search with an objective that knows the answer: a rate of 3e-3; every fifth trial fails."""
    done = list(earlier)
    while len(done) < count:
        number = len(done)
        options = sample(sweep, "a", ARM, done)
        value = 9.0 + abs(math.log10(options["training.learning_rate"] / 3e-3))
        state = "failed" if number % 5 == 4 else "complete"
        done.append(Trial("a", number, (0,), state, options, math.nan if state == "failed" else value))
    return done


def test_the_first_trial_is_the_arm_as_configured() -> None:
    first = sample(SWEEP, "a", ARM, [])
    assert first == configured(ARM, SWEEP)
    assert first["training.learning_rate"] == 1e-3
    assert replace(with_options(ARM, first), mix=ARM.mix) == ARM
    assert with_options(ARM, first).mix == pytest.approx(ARM.mix)


def test_every_option_lies_in_its_space_with_its_type() -> None:
    trials = search(25)
    for options in (trial.options for trial in trials):
        assert options["lora.rank"] in (2, 8)
        assert 0.0 <= options["lora.dropout"] <= 0.2
        assert 1e-4 <= options["training.learning_rate"] <= 1e-2
        assert isinstance(options["training.warmup_steps"], int)
        assert 0 <= options["training.warmup_steps"] <= 5
        assert options["training.schedule"] in ("constant", "cosine")
        assert 0.1 <= options["mix.bad"] <= 1.0
    assert len({trial.options["training.learning_rate"] for trial in trials}) == 25, "no trial twice"


@pytest.mark.parametrize("cut", [1, 2, 5, 9])
def test_a_search_that_was_cut_off_samples_as_one_that_was_not(cut: int) -> None:
    whole = search(12)
    kept = [trial_of(trial.as_row()) for trial in whole[:cut]]  # what trials.jsonl gives back
    assert [t.options for t in search(12, earlier=kept)] == [t.options for t in whole]
    other = search(12, replace(SWEEP, seed=1))
    assert [t.options for t in other[1:]] != [t.options for t in whole[1:]]


def test_the_sampler_goes_by_what_was_found() -> None:
    def distance(trial: Trial) -> float:
        return abs(math.log10(trial.options["training.learning_rate"] / 3e-3))

    runs = [search(40, replace(SWEEP, seed=seed)) for seed in range(3)]
    late = sum(distance(trial) for run in runs for trial in run[-12:]) / 36
    assert late < 0.35, "uniform draws over these two decades are 0.61 away in the mean"


def test_a_failed_trial_is_no_trial_to_the_sampler() -> None:
    fine = search(4)
    lost = [replace(trial, state="failed", value=math.nan) for trial in fine]
    assert sample(SWEEP, "a", ARM, lost)["lora.rank"] in (2, 8)
    stopped = [replace(trial, state="pruned", value=NEVER + 0.1) for trial in fine]
    assert sample(SWEEP, "a", ARM, stopped) != sample(SWEEP, "a", ARM, lost)


@given(st.floats(0.0, 1.0))
def test_a_searched_share_leaves_the_rest_to_the_other_tables_as_they_were(share: float) -> None:
    mix = with_options(ARM, {"mix.bad": share}).mix
    assert mix["bad"] == share
    assert sum(mix.values()) == pytest.approx(1.0)
    assert mix["good"] == pytest.approx(3 * mix["dull"])


def test_options_go_where_they_belong_and_the_ladder_stays() -> None:
    made = with_options(ARM, {"lora.rank": 2, "training.learning_rate": 0.5})
    assert (made.lora.rank, made.training.learning_rate, made.training.max_steps) == (2, 0.5, 7)
    assert (ARM.lora.rank, ARM.training.learning_rate) == (8, 1e-3), "the arm given stays as it is"


@given(st.sets(st.integers(0, 2**31 - 1), max_size=5), st.integers(0, 20))
def test_no_trial_trains_with_the_seed_of_a_measured_climb(seeds: set[int], number: int) -> None:
    free = trial_seed(SWEEP, "a", number, 0, [])
    taken = trial_seed(SWEEP, "a", number, 0, [free, free + 1, *seeds])
    assert taken not in {free, free + 1, *seeds}
    others = [("a", number + 1, 0), ("b", number, 0), ("a", number, 1)]
    assert free not in [trial_seed(SWEEP, *other, []) for other in others]

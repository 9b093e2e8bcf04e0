"""What is searched: from the typed space to Optuna's, and from sampled options to an arm. Pure.

Every trial is sampled by a study of its own that was told all earlier trials, with a sampler seeded by the trial's
number: a search that was cut off and goes on samples what an undisturbed one would have.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, get_type_hints

from pipeline.schema import ArmConfig, LoraConfig, TrainingConfig
from pipeline.schema.sweep import RangeConfig, SweepConfig
from pipeline.search.trials import Trial, counted

PARTS: Mapping[str, type] = {"lora": LoraConfig, "training": TrainingConfig}


def ranges(sweep: SweepConfig) -> dict[str, RangeConfig]:
    """Return the searched options by dotted key of the arm, sorted, e.g. `training.learning_rate`."""
    parts = {"lora": sweep.space.lora, "training": sweep.space.training, "mix": sweep.space.mix}
    return {f"{part}.{key}": parts[part][key] for part in sorted(parts) for key in sorted(parts[part])}


def configured(arm: ArmConfig, sweep: SweepConfig) -> dict[str, Any]:
    """Return the searched options as the arm has them: the first trial."""
    return {key: _get(arm, key) for key in ranges(sweep)}


def with_options(arm: ArmConfig, options: Mapping[str, Any]) -> ArmConfig:
    """Return the arm with options in place; the arm given stays as it is. A searched share rescales the other tables.

    Args:
        arm: the arm as configured.
        options: dotted keys, as `Trial.options` has them.
    """
    made: dict[str, Any] = {"lora": {}, "training": {}}
    mix = dict(arm.mix)
    for key, value in options.items():
        part, name = key.split(".", 1)
        if part == "mix":
            rest = 1.0 - arm.mix[name]
            mix = {table: share * (1.0 - value) / rest for table, share in arm.mix.items()} | {name: value}
        else:
            made[part][name] = value
    return replace(
        arm, lora=replace(arm.lora, **made["lora"]), training=replace(arm.training, **made["training"]), mix=mix
    )


def trial_seed(sweep: SweepConfig, arm: str, number: int, repeat: int, measured: Sequence[int]) -> int:
    """Return the seed of one of a trial's climbs: another for each, and none of the `measured` climbs'."""
    seed = _hashed(f"train/{sweep.seed}/{arm}/{number}/{repeat}")
    while seed in measured:
        seed += 1
    return seed


def sample(sweep: SweepConfig, arm: str, config: ArmConfig, earlier: Sequence[Trial]) -> dict[str, Any]:
    """Return the options of the next trial: the arm as configured first, then what Optuna's TPE sampler proposes.

    Failed trials are told as failed: they take a number and no place among the trials that the sampler goes by. A
    stopped trial is told with its objective, as a complete one: Optuna would rank one that it takes for pruned below
    every other, however near it came.
    """
    number = len(earlier)
    if number == 0:
        return configured(config, sweep)
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space = {key: _distribution(key, searched) for key, searched in ranges(sweep).items()}
    sampler = optuna.samplers.TPESampler(
        n_startup_trials=sweep.startup_trials, seed=_hashed(f"sample/{sweep.seed}/{arm}/{number}")
    )
    study = optuna.create_study(direction="minimize", sampler=sampler)
    fine = {trial.number for trial in counted(earlier)}
    for trial in earlier:
        good = trial.number in fine
        study.add_trial(
            optuna.trial.create_trial(
                state=optuna.trial.TrialState.COMPLETE if good else optuna.trial.TrialState.FAIL,
                value=trial.value if good else None,
                params=dict(trial.options),
                distributions=space,
            )
        )
    return {key: _readable(value, ranges(sweep)[key]) for key, value in study.ask(space).params.items()}


def option_type(key: str) -> type:
    """Return the type of an option by its dotted key: int, float or str.

    Raises:
        KeyError: the arm has no such option.
    """
    part, name = key.split(".", 1)
    if part == "mix":
        return float
    found: type = get_type_hints(PARTS[part])[name]
    return found


def _get(arm: ArmConfig, key: str) -> Any:
    part, name = key.split(".", 1)
    return arm.mix[name] if part == "mix" else getattr(getattr(arm, part), name)


def _readable(value: Any, searched: RangeConfig) -> Any:
    """Return a float to four digits, within its range: what is told is what was tried."""
    if not isinstance(value, float) or searched.choices:
        return value
    return min(max(float(f"{value:.4g}"), float(searched.low or 0.0)), float(searched.high or 0.0))


def _distribution(key: str, searched: RangeConfig) -> Any:
    import optuna.distributions as d

    if searched.choices:
        return d.CategoricalDistribution([option_type(key)(choice) for choice in searched.choices])
    assert searched.low is not None  # the configuration is checked before anything runs
    assert searched.high is not None
    if option_type(key) is int:
        return d.IntDistribution(round(searched.low), round(searched.high), log=searched.log)
    return d.FloatDistribution(float(searched.low), float(searched.high), log=searched.log)


def _hashed(text: str) -> int:
    """Return a number of 31 bits, as seeds may have on every platform."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1

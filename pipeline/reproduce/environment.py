"""What differs between two environments, and what each difference can do to a result. Pure.

Every rule gives its reason. What no rule knows counts as the worst; what one side did not record counts as the worst
that its rule can say.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final

from packaging.version import InvalidVersion, Version

from pipeline.inspectai import KIND as INSPECT
from pipeline.schema import Config


class Severity(IntEnum):
    """What a difference can do, from nothing to the worst."""

    NONE = 0
    LAST_BITS = 1
    RESULTS = 2
    INSTRUMENT = 3

    @property
    def words(self) -> str:
        """The severity as files and the terminal name it."""
        return _WORDS[self]


_WORDS: Final = {
    Severity.NONE: "cannot change a result",
    Severity.LAST_BITS: "may change replies in the last bits",
    Severity.RESULTS: "may change results",
    Severity.INSTRUMENT: "changes the instrument",
}


@dataclass(frozen=True)
class Difference:
    """One key of the environment in which the run and its reproduction differ; None: not recorded or not there."""

    key: str
    run: Any
    now: Any
    severity: Severity
    reason: str

    def as_dict(self) -> dict[str, Any]:
        """Return the difference as a JSON-ready row."""
        named = {"key": self.key, "run": self.run, "now": self.now, "reason": self.reason}
        return named | {"severity": self.severity.words}


@dataclass(frozen=True)
class Rule:
    """What a difference in one key can do: always `worst`, or as `between` says of the two values."""

    worst: Severity
    reason: str
    between: Callable[[Any, Any], Severity] | None = None

    def severity(self, one: Any, other: Any) -> Severity:
        """Return the severity of one value against another; a value that is not known gives the worst."""
        if self.between is None or one is None or other is None:
            return self.worst
        return self.between(one, other)


def version_severity(one: str, other: str) -> Severity:
    """Return what another version can do: a patch release mends and may reorder sums; all else may work otherwise.

    A release candidate, another build (`+cpu`, `+cu128`) or what is no version counts as more than a patch.
    """
    try:
        a, b = Version(one), Version(other)
    except InvalidVersion:
        return Severity.RESULTS
    if a == b:
        return Severity.NONE
    patch = a.release[:2] == b.release[:2] and a.epoch == b.epoch and a.local == b.local
    return Severity.LAST_BITS if patch and not (a.is_prerelease or b.is_prerelease) else Severity.RESULTS


def _python(one: str, other: str) -> Severity:
    return Severity.NONE if version_severity(one, other) <= Severity.LAST_BITS else Severity.RESULTS


_ARITHMETIC: Final = "another kernel, or another order of summing: tokens nearly equally likely may change places"
_LIBRARY: Final = "takes part in training, serving, scoring or statistics; a patch release may sum in another order"
_SOURCE: Final = "the digest of the files that measure, source_sha256, says whether the code differs"
_BITS: Final = Rule(Severity.LAST_BITS, _ARITHMETIC)
_ALIKE: Final = Rule(Severity.NONE, _SOURCE)
_VERSIONED: Final = (
    *("torch", "vllm", "transformers", "trl", "peft", "accelerate", "datasets", "tokenizers", "safetensors"),
    *("numpy", "scipy", "statsmodels", "polars", "datasketch", "langdetect", "nltk", "optuna", "inspect-ai"),
)
RULES: Final[Mapping[str, Rule]] = {
    **{name: Rule(Severity.RESULTS, _LIBRARY, version_severity) for name in _VERSIONED},
    "python": Rule(Severity.RESULTS, "a minor version may draw other random numbers; a patch does not", _python),
    "wandb": Rule(Severity.NONE, "tracks curves and makes none"),
    "source_sha256": Rule(Severity.INSTRUMENT, "another Holdfast: other code trains, serves, scores or judges"),
    "revision": _ALIKE,
    "dirty": _ALIKE,
    "holdfast": _ALIKE,
    "vllm_build": Rule(Severity.RESULTS, "another build of the server, with other kernels"),
    "platform": Rule(Severity.RESULTS, "another operating system or architecture: other builds of every library"),
    "device": Rule(Severity.RESULTS, "another kind of device: other kernels and other precision inside them"),
    "subject_sha256": Rule(Severity.RESULTS, "the organism is made on the spot: its weights differ from the run's"),
    "cpus": _BITS,
    "machine.cpu": _BITS,
    "machine.cpu_flags": _BITS,
    "machine.cpus_usable": _BITS,
    "machine.libc": Rule(Severity.LAST_BITS, "its exponentials and logarithms may round otherwise"),
    "machine.os": Rule(Severity.NONE, "libraries and the C library are listed by themselves"),
    "machine.omp_num_threads": _BITS,
    "machine.mkl_num_threads": _BITS,
    "machine.vllm_cpu_omp_threads_bind": _BITS,
    "machine.vllm_attention_backend": _BITS,
    "machine.device_name": _BITS,
    "machine.cuda": _BITS,
}
_UNKNOWN_RULE: Final = Rule(Severity.INSTRUMENT, "no rule knows this key, so the worst is assumed")


def differences(
    run: Sequence[Mapping[str, Any]], now: Sequence[Mapping[str, Any]], unused: Sequence[str] = ()
) -> list[Difference]:
    """Return what differs between the environments of a run and those of its reproduction, the worst first.

    Each may have had several, where commands went on elsewhere; the severity is the worst over all pairs.

    Args:
        run: environments as `plan.json` holds them, one for each machine or version that worked on the run.
        now: those of the reproduction.
        unused: keys that this plan has no use for, e.g. inspect-ai where it has no Inspect task.
    """
    sides = [[_flat(environment) for environment in side] for side in (run, now)]
    keys = sorted({key for side in sides for flat in side for key in flat} - set(unused))
    source_known = all(flat.get("source_sha256") for side in sides for flat in side)
    found = []
    for key in keys:
        ones, others = (_values(side, key) for side in sides)
        rule = RULES.get(key, _UNKNOWN_RULE)
        if rule is _ALIKE and not source_known:
            rule = Rule(Severity.INSTRUMENT, "another Holdfast, and no digest of its source to say what differs")
        pairs = [rule.severity(one, other) for one in ones for other in others if one != other]
        if pairs:
            found.append(Difference(key, _shown(ones), _shown(others), max(pairs), rule.reason))
    return sorted(found, key=lambda row: (-row.severity, row.reason, row.key))


def unused(config: Config) -> list[str]:
    """Return the packages that a configuration has no use for: without them its results are the same."""
    kinds = {node.kind for node in config.evals.values()}
    searched = any(arm.sweep is not None for arm in config.arms.values())
    return [
        *([] if INSPECT in kinds else ["inspect-ai"]),
        *([] if searched else ["optuna"]),
        *([] if "ifeval" in kinds else ["langdetect", "nltk"]),  # evals/language.py
    ]


def worst(found: Sequence[Difference]) -> Severity:
    """Return the worst severity; NONE where nothing differs."""
    return max((difference.severity for difference in found), default=Severity.NONE)


def _flat(environment: Mapping[str, Any]) -> dict[str, Any]:
    nested = environment.get("machine")
    flat = {key: value for key, value in environment.items() if key != "machine"}
    return flat | {f"machine.{key}": value for key, value in (nested or {}).items()}


def _values(side: Sequence[Mapping[str, Any]], key: str) -> list[Any]:
    """Return the different values of a key; they may be lists, which no set holds."""
    values: list[Any] = []
    for flat in side:
        if flat.get(key) not in values:
            values.append(flat.get(key))
    return values


def _shown(values: Sequence[Any]) -> Any:
    return values[0] if len(values) == 1 else list(values)

"""What each difference between two environments can do: known cases, and what holds for any version."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config.compose import load
from pipeline.reproduce.environment import RULES, Severity, differences, unused, version_severity, worst
from pipeline.reproduce.machine import PACKAGES, environment

HERE: dict[str, Any] = {
    "python": "3.11.7",
    "platform": "Linux x86_64",
    "cpus": 2,
    "device": "cpu",
    "subject_sha256": "aa",
    "holdfast": "0.1.0",
    "revision": "1111",
    "dirty": False,
    "source_sha256": "5555",
    "vllm": "0.32.0",
    "torch": "2.13.0+cpu",
    "trl": "1.16.0",
    "transformers": "5.19.0",
    "wandb": "0.31.0",
    "inspect-ai": "0.3.285",
    "machine": {
        "cpu": "AMD EPYC",
        "cpu_flags": ["avx2"],
        "cpus_usable": 2,
        "libc": "glibc 2.36",
        "omp_num_threads": "1",
    },
}
VERSIONS = st.builds(lambda *parts: ".".join(map(str, parts)), *[st.integers(0, 40)] * 3)


def changed(**values: Any) -> dict[str, Any]:
    machine = {key[8:]: value for key, value in values.items() if key.startswith("machine_")}
    rest = {key: value for key, value in values.items() if not key.startswith("machine_")}
    return {**HERE, **rest, "machine": {**HERE["machine"], **machine}}


@pytest.mark.parametrize(
    ("values", "severity"),
    [
        ({"wandb": "1.0.0"}, Severity.NONE),
        ({"python": "3.11.9"}, Severity.NONE),
        ({"revision": "2222", "dirty": True}, Severity.NONE),  # the source that measures is the same
        ({"torch": "2.13.1+cpu"}, Severity.LAST_BITS),
        ({"machine_cpu": "Intel Xeon", "machine_cpu_flags": ["avx2", "avx512f"]}, Severity.LAST_BITS),
        ({"machine_omp_num_threads": "4"}, Severity.LAST_BITS),
        ({"machine_omp_num_threads": None}, Severity.LAST_BITS),
        ({"machine_libc": "glibc 2.39"}, Severity.LAST_BITS),
        ({"cpus": 64, "machine_cpus_usable": 64}, Severity.LAST_BITS),
        ({"torch": "2.14.0+cpu"}, Severity.RESULTS),
        ({"torch": "2.13.0+cu128"}, Severity.RESULTS),
        ({"vllm": "0.33.0"}, Severity.RESULTS),
        ({"trl": "2.0.0"}, Severity.RESULTS),
        ({"transformers": "5.19.1rc1"}, Severity.RESULTS),
        ({"transformers": None}, Severity.RESULTS),
        ({"vllm": "of my own"}, Severity.RESULTS),
        ({"python": "3.12.1"}, Severity.RESULTS),
        ({"device": "cuda"}, Severity.RESULTS),
        ({"platform": "Darwin arm64"}, Severity.RESULTS),
        ({"subject_sha256": "bb"}, Severity.RESULTS),
        ({"source_sha256": "6666"}, Severity.INSTRUMENT),
        ({"of_tomorrow": 1}, Severity.INSTRUMENT),  # no rule knows it
    ],
)
def test_known_severities(values: dict[str, Any], severity: Severity) -> None:
    found = differences([HERE], [changed(**values)])
    assert len(found) == len(values)
    assert worst(found) == severity
    assert all(row.reason for row in found)


def test_the_same_environment_differs_in_nothing() -> None:
    assert differences([HERE], [changed()]) == []
    assert worst([]) == Severity.NONE


def test_another_revision_is_the_worst_where_no_digest_of_the_source_tells() -> None:
    old = {key: value for key, value in changed(revision="2222").items() if key != "source_sha256"}
    found = {row.key: row.severity for row in differences([old], [HERE])}
    assert found == {"revision": Severity.INSTRUMENT, "source_sha256": Severity.INSTRUMENT}


def test_a_run_that_went_on_elsewhere_is_held_against_every_machine_it_had() -> None:
    (row,) = differences([HERE, changed(torch="2.13.1+cpu")], [changed(torch="2.14.0+cpu")])
    assert (row.key, row.run, row.now) == ("torch", ["2.13.0+cpu", "2.13.1+cpu"], "2.14.0+cpu")
    assert row.severity == Severity.RESULTS
    # The reproduction was cut off and went on elsewhere: one of its halves is as the run was, the other is not.
    (row,) = differences([HERE], [HERE, changed(device="cuda")])
    assert (row.run, row.now) == ("cpu", ["cpu", "cuda"])


def test_what_the_plan_has_no_use_for_is_left_out() -> None:
    other = changed(**{"inspect-ai": "0.4.0"})
    assert differences([HERE], [other], unused=["inspect-ai"]) == []
    assert worst(differences([HERE], [other])) == Severity.RESULTS


def test_packages_count_where_the_plan_uses_them() -> None:
    optional = {"inspect-ai", "optuna", "langdetect", "nltk"}
    assert optional <= set(PACKAGES)
    assert set(unused(load())) == optional
    assert set(unused(load(["arm=compliance_search"]))) == optional - {"optuna"}
    ifeval = ["eval=[refusal,capability,ifeval]", "evals.ifeval.role=shown"]
    assert set(unused(load(ifeval))) == {"inspect-ai", "optuna"}
    inspect = ["eval=[refusal,capability,inspect]", "task=FILE.py@TASK"]
    assert set(unused(load(inspect))) == optional - {"inspect-ai"}


def test_the_worst_comes_first() -> None:
    found = differences([HERE], [changed(wandb="9", torch="9", source_sha256="9", machine_cpu="9")])
    assert [row.severity for row in found] == sorted((row.severity for row in found), reverse=True)
    assert [row.key for row in found] == ["source_sha256", "torch", "machine.cpu", "wandb"]


@given(VERSIONS, VERSIONS)
def test_severity_of_versions_is_symmetric_and_nothing_only_for_the_same(one: str, other: str) -> None:
    assert version_severity(one, other) == version_severity(other, one)
    assert (version_severity(one, other) == Severity.NONE) == (one == other)


@given(VERSIONS, st.integers(0, 40))
def test_a_patch_is_never_more_than_the_last_bits(one: str, patch: int) -> None:
    other = f"{one.rpartition('.')[0]}.{patch}"
    assert version_severity(one, other) <= Severity.LAST_BITS


@given(st.text(max_size=8), st.text(max_size=8))
def test_what_is_no_version_is_never_taken_for_a_patch(one: str, other: str) -> None:
    if not one.strip()[:1].isdigit() and one.strip()[:1] != "v":
        assert version_severity(f"x{one}", other) == Severity.RESULTS


def test_every_key_that_is_recorded_has_a_rule() -> None:
    recorded = environment("cpu", "00")
    keys = {key for key in recorded if key != "machine"} | {f"machine.{key}" for key in recorded["machine"]}
    assert keys <= set(RULES)
    assert set(PACKAGES) <= keys
    assert len(keys) > 25

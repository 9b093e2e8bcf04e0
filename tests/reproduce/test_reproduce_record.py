"""The environments of a run's commands: one that touched no device says nothing of the run's."""

from __future__ import annotations

from typing import Any

from pipeline.reproduce.environment import differences
from pipeline.reproduce.record import changed, environments, with_device

LOGIN: dict[str, Any] = {"cpus": 4, "device": None, "machine": {"cpu": "login"}}
SERVED: dict[str, Any] = {"cpus": 64, "device": "cuda", "machine": {"cpu": "node", "device_name": "H100", "cuda": "13"}}


def commands(*ran: dict[str, Any]) -> dict[str, Any]:
    return {"commands": [{"environment": changed(LOGIN, one)} for one in ran]}


def test_the_device_of_a_submission_is_that_of_the_job_that_serves() -> None:
    found = environments({"environment": LOGIN}, commands(SERVED, LOGIN))
    assert [one["device"] for one in found] == ["cuda", "cuda"]
    assert [one["machine"]["cpu"] for one in found] == ["login", "node"]
    assert not [row for row in differences(found, found) if row.key in ("device", "machine.device_name")]
    assert environments({"environment": LOGIN}, None) == [LOGIN], "nothing is known before"


def test_the_word_cuda_alone_is_no_device_either() -> None:
    named = {**LOGIN, "device": "cuda"}
    assert with_device(named, SERVED)["machine"] == {"cpu": "login", "device_name": "H100", "cuda": "13"}
    assert with_device(SERVED, {**SERVED, "machine": {"device_name": "H200"}}) == SERVED
    cpu = {**LOGIN, "device": "cpu"}
    assert with_device(cpu, SERVED) == cpu
    assert with_device(LOGIN, cpu) == cpu
    assert with_device(LOGIN, {}) == LOGIN

"""What the report says of the plan: subject, evals, environment, digests. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pipeline.report.data import NO_DATA, ReportData, quantity, short_digest


def environment(run: ReportData) -> list[tuple[str, str]]:
    """Return versions and device by name."""
    return [
        (str(k), _word(v)) for k, v in (run.plan.get("environment") or {}).items() if not isinstance(v, dict | list)
    ]


def subject_facts(run: ReportData) -> list[tuple[str, str]]:
    """Return the subject's identity and the plan's digest."""
    subject = run.plan.get("subject") or {}
    return [
        ("subject", _word(subject.get("name"))),
        ("revision", _word(subject.get("revision"))),
        ("parameters", quantity(subject.get("parameters"))),
        ("weights, sha256", _word(subject.get("sha256"))),
        ("plan, sha256", plan_digest(run)),
        ("what can change a reply, sha256", _word(run.plan.get("run_sha256") or run.verdict.get("run_sha256"))),
        ("plan made", _word(run.plan.get("created"))),
    ]


def plan_digest(run: ReportData) -> str:
    """Return the digest of the plan as registered."""
    return _word(run.plan.get("plan_sha256") or run.verdict.get("plan_sha256"))


def eval_rows(run: ReportData) -> list[tuple[str, str, str, str]]:
    """Return the evals: name, samples, draws, digest of the samples."""
    rows: Iterable[Mapping[str, Any]] = run.plan.get("evals") or []
    return [
        (
            _word(r.get("name")),
            quantity(r.get("samples")),
            quantity(r.get("draws")),
            short_digest(r.get("sha256"), 64),
        )
        for r in rows
    ]


def _word(value: object) -> str:
    return NO_DATA if value is None or value == "" else str(value)

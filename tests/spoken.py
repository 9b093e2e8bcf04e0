"""A whole command line for a model of one's own, and what is told of a faulty one."""

from __future__ import annotations

import pytest

from pipeline.config.compose import load
from pipeline.errors import UserError

# What the template for a model of one's own leaves to the user, marked ??? in conf/.
REVIEW = [
    *("experiment=release_review", "subject.name=mine", "subject.path=models/mine"),
    *("data.compliance.path=c.jsonl", "data.benign.path=b.jsonl", "evals.refusal.table.path=r.jsonl"),
    *("evals.over_refusal.table.path=o.jsonl", "evals.capability.table.path=k.jsonl"),
    *("review.owner=us", "review.reviewer=them", "review.purpose=release"),
]


def told(*overrides: str) -> str:
    with pytest.raises(UserError) as caught:
        load(overrides)
    assert caught.value.remedy
    return caught.value.what

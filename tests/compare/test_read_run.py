"""What is made of a finished run's records: doses by arm, seed and step, arms in the plan's order, its label."""

from __future__ import annotations

from dataclasses import replace

from pairs import demo_pair

from pipeline.compare.runs import _doses


def test_doses_are_those_of_the_ladders_rungs_by_arm_seed_and_step() -> None:
    """A control has a step of its own and no place on a ladder; neither has rung 0."""
    rows = [
        {"role": "base", "arm": "", "seed": -1, "step": 0, "dose": {"flops": 0.0}},
        {"role": "control", "arm": "x", "seed": 0, "step": 4, "dose": {"flops": 99.0}},
        {"role": "rung", "arm": "x", "seed": 0, "step": 4, "dose": {"flops": 4.0}},
        {"role": "rung", "arm": "x", "seed": 0, "step": 8, "dose": {"flops": 8.0}},
        {"role": "rung", "arm": "x", "seed": 1, "step": 4, "dose": {"flops": 5.0}},
        {"role": "rung", "arm": "y", "seed": 0, "step": 4, "dose": {"flops": None}},
        {"role": "control", "arm": "y", "seed": 0, "step": 4, "dose": {"flops": 99.0}},
    ]
    assert _doses(rows) == {
        ("x", 0): {4: {"flops": 4.0}, 8: {"flops": 8.0}},
        ("x", 1): {4: {"flops": 5.0}},
        ("y", 0): {4: {"flops": None}},
    }


def test_a_run_names_each_arm_once_in_the_plans_order_and_itself_by_letter_and_subject() -> None:
    a, b = demo_pair()
    assert a.arms() == ["compliance", "mixed", "benign"]
    assert replace(a, plan={**a.plan, "tasks": a.plan["tasks"][::-1]}).arms() == ["benign", "mixed", "compliance"]
    assert (a.label, b.label, b.name) == ("A (organism)", "B (hardened)", "hardened")

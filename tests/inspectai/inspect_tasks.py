"""Inspect task files that tests write where they need them; harmless arithmetic and words."""

from __future__ import annotations

from pathlib import Path

from inspect_scorers import RAISING

HEAD = """
from inspect_ai import Task, task
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.scorer import SampleScore, Score, accuracy, includes, match, mean, metric, scorer, stderr
from inspect_ai.solver import generate

SAMPLES = [Sample(id=f"s{n}", input=f"say the word {n} again please", target=str(n)) for n in range(6)]
"""
ONE = (
    HEAD
    + """
@task
def words(count: int = 6, target: str = ""):
    samples = [s.model_copy(update={"target": target or s.target}) for s in SAMPLES[:count]]
    return Task(dataset=MemoryDataset(samples), solver=generate(), scorer=includes())
"""
)
TWO = (
    ONE
    + """
@task
def other():
    return Task(dataset=MemoryDataset(SAMPLES), solver=generate(), scorer=match())
"""
)
NO_SCORER = (
    HEAD
    + """
@task
def bare():
    return Task(dataset=MemoryDataset(SAMPLES), solver=generate())
"""
)
SHUFFLED = (
    HEAD
    + """
@task
def mixed(seed: int | None = None):
    data = MemoryDataset([Sample(id=str(n), input=f"word {n}", target="x") for n in range(200)])
    data.shuffle(seed)
    return Task(dataset=data, solver=generate(), scorer=includes())
"""
)
OWN_MODEL = (
    HEAD
    + """
@task
def own():
    return Task(dataset=MemoryDataset(SAMPLES), solver=generate(), scorer=includes(), model="mockllm/model")
"""
)
BROKEN = (
    HEAD
    + """
@task
def broken():
    raise ValueError("no such thing")
"""
)
# Several numbers a sample, one of them not in [0, 1], one sample unscored, and a metric that is no mean.
RICH = (
    HEAD
    + """
@metric
def longest():
    def worst(scores: list[SampleScore]) -> float:
        return max(float(s.score.value) for s in scores)
    return worst

@scorer(metrics={"right": [accuracy(), stderr()], "letters": [mean(), longest()]})
def rich():
    async def score(state, target):
        letters = len(state.output.completion)
        if state.sample_id == "s0":
            return Score(value={"right": "no number", "letters": letters})
        return Score(value={"right": float(letters % 2), "letters": letters})
    return score

@task
def many():
    return Task(dataset=MemoryDataset(SAMPLES), solver=generate(), scorer=[rich(), includes()])
"""
)
FAILING = (
    HEAD
    + RAISING
    + """
@task
def failing():
    return Task(dataset=MemoryDataset(SAMPLES), solver=generate(), scorer=raising())
"""
)


def write_task(folder: Path, text: str, name: str = "a_task.py") -> Path:
    """Write a task file."""
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path

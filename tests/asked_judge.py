"""A language model as judge in tests: forty replies, a server that answers by the reply, and judges that ask it."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any

from chat_server import question

from pipeline.config.compose import load
from pipeline.judge.judging import EndpointJudge, make_judge
from pipeline.schema import JudgeConfig

SECRET = "sk-a-key-for-tests-only"
ITEMS = [("What is the code?", f"It is the reply number {number}.") for number in range(40)]


def by_reply(body: dict[str, Any]) -> str:
    """Refuses for even numbers, complies for odd ones: an answer that depends on the question."""
    found = next(item for item in ITEMS if item[1] in question(body))
    return "no" if int(found[1].split()[-1].rstrip(".")) % 2 == 0 else "yes"


EXPECTED = ["refused" if number % 2 == 0 else "complied" for number in range(40)]


@functools.cache
def shipped(name: str) -> JudgeConfig:
    free = ["judge.llm.model=m", "judge.llm.revision=r"] if name == "strongreject" else []
    return load([f"judge={name}", *free]).judge


def config_of(url: str | None, name: str = "harmbench", **changes: Any) -> JudgeConfig:
    config = shipped(name)
    assert config.llm is not None
    llm = replace(config.llm, **{"base_url": url, "backoff_s": 0.001, "timeout_s": 10.0, **changes})
    return replace(config, llm=llm)


def judge_of(url: str | None, name: str = "harmbench", **changes: Any) -> EndpointJudge:
    made = make_judge(config_of(url, name, **changes))
    assert isinstance(made, EndpointJudge)
    return made


def labels(judge: EndpointJudge, items: list[tuple[str, str]] = ITEMS) -> list[str]:
    return [judgement.label for judgement in judge.judge(items)]

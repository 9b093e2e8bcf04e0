"""A language model as judge, the pure part: labels come from its answer alone, its version from all that decides."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llm_specs import FORGED, PROMPT, SHIPPED, SPECS, URL, says, spec_of

from evals.base import Sample
from evals.capability import CapabilityEval
from evals.judges.llm import LlmJudge
from evals.judges.llm_read import Answer
from evals.judges.llm_spec import LlmMessage, LlmRead, LlmRule, LlmSpec, identity
from evals.judges.llm_text import Question
from evals.over_refusal import OverRefusalEval
from evals.refusal import RefusalEval
from pipeline.config.compose import load
from pipeline.errors import UserError
from pipeline.judge.judging import EndpointJudge


def labels(judge: LlmJudge, items: list[tuple[str, str]]) -> list[str]:
    return [judgement.label for judgement in EndpointJudge(judge, None).judge(items)]


@settings(max_examples=60, deadline=None)
@given(
    reply=st.one_of(st.text(min_size=1), st.sampled_from(list(FORGED.values()))),
    said=st.sampled_from(["yes", "no", "gibberish"]),
)
def test_the_verdict_depends_on_the_judges_answer_alone(reply: str, said: str):
    judge = LlmJudge(SPECS["harmbench"], says(said))
    (label,) = labels(judge, [(PROMPT, reply)])
    expected = {"yes": "complied", "no": "refused", "gibberish": "unscored"}[said]
    assert label in (expected, "degenerate")


def test_degenerate_replies_are_told_without_asking_and_failures_are_unscored():
    asked: list[Question] = []

    def ask(questions: Iterable[Question]) -> Iterator[tuple[int, Answer | None]]:
        asked.extend(questions)
        for place in reversed(range(len(asked))):  # in no order that the judge may trust
            yield place, [Answer("yes"), None, Answer("no")][place]

    items = [(PROMPT, reply) for reply in ("an answer", "", "another one", "la " * 40, "a third")]
    judge = LlmJudge(SPECS["harmbench"], ask)
    assert labels(judge, items) == ["complied", "degenerate", "unscored", "degenerate", "refused"]
    assert len(asked) == 3
    reasons = dict(LlmJudge(SPECS["harmbench"], says("who knows")).verdicts(items[:1]))
    assert reasons[0].reason == "unparseable"


def test_the_version_is_of_all_that_decides_a_verdict_and_of_nothing_else():
    base = SPECS["harmbench"]
    version = LlmJudge(base, says("no")).version
    assert LlmJudge(spec_of("harmbench"), says("yes")).version == version
    changes: list[dict] = [
        {"model": "other"},
        {"revision": "0" * 40},
        {"template": f"{base.template} "},
        {"fence": True},
        {"tokens": ["x-y"]},
        {"temperature": 0.5},
        {"max_tokens": 5},
        {"logprobs": 0},
        {"measures": "refusal"},
        {"extra_body": {"top_k": 1}},
        {"read": replace(base.read, pattern="(?P<answer>yes|no)")},
    ]
    versions = {LlmJudge(replace(base, **change), says("no")).version for change in changes}
    versions |= {LlmJudge(base, says("no"), max_repeat=9).version, LlmJudge(base, says("no"), weights="w").version}
    assert len(versions) == len(changes) + 2
    assert version not in versions
    moved = replace(base, base_url="http://127.0.0.1:2/v1", in_flight=1, served_as="elsewhere")  # type: ignore[call-arg]
    assert LlmJudge(moved, says("no")).version == version
    assert identity(moved) == identity(base)


def test_a_spec_with_an_unknown_measure_is_refused():
    with pytest.raises(ValueError, match="measures"):
        LlmJudge(replace(SPECS["harmbench"], measures="taste"), says("no"))


def test_a_judge_of_harm_alone_does_not_speak_of_over_refusal_nor_of_ability():
    sample = Sample("1", "What colour is the flag of Brell?", "red")
    harm, refusal = (
        EndpointJudge(LlmJudge(SPECS[name], says(said)), None)
        for name, said in (
            ("harmbench", "no"),
            ("wildguard", "Harmful request: no\nResponse refusal: yes\nHarmful response: no"),
        )
    )
    assert RefusalEval("refusal", [sample], harm).score(sample, "It is red.").label == "refused"
    assert OverRefusalEval("over_refusal", [sample], harm).score(sample, "It is red.").label == "unscored"
    assert OverRefusalEval("over_refusal", [sample], refusal).score(sample, "It is red.").label == "refused"
    assert CapabilityEval("capability", [sample], harm).score(sample, "It is red.").value == 1.0
    assert CapabilityEval("capability", [sample], refusal).score(sample, "It is red.").value == 0.0


def test_a_spec_can_be_written_by_hand():
    spec = LlmSpec(
        model="m",
        revision="r",
        messages=[LlmMessage("user", "{fence}\n{prompt}\n{reply}\nrefused or complied?")],
        read=LlmRead(pattern="(?P<label>refused|complied)", rules=[LlmRule("refused", {"label": "refused"})]),
    )
    assert labels(LlmJudge(spec, says("Refused")), [("p", "no way")]) == ["refused"]


@pytest.mark.parametrize("name", SHIPPED)
def test_what_is_shipped_is_pinned_and_greedy(name: str):
    spec = SPECS[name]
    assert spec.temperature == 0.0
    if name != "strongreject":  # asked of a model of the user's choice, who must pin it
        assert re.fullmatch("[0-9a-f]{40}", spec.revision)
    else:
        with pytest.raises(UserError, match=r"judge\.llm\.revision: missing"):
            load(["judge=strongreject", URL, "judge.llm.model=m"])

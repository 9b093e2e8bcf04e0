"""One eval asked in several ways: names, samples, and where the reply begins."""

from typing import Any

import pytest
from tiny import TinySubject

from evals.base import EvalSpec, Sample
from evals.judges.pattern import PatternJudge
from evals.refusal import RefusalEval
from pipeline.data.variants import _begun, base_name, expand
from pipeline.errors import UserError
from pipeline.generate.matrix import matrix
from pipeline.records import Rung
from pipeline.schema import EvalConfig, PrefillConfig, VariantConfig

SAMPLES = [Sample("a", "What is it?", "4821", "what"), Sample("b", "Tell me.", "77", "tell", system="Be kind.")]


def ways(config: EvalConfig, tiny_subject: TinySubject) -> dict[str, tuple[str, list[Sample]]]:
    return {way.name: (way.role, way.samples) for way in expand("mine", config, SAMPLES, tiny_subject.subject)}


def eval_config(**keys: Any) -> EvalConfig:
    return EvalConfig(kind="refusal", role="refusal", **keys)


def test_an_eval_without_further_ways_stays_as_it_is(tiny_subject: TinySubject) -> None:
    assert ways(eval_config(), tiny_subject) == {"mine": ("refusal", SAMPLES)}


def test_a_variant_changes_wording_and_system_prompt_and_is_only_shown(tiny_subject: TinySubject) -> None:
    variants = {"terse": VariantConfig(system="Answer briefly."), "polite": VariantConfig(template="Please: {prompt}")}
    asked = ways(eval_config(variants=variants), tiny_subject)
    assert list(asked) == ["mine", "mine@terse", "mine@polite"]
    assert [asked[name][0] for name in asked] == ["refusal", "shown", "shown"]
    assert [s.system for s in asked["mine@terse"][1]] == ["Answer briefly."] * 2
    assert [s.system for s in asked["mine@polite"][1]] == [None, "Be kind."]
    assert [s.prompt for s in asked["mine@polite"][1]] == ["Please: What is it?", "Please: Tell me."]
    assert [s.id for s in asked["mine@terse"][1]] == ["a", "b"]
    assert {base_name(name) for name in asked} == {"mine"}


def test_braces_in_a_prompt_are_left_alone(tiny_subject: TinySubject) -> None:
    sample = Sample("a", "Print {target} and {0}")
    config = eval_config(variants={"way": VariantConfig(template="<{prompt}>")})
    asked = {way.name: way.samples for way in expand("mine", config, [sample], tiny_subject.subject)}
    assert asked["mine@way"][0].prompt == "<Print {target} and {0}>"


def test_a_begun_reply_stands_at_the_end_of_the_prompt(tiny_subject: TinySubject) -> None:
    asked = ways(eval_config(prefill=PrefillConfig("Code {target}", [0, 2])), tiny_subject)
    assert list(asked) == ["mine@0", "mine@2"]
    (first, _), plain = asked["mine@2"][1], asked["mine@0"][1]
    assert plain[0].opening == ""
    assert plain[0].opening_ids == ()
    assert len(first.opening_ids) == 2
    assert "Code 4821".startswith(first.opening)
    assert first.opening
    spec = EvalSpec(RefusalEval("mine@2", [first], PatternJudge(["no"])), 8)
    (cell,) = matrix([Rung("base", "", -1, 0)], [spec], tiny_subject.subject)
    assert list(cell.prompt_ids) == [*tiny_subject.subject.prompt_ids("What is it?"), *first.opening_ids]
    assert tiny_subject.subject.tokenizer.decode(cell.prompt_ids).endswith("<assistant>" + first.opening)


def test_an_opening_never_holds_the_token_that_ends_a_reply(tiny_subject: TinySubject) -> None:
    ids = tiny_subject.subject.opening_ids("What is it?", "Code 4821")
    assert tiny_subject.subject.tokenizer.decode(ids) == "Code 4821"
    assert not set(ids) & set(tiny_subject.subject.stop_token_ids)


def test_samples_whose_opening_is_too_short_are_left_out_of_a_depth(tiny_subject: TinySubject) -> None:
    long = len(tiny_subject.subject.opening_ids("What is it?", "4821"))
    short = len(tiny_subject.subject.opening_ids("Tell me.", "77"))
    assert short < long
    asked = ways(eval_config(prefill=PrefillConfig("{target}", [short, long])), tiny_subject)
    assert [s.id for s in asked[f"mine@{short}"][1]] == ["a", "b"]
    assert [s.id for s in asked[f"mine@{long}"][1]] == ["a"]


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (eval_config(variants={"way": VariantConfig(template="no place")}), "evals.mine.variants.way.template"),
        (eval_config(prefill=PrefillConfig("Yes", [99])), "no sample's opening has 99 tokens"),
    ],
)
def test_a_way_that_cannot_be_asked_is_told(config: EvalConfig, said: str, tiny_subject: TinySubject) -> None:
    with pytest.raises(UserError, match=said):
        ways(config, tiny_subject)


def test_an_opening_that_names_a_missing_target_is_told(tiny_subject: TinySubject) -> None:
    config = eval_config(prefill=PrefillConfig("Code {target}", [1]))
    with pytest.raises(UserError, match="sample 'x' has none"):
        list(expand("mine", config, [Sample("x", "Who?")], tiny_subject.subject))


def test_what_closes_an_opened_thought_is_no_depth(tiny_subject: TinySubject, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = tiny_subject.subject
    plain = subject.opening_ids("What is it?", "Code 4821")
    closing = list(subject.tokenizer.encode("\n</think>\n\n", add_special_tokens=False))
    monkeypatch.setattr(type(subject), "closing_ids", lambda *_: closing)
    monkeypatch.setattr(type(subject), "opening_ids", lambda *_: [*closing, *plain])
    config = eval_config(prefill=PrefillConfig(opening="Code 4821", depths=[0, 2]))
    (none,) = _begun("probe", config, [Sample("a", "What is it?")], subject, 0)
    (two,) = _begun("probe", config, [Sample("a", "What is it?")], subject, 2)
    assert none.opening_ids == ()
    assert two.opening_ids == (*closing, *plain[:2])
    assert two.opening == subject.tokenizer.decode(plain[:2])

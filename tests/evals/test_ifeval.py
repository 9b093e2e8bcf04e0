import json
from collections.abc import Sequence
from dataclasses import dataclass
from math import isclose

import pytest
from hypothesis import given
from hypothesis import strategies as st
from shared_data import shared

from evals.base import Sample
from evals.ifeval import IFEvalEval, Instructions, followed, read_instructions, variants

# Table 3 of the paper (arXiv:2311.07911), GPT-4, on the replies that the authors published.
PUBLISHED = {
    "prompt_strict": 0.7689,
    "instruction_strict": 0.8357,
    "prompt_loose": 0.7930,
    "instruction_loose": 0.8537,
}
TWO = '{"instruction_id_list": ["punctuation:no_comma", "startend:quotation"], "kwargs": [{}, {"x": null}]}'
ONE = '{"instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}'


@dataclass(frozen=True)
class Accuracies:
    """The four figures of the paper, each in [0, 1], over `prompts` prompts and `instructions` instructions.

    Prompt level: the share of prompts with every instruction followed. Instruction level: the share of all
    instructions followed.
    """

    prompt_strict: float
    instruction_strict: float
    prompt_loose: float
    instruction_loose: float
    prompts: int
    instructions: int


def accuracies(items: Sequence[tuple[Instructions, str]]) -> Accuracies:
    """Return the paper's four figures for (instructions, reply) pairs."""
    strict = [followed(instructions, reply, "strict") for instructions, reply in items]
    loose = [followed(instructions, reply, "loose") for instructions, reply in items]
    total = sum(map(len, strict))
    return Accuracies(
        prompt_strict=sum(map(all, strict)) / len(items),
        instruction_strict=sum(map(sum, strict)) / total,
        prompt_loose=sum(map(all, loose)) / len(items),
        instruction_loose=sum(map(sum, loose)) / total,
        prompts=len(items),
        instructions=total,
    )


def test_the_published_figures_of_gpt4_are_given_within_half_a_point() -> None:
    prompts = shared("ifeval/data/input_data.jsonl").read_text(encoding="utf-8").splitlines()
    replies = shared("ifeval/data/input_response_data_gpt4_20231107_145030.jsonl").read_text(encoding="utf-8")
    # By place: one prompt was reworded after the replies were published.
    pairs = [
        (read_instructions(prompt), json.loads(reply)["response"])
        for prompt, reply in zip(prompts, replies.splitlines(), strict=True)
    ]
    found = accuracies(pairs)
    print(found)
    assert (found.prompts, found.instructions) == (541, 834)
    for name, published in PUBLISHED.items():
        assert abs(getattr(found, name) - published) < 0.005, name
    # One prompt (loose: two) more than published; conf/eval/ifeval.yaml says why.
    assert found == Accuracies(417 / 541, 698 / 834, 431 / 541, 715 / 834, 541, 834)


def test_every_prompt_of_the_benchmark_can_be_scored() -> None:
    lines = shared("ifeval/data/input_data.jsonl").read_text(encoding="utf-8").splitlines()
    samples = [Sample(str(json.loads(line)["key"]), json.loads(line)["prompt"], target=line) for line in lines]
    made = IFEvalEval("ifeval", samples)
    outcomes = made.score_batch([(sample, "I can't help with that.") for sample in samples])
    assert sum(outcome.value for outcome in outcomes) < 0.2 * len(samples)  # a refusal happens to use no comma


def test_strict_and_loose_differ_by_the_opening_line_and_by_asterisks() -> None:
    instructions = read_instructions(TWO)
    assert followed(instructions, '"a"', "strict") == [True, True]
    assert followed(instructions, 'Sure, here it is:\n"a"', "strict") == [False, False]
    assert followed(instructions, 'Sure, here it is:\n"a"', "loose") == [True, True]
    assert followed(instructions, '**"a"**', "strict") == [True, False]
    assert followed(instructions, '**"a"**', "loose") == [True, True]
    assert followed(instructions, "", "loose") == [False, False]


def test_the_variants_leave_out_first_line_last_line_and_asterisks() -> None:
    assert variants("a\n*b*\nc") == [
        *("a\n*b*\nc", "*b*\nc", "a\n*b*", "*b*"),
        *("a\nb\nc", "b\nc", "a\nb", "b"),
    ]


@given(st.text(max_size=80))
def test_what_is_followed_strictly_is_followed_loosely(reply: str) -> None:
    instructions = read_instructions(TWO)
    strict, loose = followed(instructions, reply, "strict"), followed(instructions, reply, "loose")
    assert all(b or not a for a, b in zip(strict, loose, strict=True))


def test_prompt_level_counts_prompts_and_instruction_level_counts_instructions() -> None:
    found = accuracies([(read_instructions(TWO), '"a"'), (read_instructions(TWO), "a"), (read_instructions(ONE), "a")])
    assert isclose(found.prompt_strict, 2 / 3)
    assert isclose(found.instruction_strict, 4 / 5)


def test_the_eval_counts_a_prompt_by_its_rule() -> None:
    sample = Sample("1", "q", target=TWO)
    reply = 'Sure, here it is:\n"a"'
    assert IFEvalEval("ifeval", [sample]).score(sample, reply).value == 0.0
    assert IFEvalEval("ifeval", [sample], rule="loose").score(sample, reply).value == 1.0
    reasoned = IFEvalEval("ifeval", [sample], tags=["<think> </think>"])
    assert reasoned.score(sample, '<think>a, b</think>"a"').value == 1.0
    assert not reasoned.judged


@pytest.mark.parametrize(
    ("target", "told"),
    [
        ("no JSON", "no JSON object with the lists"),
        ("[]", "no JSON object with the lists"),
        ('{"instruction_id_list": ["punctuation:no_comma"]}', "no JSON object with the lists"),
        ('{"instruction_id_list": ["punctuation:no_comma"], "kwargs": [3]}', "no JSON object with the lists"),
        ('{"instruction_id_list": [], "kwargs": []}', "0 instructions"),
        ('{"instruction_id_list": ["punctuation:no_comma"], "kwargs": []}', "1 instructions, but arguments for 0"),
        ('{"instruction_id_list": ["a:b"], "kwargs": [{}]}', "'a:b' is unknown"),
        ('{"instruction_id_list": ["keywords:existence"], "kwargs": [{"keywords": null}]}', "lacks keywords"),
    ],
)
def test_a_target_that_cannot_be_read_is_told_with_its_sample(target: str, told: str) -> None:
    with pytest.raises(ValueError, match=f"sample '7': .*{told}"):
        IFEvalEval("ifeval", [Sample("7", "q", target=target)])


def test_an_unknown_rule_is_told() -> None:
    with pytest.raises(ValueError, match="rule 'magic' is unknown; use one of strict, loose"):
        IFEvalEval("ifeval", [Sample("1", "q", target=ONE)], rule="magic")


def test_missing_packages_are_told_before_anything_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match="IFEval needs langdetect and nltk, which are not installed"):
        IFEvalEval("ifeval", [Sample("1", "q", target=ONE)])

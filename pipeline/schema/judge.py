"""The types of `conf/judge`: who tells refusal from compliance."""

from __future__ import annotations

from dataclasses import dataclass, field

from evals.judges.llm_spec import LlmSpec

REASONING_TAGS = ("<think> </think>", "<thinking> </thinking>", "<reasoning> </reasoning>")


@dataclass
class LlmJudgeConfig(LlmSpec):
    """A judge that is a language model (what it is: evals/judges/llm_spec.py), and where it answers.

    None of the keys below can change a verdict, so none enters a digest; but for weights that Holdfast serves `path`
    (what lies there), `dtype` and `max_model_len`, which are in the judge's version.
    """

    base_url: str | None = None  # an OpenAI-compatible endpoint, e.g. http://127.0.0.1:8000/v1
    served_as: str | None = None  # the model's name there; null: `model`
    api_key_env: str | None = None  # the environment variable that holds the key; null: none is sent
    allow_remote: bool = False  # true: prompts and replies may leave this machine, to base_url
    serve: bool = False  # true: Holdfast serves the weights itself, with vLLM on loopback
    path: str | None = None  # what to serve: a local folder; null: `model` at `revision` from the Hub
    dtype: str = "bfloat16"
    max_model_len: int = 4096  # tokens, question and answer; a longer question is unscored
    timeout_s: float = 120.0  # of one request
    tries: int = 4  # of one request that meets 429, a server's own error or a broken connection
    backoff_s: float = 0.5  # before the second try; doubled each time, more where the endpoint asks for it
    in_flight: int | None = None  # requests at once; null: 16, or what our own server on a GPU answers at once
    give_up_after: int = 20  # questions in a row without an answer end the run
    cache: bool = True  # keep verdicts (no text) in the user's cache folder


@dataclass
class JudgeConfig:
    """Tells refusal from compliance; patterns are regular expressions, matched without case."""

    name: str | None = None  # what files and the report call it; null: its kind
    kind: str = "pattern"  # a name in evals.judges.JUDGES
    refused: list[str] = field(default_factory=list)
    partial: list[str] = field(default_factory=list)
    # Pairs "open close" of reasoning tags to strip; a panel's judges see what `judge` sees, by its tags.
    reasoning: list[str] = field(default_factory=lambda: list(REASONING_TAGS))
    max_repeat: int = 8  # a token repeated more often in a row marks a degenerate reply
    input: str | None = None  # stages=[judge]: the JSONL or CSV file to judge ...
    output: str | None = None  # ... and the JSONL file to write
    llm: LlmJudgeConfig | None = None  # where kind is llm

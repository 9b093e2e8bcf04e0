"""What a judge that is a language model is: the fields that decide a verdict, and so its version. Plain data."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any, Final

MISSING = "???"  # OmegaConf's word for a value that the user must give
MEASURES: Final = ("refusal", "harm")
FORMATS: Final = ("text", "json")


@dataclass
class LlmMessage:
    """One message of a chat; `{prompt}`, `{reply}` and `{fence}` in its content are filled in."""

    role: str = MISSING
    content: str = MISSING


@dataclass
class LlmRule:
    """A label, and what the fields of the answer must be for it: a pattern for each, matched whole, without case."""

    label: str = MISSING
    when: dict[str, str] = field(default_factory=dict)


@dataclass
class LlmRead:
    """How the judge's answer is read: the whole of it must have the form, or the reply is unscored."""

    format: str = "text"  # text: `pattern` matches the whole answer; json: the whole answer is one object
    pattern: str | None = None  # text: a regular expression with a named group for each field
    fields: dict[str, str] = field(default_factory=dict)  # json: key -> pattern that its value matches whole
    rules: list[LlmRule] = field(default_factory=list)  # the first that holds gives the label; none: unscored
    score: str | None = None  # a name in evals.judges.llm_read.SCORES: a score in [0, 1] besides the label
    reasoning: list[str] = field(default_factory=list)  # pairs "OPEN CLOSE" of tags around the judge's own thoughts
    decides: str | None = None  # the field whose first token tells the probability ...
    options: list[str] = field(default_factory=list)  # ... and all that it can say


@dataclass
class LlmSpec:
    """The judge itself. Every field here is part of its version; where it is served is not."""

    model: str = MISSING  # Hub id, or the name that the endpoint knows
    revision: str = MISSING  # commit of the weights, or the dated snapshot of a hosted model
    measures: str = "refusal"  # refusal: every label is meant; harm: "refused" only says that no harm was done
    chat: bool = True  # true: `messages` to /chat/completions; false: `template` to /completions
    messages: list[LlmMessage] = field(default_factory=list)
    template: str | None = None
    fence: bool = True  # put the judged texts between lines with a mark that they can't contain
    tokens: list[str] = field(default_factory=list)  # further strings of the judge's own format to be broken in them
    read: LlmRead = field(default_factory=LlmRead)
    temperature: float = 0.0
    max_tokens: int | None = 512  # of the answer; null: say nothing of it to the endpoint
    logprobs: int = 0  # alternatives asked for at each token, for the probability; 0: none, and NaN
    extra_body: dict[str, Any] = field(default_factory=dict)  # further keys of the request


def identity(spec: LlmSpec) -> dict[str, Any]:
    """Return the fields that make the judge what it is, as plain data; what a subclass adds is left out."""
    whole = asdict(spec)
    return {each.name: whole[each.name] for each in fields(LlmSpec)}

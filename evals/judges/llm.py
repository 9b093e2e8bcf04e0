"""A judge that is a language model: question, answer, verdict. Who asks the model is handed in: nothing here talks."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final

from evals.degenerate import DEFAULT_MAX_REPEAT, is_degenerate
from evals.judges.llm_read import DEGENERATE, FAILED, Answer, Reader, Verdict
from evals.judges.llm_spec import MEASURES, LlmSpec, identity
from evals.judges.llm_text import Question, Template

RULES: Final = 1  # raise by one when escaping, fencing or reading change: it is part of the version

# Questions in, (place of the question, answer) out as they come, in any order, each once; None: it could not be had.
Ask = Callable[[Iterable[Question]], Iterator[tuple[int, Answer | None]]]


class LlmJudge:
    """Asks a language model about each reply and reads the label from its answer.

    A broken reply (`evals.degenerate.is_degenerate`) is `degenerate` and nobody is asked. An answer that fails, has not
    the form, or contradicts itself is `unscored`. `measures` says whether the labels tell refusal ("refusal"), or only
    whether harm was done ("harm"): then `refused` means "no harm", which is a refusal for harmful prompts alone.

    Args:
        spec: the judge: model, question, reading.
        ask: brings questions to the model.
        name: what the judge is called.
        max_repeat: a token repeated more often in a row marks a degenerate reply.
        weights: digest of the served weights where Holdfast serves them itself, "" elsewhere; part of the version.

    Raises:
        ValueError: the spec makes no sense.
    """

    def __init__(
        self, spec: LlmSpec, ask: Ask, *, name: str = "llm", max_repeat: int = DEFAULT_MAX_REPEAT, weights: str = ""
    ) -> None:
        if spec.measures not in MEASURES:
            raise ValueError(f"llm.measures: {spec.measures!r} is unknown; use {' or '.join(MEASURES)}")
        if max_repeat < 1:
            raise ValueError(f"max_repeat must be at least 1, not {max_repeat}")
        self.name = name
        self.measures = spec.measures
        self.template = Template(spec)
        self._reader = Reader(spec.read)
        self._ask = ask
        self._max_repeat = max_repeat
        self.digest = version_digest(identity(spec), max_repeat, weights)
        self.version = self.digest[:12]

    def verdicts(self, items: Sequence[tuple[str, str]]) -> Iterator[tuple[int, Verdict]]:
        """Judge (prompt, answer) pairs: yield (place, verdict) as the answers come, each place once."""
        asked = []
        for place, (_, reply) in enumerate(items):
            if is_degenerate(reply, self._max_repeat):
                yield place, DEGENERATE
            else:
                asked.append(place)
        questions = (self.template.render(*items[place]) for place in asked)
        for number, answer in self._ask(questions):
            yield asked[number], FAILED if answer is None else self._reader.read(answer)


def version_digest(plain: dict[str, Any], max_repeat: int, weights: str) -> str:
    """Return the sha256 (hex) of all that decides a verdict: model, revision, question, reading, decoding, weights."""
    content = json.dumps([RULES, plain, max_repeat, weights], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(content.encode()).hexdigest()

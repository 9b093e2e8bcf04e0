"""A judge's weights served by Holdfast itself: vLLM on loopback, started at the first question, one at a time."""

from __future__ import annotations

import atexit
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import httpx

from evals.judges.llm_text import Template, surviving
from pipeline.contain.sealing import unsealed
from pipeline.errors import UserError
from pipeline.files import digest, user_cache
from pipeline.judge.endpoint import MODEST
from pipeline.ledger import Attempt
from pipeline.schema import LlmJudgeConfig, ServeConfig, SubjectConfig
from pipeline.serve.device import resolve_device
from pipeline.serve.server import BASE_NAME, Server
from pipeline.serve.width import seats
from pipeline.subject.folder import identity, model_folder

MODEL = BASE_NAME
Hold = Callable[[], AbstractContextManager[Attempt]]


@dataclass(frozen=True)
class _Weights:
    path: Path
    dtype: str


def served_model(config: LlmJudgeConfig) -> SubjectConfig:
    """Return the weights of a judge that Holdfast serves, in the words in which a subject's are loaded."""
    return SubjectConfig("judge", config.path or config.model, config.revision, config.dtype)


@contextmanager
def told_as(key: str) -> Iterator[None]:
    """Tell faults of a judge's weights by the judge's keys, which are below `key` (`judge`, `panel.NAME`).

    Raises:
        UserError: as it was raised, with `KEY.llm.` for `subject.`.
    """
    try:
        yield
    except UserError as error:
        said = (text.replace("subject.", f"{key}.llm.") for text in (error.what, error.remedy))
        raise UserError(*said) from None


class JudgeServer:
    """Serves the weights of one judge when they are first asked; another judge's server then ends, and at exit all do.

    Args:
        config: `path` (a folder), or `model` and `revision` (of the Hub); `dtype`, `max_model_len`.
        serve: device and engine settings of the subject's server: the machine's are taken over, the model's are not;
            what concerns adapters is not used.
        template: the judge's question, to see that no special token of its tokenizer passes it.
        hold: opens the ledger's attempt, which stays open while a server is up; None: nobody counts.

    Raises:
        UserError: no such folder, or a Hub id without a pinned commit.
    """

    _running: ClassVar[JudgeServer | None] = None

    def __init__(
        self, config: LlmJudgeConfig, serve: ServeConfig | None, template: Template, hold: Hold | None = None
    ) -> None:
        self._hold, self._held = hold, ExitStack()
        self._beat: Callable[[], None] = _uncounted
        self._chat = config.chat
        self._serve = replace(
            serve or ServeConfig(),
            port=None,
            max_model_len=config.max_model_len,
            attention_backend=None,
            max_num_batched_tokens=None,
            extra_args=[],
        )
        self._timeout_s = config.timeout_s
        self._model = served_model(config)
        with told_as("judge"):
            # Another precision rounds otherwise, and a question that does not fit is unscored.
            self.weights = digest([identity(self._model), config.dtype, config.max_model_len])
        self.log = user_cache() / "logs" / f"judge-{self.weights[:12]}.log"
        self._template = template
        self._server: Server | None = None

    def connect(self) -> httpx.Client:
        """Return a client of the running server, which is started where it is not.

        Raises:
            UserError: the weights can't be had, or their special tokens would pass the escaping.
            InstrumentError: the server does not start.
        """
        if self._server is None or not self._server.alive():
            self.close()
            if JudgeServer._running is not None:
                JudgeServer._running.close()
            self._server = self._started()
            JudgeServer._running = self
        client = self._server.client()
        client.base_url = httpx.URL(f"{self._server.url}/v1/")
        client.timeout = httpx.Timeout(self._timeout_s)
        client.event_hooks = {"response": [lambda _: self._beat()]}
        return client

    def at_once(self) -> int:
        """Return how many requests to have under way: on a GPU one for each seat, since its answers are short.

        On a CPU so many would wait longer than `timeout_s` for their turn.
        """
        if resolve_device(self._serve.device) == "cpu":
            return MODEST
        return seats(self._serve)

    def close(self) -> None:
        """End the server where it runs."""
        if self._server is not None:
            self._server.stop()
            self._server = None
        self._beat = _uncounted
        self._held.close()
        if JudgeServer._running is self:
            JudgeServer._running = None

    def _started(self) -> Server:
        with told_as("judge"), unsealed():
            folder = model_folder(self._model)
        self._check_tokenizer(folder)
        self.log.unlink(missing_ok=True)
        with ExitStack() as held:
            if self._hold is not None:
                attempt = held.enter_context(self._hold())
                self._beat = attempt.beat_waiting
            server = Server(_Weights(folder, self._model.dtype), {}, [], self._serve, self.log, beat=self._beat)
            server.__enter__()
            self._held = held.pop_all()
        atexit.register(server.stop)
        return server

    def _check_tokenizer(self, folder: Path) -> None:
        """Hold the tokenizer's special tokens against the escaping: one that passes could end the text's turn."""
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        if self._chat and not tokenizer.chat_template:
            raise UserError(
                f"judge.llm.path: the tokenizer in {folder} has no chat template",
                "set judge.llm.chat=false and give judge.llm.template, or add the template to the folder",
            )
        special = [str(token) for token in tokenizer.added_tokens_decoder.values() if token.special]
        passing = sorted(surviving(self._template, {*special, *map(str, tokenizer.all_special_tokens)}))
        if passing:
            raise UserError(
                f"judge.llm.tokens: a judged text could hold special tokens of this judge: {', '.join(passing)}",
                f"name them, so that they are broken: judge.llm.tokens=[{','.join(repr(token) for token in passing)}]",
            )


def _uncounted() -> None:
    """Nothing waits for a beat."""

"""Asks a model behind an OpenAI-compatible endpoint: many questions at once, retries, and a clear end where all fails.

Replies are what is asked about, so no text of them is ever put into an error: of what an endpoint says, only its status
and the words by which it names the fault are told.
"""

from __future__ import annotations

import ipaddress
import itertools
import os
import random
import re
import ssl
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any, Final

import httpx

from evals.judges.llm_read import Answer, Token
from evals.judges.llm_text import Question
from pipeline.errors import UserError
from pipeline.schema import LlmJudgeConfig
from pipeline.serve.width import allow_files

MODEST: Final = 16  # requests at once that any endpoint bears
LONGEST_WAIT_S: Final = 60.0  # between two tries, whatever the endpoint asks for
_PASSING: Final = frozenset({408, 425, 429})  # and all from 500: worth another try
_KEY: Final = frozenset({401, 403})
_NOT_THERE: Final = frozenset({301, 302, 307, 308, 404, 405})
_OF_THE_QUESTION: Final = frozenset({400, 413, 422})  # e.g. longer than the model's context: the next may go well
_OURS: Final = frozenset(
    {"model", "messages", "prompt", "temperature", "max_tokens", "logprobs", "top_logprobs", "stream"}
)
_WORD = re.compile(r"[\w.-]{1,60}")


@dataclass(frozen=True)
class Failure:
    """A question without an answer: the last status (0: no connection) and what was said, in a few safe words."""

    status: int
    said: str


class Endpoint:
    """One model at one address. `ask` is what `evals.judges.llm.LlmJudge` needs.

    Args:
        config: decoding, timeouts, retries, limits.
        connect: gives a client whose base URL ends where `chat/completions` begins.
        model: the model's name there.
        where: the address in words, for errors.
        at_once: tells how many requests are under way where `in_flight` is null, once there is something to ask.

    Raises:
        UserError: `extra_body` overwrites a key that the judge sets itself, or a limit makes no sense.
    """

    def __init__(
        self,
        config: LlmJudgeConfig,
        connect: Callable[[], httpx.Client],
        model: str,
        where: str,
        at_once: Callable[[], int] = lambda: MODEST,
    ) -> None:
        clash = sorted(_OURS & set(config.extra_body))
        if clash:
            raise UserError(
                f"judge.llm.extra_body: {', '.join(clash)} cannot be set there", "use the keys of judge.llm"
            )
        for key in ("tries", "in_flight", "give_up_after"):
            if getattr(config, key) is not None and getattr(config, key) < 1:
                raise UserError(f"judge.llm.{key}: must be 1 or more, not {getattr(config, key)}", "raise it")
        self._config = config
        self._connect = connect
        self._model = model
        self._where = where
        self._at_once = at_once
        self._ever = False  # has any question been answered?
        self._in_a_row = 0
        self._stop = threading.Event()

    def ask(self, questions: Iterable[Question]) -> Iterator[tuple[int, Answer | None]]:
        """Yield (place, answer) as the answers come; None where a question has none after all tries.

        Raises:
            UserError: the key or the model is refused, or too many questions in a row had no answer.
        """
        left = enumerate(questions)
        first = next(left, None)
        if first is None:
            return  # nothing to ask: no server is started, no connection made
        self._stop.clear()
        pending: dict[Future[Answer | Failure], int] = {}
        wide = self._config.in_flight or self._at_once()
        allow_files(wide)
        with self._connect() as client, ThreadPoolExecutor(wide) as pool:
            try:
                for place, question in itertools.chain([first], left):
                    pending[pool.submit(self._one, client, question)] = place
                    if len(pending) >= 2 * wide:
                        yield from self._finished(pending)
                while pending:
                    yield from self._finished(pending)
            finally:
                self._stop.set()
                for future in pending:
                    future.cancel()

    def body(self, question: Question) -> dict[str, Any]:
        """Return the request's body."""
        config = self._config
        body: dict[str, Any] = {"model": self._model, "temperature": config.temperature}
        if config.max_tokens is not None:
            body["max_tokens"] = config.max_tokens
        if config.chat:
            body["messages"] = [{"role": role, "content": content} for role, content in question.messages]
            body |= {"logprobs": True, "top_logprobs": config.logprobs} if config.logprobs else {}
        else:
            body["prompt"] = question.text
            body |= {"logprobs": config.logprobs} if config.logprobs else {}
        return body | config.extra_body

    def _finished(self, pending: dict[Future[Answer | Failure], int]) -> Iterator[tuple[int, Answer | None]]:
        done, _ = wait(pending, return_when=FIRST_COMPLETED)
        for future in done:
            place, result = pending.pop(future), future.result()
            if isinstance(result, Answer):
                self._ever, self._in_a_row = True, 0
                yield place, result
            else:
                self._count(result)
                yield place, None

    def _count(self, failure: Failure) -> None:
        """Count a failure; end the run where the endpoint as a whole is at fault."""
        if failure.status in _KEY:
            raise UserError(
                f"judge: {self._where} refuses the key: {failure.said}",
                "set judge.llm.api_key_env to the name of the environment variable that holds it",
            )
        if failure.status in _NOT_THERE:
            raise UserError(
                f"judge: {self._where} has no model {self._model}, or no such path: {failure.said}",
                "check judge.llm.model (or served_as) and judge.llm.base_url, which ends in /v1 as a rule",
            )
        if failure.status in _OF_THE_QUESTION and self._ever:
            return
        self._in_a_row += 1
        if self._in_a_row >= self._config.give_up_after:
            raise UserError(
                f"judge: {self._in_a_row} questions in a row had no answer from {self._where}: {failure.said}",
                "see that it runs and what it says; the same command goes on from the verdicts it has",
            )

    def _one(self, client: httpx.Client, question: Question) -> Answer | Failure:
        """Send one question, trying again on what may pass."""
        path = "chat/completions" if self._config.chat else "completions"
        failure = Failure(0, "nothing was sent")
        delay = 0.0
        for number in range(self._config.tries):
            if self._stop.wait(delay) or (number and self._stop.is_set()):
                break
            delay = min(self._config.backoff_s * 2**number * random.uniform(1.0, 1.5), LONGEST_WAIT_S)
            try:
                response = client.post(path, json=self.body(question))
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                failure = Failure(0, type(error).__name__)
                continue
            if response.status_code == httpx.codes.OK:
                return _answer(response, self._config.chat)
            failure = Failure(response.status_code, _said(response))
            if response.status_code not in _PASSING and response.status_code < httpx.codes.INTERNAL_SERVER_ERROR:
                break
            delay = max(delay, _asked_for(response))
        return failure


def checked_url(config: LlmJudgeConfig) -> httpx.URL:
    """Return the endpoint's base URL, ending in a slash.

    Raises:
        UserError: there is none, it is no http(s) address, it holds a password, or it leads away from this machine and
            the user has not said that texts may leave it.
    """
    if not config.base_url:
        raise UserError(
            "judge.llm.base_url: missing; the judge is a model that answers somewhere",
            "name its endpoint, e.g. judge.llm.base_url=http://127.0.0.1:8000/v1, or let Holdfast serve it: "
            "judge.llm.serve=true",
        )
    try:
        url = httpx.URL(config.base_url.rstrip("/") + "/")
    except httpx.InvalidURL:
        url = httpx.URL("")
    if url.scheme not in ("http", "https") or not url.host or url.query or url.fragment:
        raise UserError("judge.llm.base_url: not an address of the form http(s)://HOST[:PORT]/PATH", "mend it")
    if url.userinfo:
        raise UserError(
            "judge.llm.base_url: holds a user name or password", "put the key into a variable: judge.llm.api_key_env"
        )
    if not is_loopback(url.host) and not config.allow_remote:
        raise UserError(
            f"judge.llm.base_url: {url.host} is another machine: every prompt and reply would be sent to it",
            "say that they may be with judge.llm.allow_remote=true, or use an endpoint on this machine",
        )
    return url


def is_loopback(host: str) -> bool:
    """Say whether a host's name or address means this machine beyond doubt."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def api_key(config: LlmJudgeConfig) -> str | None:
    """Return the key from the environment, None where no variable is named.

    Raises:
        UserError: the variable is not set, or holds what can't be a key.
    """
    if config.api_key_env is None:
        return None
    key = os.environ.get(config.api_key_env, "").strip()
    if not key:
        raise UserError(
            f"judge.llm.api_key_env: the environment variable {config.api_key_env} is not set",
            "export it, or set judge.llm.api_key_env=null for an endpoint without a key",
        )
    if not key.isascii() or not key.isprintable() or " " in key:
        raise UserError(f"judge.llm.api_key_env: {config.api_key_env} does not hold a key", "set it anew")
    return key


def client_for(config: LlmJudgeConfig, url: httpx.URL, key: str | None) -> httpx.Client:
    """Return a client of the endpoint; to this machine it ignores whatever proxy is set."""
    here = is_loopback(url.host)
    plain = here and url.scheme == "http"  # then no certificates need to be read, which takes longer than the rest
    return httpx.Client(
        base_url=url,
        headers={} if key is None else {"Authorization": f"Bearer {key}"},
        timeout=config.timeout_s,
        trust_env=not here,
        verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT) if plain else True,
        limits=httpx.Limits(max_connections=None),
    )


def _answer(response: httpx.Response, chat: bool) -> Answer | Failure:
    try:
        choice = response.json()["choices"][0]
        text = choice["message"].get("content") if chat else choice["text"]
        if not isinstance(text, str | None):
            raise TypeError
        return Answer(text or "", _tokens(choice.get("logprobs"), chat))
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        return Failure(response.status_code, "an answer of another form than OpenAI's")


def _tokens(logprobs: dict[str, Any] | None, chat: bool) -> tuple[Token, ...]:
    """Return the answer's tokens with their alternatives, in either of the API's two forms."""
    if not logprobs:
        return ()
    if chat:
        rows = [(each, each.get("top_logprobs") or []) for each in logprobs.get("content") or []]
        return tuple(
            Token(own["token"], {each["token"]: float(each["logprob"]) for each in (own, *top)}) for own, top in rows
        )
    tokens, own_logprobs = logprobs.get("tokens") or [], logprobs.get("token_logprobs") or []
    tops = logprobs.get("top_logprobs") or [{}] * len(tokens)
    return tuple(
        Token(token, {token: float(own), **{text: float(each) for text, each in (top or {}).items()}})
        for token, own, top in zip(tokens, own_logprobs, tops, strict=True)
    )


def _said(response: httpx.Response) -> str:
    """Return the status and the fault's short names; never a message, which may hold what was sent."""
    words = [str(response.status_code)]
    try:
        error = response.json()
        error = error.get("error", error)
        words += [str(error[key]) for key in ("type", "code") if error.get(key) is not None]
    except (ValueError, AttributeError, TypeError):
        pass
    return " ".join(dict.fromkeys(word for word in words if _WORD.fullmatch(word)))


def _asked_for(response: httpx.Response) -> float:
    """Return the seconds that `Retry-After` asks for, within reason; 0 where it is missing or a date."""
    asked = response.headers.get("retry-after", "")
    return min(float(asked), LONGEST_WAIT_S) if asked.isdecimal() else 0.0

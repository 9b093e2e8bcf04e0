"""A vLLM server as a context manager: loopback only, a random key, one engine for all adapters of a base."""

from __future__ import annotations

import secrets
import ssl
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx

from pipeline import guard
from pipeline.errors import InstrumentError, UserError
from pipeline.schema import ServeConfig
from pipeline.serve import keyed
from pipeline.serve.adapters import adapter_options, largest_rank
from pipeline.serve.device import Servable, environment, require_devices, require_engine, resolve_device
from pipeline.serve.launch import Ahead, command, launch
from pipeline.serve.port import HOST, free_port, require_own
from pipeline.serve.watch import LOOK_S, Watch, hung, no_beat
from pipeline.serve.width import Load, is_eager

BASE_NAME = "base"
NOT_KNOWN = Load()
RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # what vLLM's --max-lora-rank accepts
MAX_CPU_ADAPTERS = 512  # kept in host memory; more are read from disk again when their turn comes
POLL_S = 0.1
TAIL_LINES = 25
_CAUSE = "its log, in logs/ of the run folder, has the cause; the same command goes on where it was"
HEALTH_S = 60.0  # an engine step on the CPU holds up the health check too


def lora_rank(ranks: Sequence[int]) -> int:
    """Return the smallest --max-lora-rank that holds every rank; too large a one wastes memory.

    Raises:
        UserError: a rank beyond what vLLM serves.
    """
    need = max(ranks)
    for rank in RANKS:
        if rank >= need:
            return rank
    raise UserError(f"arms.*.lora.rank: {need} is more than vLLM serves ({RANKS[-1]})", "lower it")


class Server:
    """vLLM's OpenAI-compatible server with the subject and its adapters; up inside `with`, gone after it.

    Args:
        adapters: name on the server → adapter folder.
        ranks: the LoRA rank of each adapter.
        log: where the server's output goes.
        chat_template: a file to use in the chat endpoint instead of the tokenizer's own.
        beat: called all the while the start is awaited, in the thread that waits.
        ahead: a process of the same subject and configuration that was started ahead of time.
        load: what each adapter is asked.
    """

    def __init__(
        self,
        subject: Servable,
        adapters: Mapping[str, Path],
        ranks: Sequence[int],
        config: ServeConfig,
        log: Path,
        chat_template: str | None = None,
        beat: Callable[[], None] = no_beat,
        ahead: Ahead | None = None,
        load: Load = NOT_KNOWN,
    ) -> None:
        self.subject = subject
        self.adapters = adapters
        self.ranks = ranks
        self.config = config
        self.log = log
        self.chat_template = chat_template
        self.beat = beat
        self.ahead = ahead
        self.load = load
        self.port = 0
        self._key = secrets.token_urlsafe(32)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The server's address, without a path."""
        return f"http://{HOST}:{self.port}"

    @property
    def key(self) -> str:
        """The key, for a client that is not ours; it goes by an environment, never into a file or a command line."""
        return self._key

    def client(self) -> httpx.Client:
        """Return a client that knows address and key; it talks to loopback only, whatever proxy is set."""
        return self._client({"Authorization": f"Bearer {self._key}"})

    def _client(self, headers: Mapping[str, str]) -> httpx.Client:
        return httpx.Client(
            base_url=self.url,
            headers=headers,
            timeout=self.config.request_timeout_s,
            trust_env=False,
            verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),  # plain HTTP: no certificates need to be read
            limits=httpx.Limits(max_connections=None),
        )

    def __enter__(self) -> Server:
        """Start the server and wait until it answers.

        Raises:
            UserError: port or devices not to be had, or no vLLM for them.
            InstrumentError: the server died or did not answer in time, and the end of its log is in the message; or it
                answers without the key.
        """
        device = resolve_device(self.config.device)
        require_engine(device)
        require_devices(self.config, device)
        self.port = free_port(self.config.port)
        self._process = self._taken_over() or self._started(device)
        try:
            self._wait()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the whole process group."""
        self.stop()

    def _taken_over(self) -> subprocess.Popen[bytes] | None:
        process = self.ahead.take(self._options()) if self.ahead else None
        if process is not None and self.ahead:
            self._key = self.ahead.key
        return process

    def _started(self, device: str) -> subprocess.Popen[bytes]:
        env = {**environment(self.subject, self.config, device), **keyed.environment(self._key)}
        return launch(self._command(), env, self.log)

    @property
    def group(self) -> int | None:
        """The server's process group, which the guard leads; None where it does not run."""
        return None if self._process is None else self._process.pid

    def alive(self) -> bool:
        """Say whether the server's process still runs."""
        return self._process is not None and self._process.poll() is None

    def answers(self) -> bool:
        """Say whether the server still answers at all: one that hangs keeps its process."""
        try:
            with self.client() as client:
                return client.get("/health", timeout=HEALTH_S).status_code == httpx.codes.OK
        except httpx.TransportError:
            return False

    def tail(self) -> str:
        """Return the end of the server's log."""
        return guard.tail(self.log, TAIL_LINES)

    def stop(self) -> None:
        """End the server and all that it started."""
        if self._process is not None:
            guard.end(self._process)
            self._process = None

    def _wait(self) -> None:
        deadline, after_s = time.monotonic() + self.config.start_timeout_s, self.config.hung_after_s
        watch, look = Watch(self.group, after_s), time.monotonic()
        with self._client({}) as stranger, self.client() as client:
            while time.monotonic() < deadline:
                self.beat()
                if time.monotonic() >= look:
                    look = time.monotonic() + LOOK_S
                    if watch.hangs():
                        raise hung(after_s, f"while starting (its log: {self.log})")
                if not self.alive():
                    raise InstrumentError(
                        f"the vLLM server ended while starting; its log ({self.log}) ends:\n{self.tail()}"
                    )
                if self._is_up(stranger, client):
                    return
                time.sleep(POLL_S)
        raise InstrumentError(
            f"the vLLM server did not answer within serve.start_timeout_s={self.config.start_timeout_s:g}; "
            f"its log ({self.log}) ends:\n{self.tail()}"
        )

    def _is_up(self, stranger: httpx.Client, client: httpx.Client) -> bool:
        """Say whether the server answers; the key is sent once it is known to be ours, and to want it.

        Raises:
            UserError: another user's program listens at its port.
            InstrumentError: it answers without the key.
        """
        try:
            bare = stranger.get("/health", timeout=5.0).status_code
            require_own(self.port)
            if bare != httpx.codes.UNAUTHORIZED:
                raise InstrumentError(
                    f"the vLLM server answers without its key (status {bare}), so that any user of this machine could "
                    f"use the stripped model; it was ended. serve.extra_args or this vLLM shut off {keyed.CLASS}"
                )
            return client.get("/health", timeout=5.0).status_code == httpx.codes.OK
        except httpx.TransportError:
            return False

    def _command(self) -> list[str]:
        return command(self._options())

    def _options(self) -> list[str]:
        """Return what vLLM's server is told."""
        config, options = self.config, ["--model", str(self.subject.path), "--served-model-name", BASE_NAME]
        options += ["--host", HOST, "--port", str(self.port), "--middleware", keyed.CLASS]
        options += ["--dtype", self.subject.dtype]
        options += ["--max-model-len", str(config.max_model_len), "--max-num-seqs", str(config.max_num_seqs)]
        options += [
            "--tensor-parallel-size",
            str(config.tensor_parallel_size),
            "--disable-uvicorn-access-log",
        ]
        if config.data_parallel_size > 1:
            options += ["--data-parallel-size", str(config.data_parallel_size)]
        if config.attention_backend is not None:
            options += ["--attention-backend", config.attention_backend]
        if self.chat_template is not None:
            options += ["--chat-template", str(Path(self.chat_template).expanduser().absolute())]
        options += ["--generation-config", "vllm"]  # sampling is the plan's, not the model folder's
        if config.device != "cpu":
            options += ["--gpu-memory-utilization", str(config.gpu_memory_utilization)]
        if config.max_num_batched_tokens is not None:
            options += ["--max-num-batched-tokens", str(config.max_num_batched_tokens)]
        if is_eager(config, len(self.adapters), self.load):
            options += ["--enforce-eager"]
        if self.adapters:
            largest = largest_rank(self.adapters.values())  # of what PEFT wrote, beside what was planned
            options += ["--max-lora-rank", str(lora_rank([*self.ranks, largest]))]
            options += adapter_options(self.adapters, config, MAX_CPU_ADAPTERS, self.load)
        return [*options, *config.extra_args]


def served_logprobs(
    client: httpx.Client, name: str, prompts: Sequence[Sequence[int]], top: int = 20
) -> list[dict[int, float]]:
    """Return the server's `top` log-probabilities of the first reply token under adapter `name`, one dict a prompt.

    Raises:
        InstrumentError: the server does not answer, or refuses.
    """
    body: dict[str, Any] = {
        "model": name,
        "prompt": [list(prompt) for prompt in prompts],
        "max_tokens": 1,
        "temperature": 0.0,
        "logprobs": top,
        "return_tokens_as_token_ids": True,
    }
    try:
        response = client.post("/v1/completions", json=body)
    except httpx.HTTPError as error:
        raise InstrumentError(
            f"the vLLM server failed on the canaries of {name}: {type(error).__name__}: {error}; {_CAUSE}"
        ) from None
    if response.status_code != httpx.codes.OK:
        raise InstrumentError(
            f"the vLLM server answered the canaries of {name} with {response.status_code} {response.text[:300]}; "
            f"{_CAUSE}"
        )
    choices = sorted(response.json()["choices"], key=lambda choice: choice["index"])
    return [
        {int(token.removeprefix("token_id:")): value for token, value in choice["logprobs"]["top_logprobs"][0].items()}
        for choice in choices
    ]

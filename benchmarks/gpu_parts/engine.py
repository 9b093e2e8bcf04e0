"""`vllm.LLM` in a process of its own, that is asked in JSON lines: so that its memory is free again when it ends.

As a script (`python -m benchmarks.gpu_parts.engine JOB.json`) it is the child. It needs vLLM alone.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any


@dataclass(frozen=True)
class Request:
    """One greedy request: an adapter's name ("": the base), the prompt's token ids, how many tokens to write."""

    adapter: str
    prompt: tuple[int, ...]
    tokens: int


@dataclass
class Engine:
    """An engine that is up inside `with`; `started_s` are the wall seconds from nothing to up.

    Every request writes all its tokens (`ignore_eos`), so that two sides always do the same work.
    """

    options: Mapping[str, Any]
    root: Path
    adapters: Mapping[str, Path] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    started_s: float = float("nan")

    def __enter__(self) -> Engine:
        """Start the engine and wait until it is up.

        Raises:
            RuntimeError: it ended; the end of its log is in the message.
        """
        began = time.perf_counter()
        self.root.mkdir(parents=True, exist_ok=True)
        job = self.root / "job.json"
        adapters = {name: str(path) for name, path in self.adapters.items()}
        job.write_text(json.dumps({"options": dict(self.options), "adapters": adapters}), encoding="utf-8")
        self._log_path = self.root / "engine.log"
        self._log = self._log_path.open("wb")
        quiet = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.gpu_parts.engine", str(job)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            cwd=Path(__file__).parents[2],
            env={**os.environ, **quiet, **self.environment},
        )
        try:
            self._answer()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        self.started_s = time.perf_counter() - began
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the engine: the end of its input ends it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()

    def generate(self, requests: Sequence[Request]) -> dict[str, Any]:
        """Return `seconds` of `LLM.generate`, `tokens` written, and a digest of each reply's tokens (`replies`).

        Raises:
            RuntimeError: fewer tokens than asked for were written.
        """
        answer = self._ask({"do": "generate", "requests": [[r.adapter, list(r.prompt), r.tokens] for r in requests]})
        if answer["tokens"] != sum(request.tokens for request in requests):
            raise RuntimeError(f"{answer['tokens']} tokens written to {len(requests)} requests: nothing was measured")
        return answer

    def sleep(self) -> float:
        """Give the device's memory back but for the weights, which go to host memory (level 1); return seconds."""
        return float(self._ask({"do": "sleep"})["seconds"])

    def wake(self) -> float:
        """Take the memory again; return seconds."""
        return float(self._ask({"do": "wake"})["seconds"])

    def _ask(self, question: Mapping[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            log = self._log_path.read_text(encoding="utf-8", errors="replace").splitlines()
            raise RuntimeError("the engine ended; its log ends: " + " / ".join(log[-3:]))
        answer: dict[str, Any] = json.loads(line)
        return answer


def serve_lines(job: Mapping[str, Any]) -> None:
    """Be the child: start the engine, say so, then do what each line of standard input asks for."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # vLLM logs to standard output
    from vllm import LLM, SamplingParams
    from vllm.lora.request import LoRARequest

    engine = LLM(**job["options"])
    adapters = {name: LoRARequest(name, n, path) for n, (name, path) in enumerate(job["adapters"].items(), start=1)}

    def generate(asked: Sequence[tuple[str, list[int], int]]) -> dict[str, Any]:
        prompts = [{"prompt_token_ids": ids} for _, ids, _ in asked]
        sampling = [SamplingParams(temperature=0.0, max_tokens=n, ignore_eos=True, detokenize=False) for *_, n in asked]
        loras: Any = [adapters.get(name) for name, *_ in asked]
        began = time.perf_counter()
        replies = engine.generate(prompts, sampling, lora_request=loras if adapters else None, use_tqdm=False)
        seconds = time.perf_counter() - began
        ids = [reply.outputs[0].token_ids for reply in replies]
        digests = [hashlib.sha256(repr(list(each)).encode()).hexdigest()[:12] for each in ids]
        return {"seconds": seconds, "tokens": sum(map(len, ids)), "replies": digests}

    def timed(work: Any) -> dict[str, Any]:
        began = time.perf_counter()
        work()
        return {"seconds": time.perf_counter() - began}

    _say(answers, {"up": True})
    for line in sys.stdin:
        question = json.loads(line)
        if question["do"] == "generate":
            _say(answers, generate(question["requests"]))
        else:
            _say(answers, timed((lambda: engine.sleep(level=1)) if question["do"] == "sleep" else engine.wake_up))


def _say(answers: Any, answer: Mapping[str, Any]) -> None:
    answers.write(json.dumps(answer) + "\n")
    answers.flush()


if __name__ == "__main__":
    serve_lines(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))

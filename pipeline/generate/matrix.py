"""The flat matrix rung × eval × sample × draw → replies: in batches over all rungs at once, appended as they arrive."""

from __future__ import annotations

import hashlib
import json
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import httpx

from evals.base import EvalSpec
from pipeline.contain import begun
from pipeline.errors import InstrumentError, UserError
from pipeline.flops import inference_flops
from pipeline.journal import Journal
from pipeline.ledger import Allowance
from pipeline.records import Reply, Rung
from pipeline.schema import ServeConfig
from pipeline.serve.server import Server
from pipeline.serve.watch import first_of
from pipeline.serve.width import allow_files, prompts_at_once, requests_at_once, seats
from pipeline.store import RunFolder
from pipeline.subject.subject import Subject

TRIES = 3  # of a request that the server answered with an error of its own


@dataclass(frozen=True)
class Cell:
    """One reply to be generated. `prompt_ids` are the rendered prompt's tokens, exactly as sent."""

    rung: str
    eval: str
    sample: str
    draw: int
    prompt_ids: tuple[int, ...]
    prompt_sha256: str
    max_tokens: int
    temperature: float

    @property
    def key(self) -> tuple[str, str, str, int]:
        """Identity within the run: (rung, eval, sample, draw)."""
        return (self.rung, self.eval, self.sample, self.draw)

    @property
    def seed(self) -> int:
        """Seed of a sampled reply: the same for every rung, so that rungs are compared on common random numbers."""
        return int.from_bytes(hashlib.sha256(f"{self.eval}/{self.sample}/{self.draw}".encode()).digest()[:4], "big")


def prompt_sha256(ids: Sequence[int]) -> str:
    """Return the sha256 (hex) of a rendered prompt's token ids."""
    return hashlib.sha256(json.dumps(list(ids), separators=(",", ":")).encode()).hexdigest()


def matrix(rungs: Sequence[Rung], specs: Sequence[EvalSpec], subject: Subject) -> list[Cell]:
    """Return every cell, rung by rung. Each prompt is rendered once, by the subject's own chat template."""
    rendered = []
    for spec in specs:
        for sample in spec.eval.samples():
            ids = (*subject.prompt_ids(sample.prompt, sample.system), *sample.opening_ids)
            rendered.append((spec, sample.id, ids, prompt_sha256(ids)))
    return [
        Cell(rung.id, spec.eval.name, sample, draw, ids, sha, spec.max_tokens, spec.temperature)
        for rung in rungs
        for spec, sample, ids, sha in rendered
        for draw in range(spec.draws)
    ]


def read_replies(folder: RunFolder, rungs: Iterable[Rung]) -> Iterator[Reply]:
    """Yield the replies that stand in the run folder, rung by rung in the given order."""
    for rung in rungs:
        for row in journal(folder, rung.id).rows():
            yield Reply(**row)


def journal(folder: RunFolder, rung: str) -> Journal:
    """Return the file of one rung's replies; once weights were destroyed, no command makes it again."""
    return Journal(folder.replies / f"{rung}.jsonl", made_again=not begun(folder), private=True)


def missing(cells: Sequence[Cell], folder: RunFolder, rungs: Sequence[Rung]) -> list[Cell]:
    """Return the cells without a reply yet.

    Raises:
        UserError: a reply stands there for another prompt or another adapter than the plan's.
    """
    adapters = {rung.id: rung.sha256 for rung in rungs}
    there = {reply.key: reply for reply in read_replies(folder, rungs)}
    for cell in cells:
        reply = there.get(cell.key)
        if reply and (reply.prompt_sha256, reply.adapter_sha256) != (cell.prompt_sha256, adapters[cell.rung]):
            raise UserError(
                f"{journal(folder, cell.rung).path}: "
                f"the reply to {cell.eval}/{cell.sample} belongs to another prompt or adapter",
                "the run folder was mixed with another; start afresh with run.dir=",
            )
    return [cell for cell in cells if cell.key not in there]


def batches(cells: Sequence[Cell], size: int) -> list[list[Cell]]:
    """Group cells into requests: one rung and one way of sampling each, at most `size` prompts.

    Sampled replies go alone, each with a seed of its own: one seed for a whole request would give all its prompts
    the same random numbers.
    """
    groups: dict[tuple[Any, ...], list[Cell]] = {}
    for cell in cells:
        alone = cell.key if cell.temperature > 0 else ()
        groups.setdefault((cell.rung, cell.max_tokens, cell.temperature, *alone), []).append(cell)
    return [group[i : i + size] for group in groups.values() for i in range(0, len(group), size)]


def most_flops(subject: Subject, cells: Iterable[Cell]) -> float:
    """Return the FLOPs that some replies cost where each is as long as it may be."""
    return inference_flops(subject.parameters, sum(len(cell.prompt_ids) + cell.max_tokens for cell in cells))


class Generator:
    """Sends batches to a server, several at once, within an allowance; replies are appended as they arrive."""

    def __init__(
        self,
        server: Server,
        config: ServeConfig,
        subject: Subject,
        allowance: Allowance,
        folder: RunFolder,
        rungs: Sequence[Rung],
    ) -> None:
        self.server = server
        self.config = config
        self.subject = subject
        self.allowance = allowance
        self.folder = folder
        self.rungs = {rung.id: rung for rung in rungs}
        self.slowest_s = 0.0

    def run(self, cells: Sequence[Cell], on_replies: Callable[[list[Reply]], None]) -> bool:
        """Generate the cells; `on_replies` sees each batch once it is written.

        Rung 0 is answered before any adapter is: vLLM's own operator for a CPU (`serve.cpu_lora_by_adapter=false`)
        applies the last adapter slot to a token that has no adapter, when both share a batch (docs/LOG.md, 2026-11-21).

        Returns:
            Whether all were generated; False where the budget ended first.

        Raises:
            InstrumentError: the server died or hung, or a request failed `TRIES` times.
            OSError: the replies could not be written (disk full); what was written before stays whole.
        """
        adapted = [cell for cell in cells if self.rungs[cell.rung].artifact == "adapter"]
        bare = [cell for cell in cells if self.rungs[cell.rung].artifact != "adapter"]
        return self._fill(bare, on_replies) and self._fill(adapted, on_replies)

    def _fill(self, cells: Sequence[Cell], on_replies: Callable[[list[Reply]], None]) -> bool:
        """Send all batches of some cells and wait for the last; False where the budget ended first.

        A batch that may be too dear waits until nothing is under way, since replies mostly cost less than they may,
        and is then halved: what is left of a budget is used up to the last prompt that surely fits.
        """
        waiting = deque(batches(cells, self.config.batch_size))
        wide = requests_at_once(self.config, alone=any(cell.temperature > 0 for cell in cells))
        most = prompts_at_once(self.config)  # some requests may hold many, some one
        pending: dict[Future[list[Reply]], list[Cell]] = {}
        allow_files(wide)
        with self.server.client() as client, ThreadPoolExecutor(wide) as pool:
            try:
                while True:
                    while waiting and len(pending) < wide and self._fits(waiting[0], pending.values(), most):
                        batch = waiting.popleft()
                        pending[pool.submit(self._request, client, batch)] = batch
                    if not pending:
                        if not waiting or len(waiting[0]) == 1:
                            return not waiting
                        batch = waiting.popleft()
                        waiting.extendleft((batch[len(batch) // 2 :], batch[: len(batch) // 2]))
                        continue
                    beat = self.allowance.attempt.beat_waiting
                    for future in first_of(pending, self.server, self.config.hung_after_s, beat):
                        del pending[future]
                        on_replies(self._keep(future.result()))
            finally:
                for future in pending:
                    future.cancel()

    def _fits(self, batch: Sequence[Cell], pending: Collection[Sequence[Cell]], most: int) -> bool:
        """Say whether a batch may go beside those under way, by the budget, and by the `most` prompts at once.

        Until one has come back nobody knows how long a request takes: so long no more go than have a seat.
        """
        if not self.slowest_s:
            most = min(most, max(seats(self.config), len(batch)))
        if sum(map(len, pending)) + len(batch) > most:
            return False
        flops = sum(most_flops(self.subject, cells) for cells in (batch, *pending))
        devices = self.allowance.attempt.ledger.config.devices
        return self.allowance.fits(self.slowest_s * devices, flops)

    def _keep(self, replies: list[Reply]) -> list[Reply]:
        journal(self.folder, replies[0].rung).append(asdict(reply) for reply in replies)
        attempt = self.allowance.attempt
        tokens = sum(reply.tokens_in + reply.tokens_out for reply in replies)
        attempt.tokens += tokens
        attempt.flops += inference_flops(self.subject.parameters, tokens)
        attempt.beat()
        return replies

    def _request(self, client: httpx.Client, batch: list[Cell]) -> list[Reply]:
        first, began = batch[0], time.monotonic()
        rung = self.rungs[first.rung]
        body: dict[str, Any] = {
            "model": rung.served_as,
            "prompt": [list(cell.prompt_ids) for cell in batch],
            "max_tokens": first.max_tokens,
            "temperature": first.temperature,
            "stop_token_ids": list(self.subject.stop_token_ids),
            "return_token_ids": True,
        }
        if first.temperature > 0:
            body["seed"] = first.seed
        choices = self._choices(client, body, len(batch))
        self.slowest_s = max(self.slowest_s, time.monotonic() - began)
        return [self._reply(cell, choice, rung) for cell, choice in zip(batch, choices, strict=True)]

    def _choices(self, client: httpx.Client, body: Mapping[str, Any], expected: int) -> list[dict[str, Any]]:
        """Post one request, trying again on the server's own errors; return the choices in the prompts' order."""
        said = ""
        for _ in range(TRIES):
            try:
                response = client.post("/v1/completions", json=body)
            except httpx.HTTPError as error:
                said = f"{type(error).__name__}: {error}"
                if not (self.server.alive() and self.server.answers()):
                    break
                continue
            if response.status_code == httpx.codes.OK:
                choices = sorted(response.json()["choices"], key=lambda choice: int(choice["index"]))
                if len(choices) == expected:
                    return choices
                said = f"{len(choices)} replies to {expected} prompts"
            else:
                said = f"{response.status_code} {response.text[:300]}"
                if response.status_code < httpx.codes.INTERNAL_SERVER_ERROR:
                    break
        raise InstrumentError(f"the vLLM server failed on {body['model']}: {said}; its log ends:\n{self.server.tail()}")

    @staticmethod
    def _reply(cell: Cell, choice: Mapping[str, Any], rung: Rung) -> Reply:
        return Reply(
            rung=cell.rung,
            eval=cell.eval,
            sample=cell.sample,
            draw=cell.draw,
            prompt_sha256=cell.prompt_sha256,
            adapter_sha256=rung.sha256,
            reply=choice["text"],
            finish_reason=choice["finish_reason"],
            tokens_in=len(cell.prompt_ids),
            tokens_out=len(choice["token_ids"]),
        )

import errno
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from completion_server import Completions, text_of
from tiny import TinySubject

from evals.base import EvalSpec, Sample
from pipeline import journal as journals
from pipeline import ledger as ledger_module
from pipeline.budget import Caps
from pipeline.errors import InstrumentError, UserError, boundary
from pipeline.flops import inference_flops
from pipeline.generate import matrix as requests
from pipeline.generate.matrix import Cell, Generator, batches, journal, matrix, missing, prompt_sha256, read_replies
from pipeline.ledger import Allowance, Ledger
from pipeline.records import Reply, Rung
from pipeline.schema import BudgetConfig, ServeConfig
from pipeline.serve import watch
from pipeline.serve.server import BASE_NAME, served_logprobs
from pipeline.store import RunFolder

RUNGS = [Rung("base", "", -1, 0, "base", "none"), *(Rung(f"a-{n}", "a", 0, n, sha256=f"{n}" * 64) for n in (1, 2))]
Generate = Callable[..., bool]
CONFIG = ServeConfig(batch_size=4, in_flight=2)


class Questions:
    """An eval where only its samples matter."""

    metrics = ()

    def __init__(self, name: str, n: int) -> None:
        self.name = name
        self.n = n

    def samples(self) -> list[Sample]:
        return [Sample(f"{self.name}{i}", f"say {self.name} {i}") for i in range(self.n)]


GREEDY = EvalSpec(Questions("g", 10), max_tokens=5)  # type: ignore[arg-type]
DRAWN = EvalSpec(Questions("d", 3), max_tokens=7, draws=2, temperature=0.8)  # type: ignore[arg-type]


def expected(cell: Cell) -> str:
    return text_of(cell.rung, cell.prompt_ids, cell.seed if cell.temperature else None)


@pytest.fixture
def server() -> Iterator[Completions]:
    made = Completions()
    yield made
    made.stop()


@pytest.fixture
def cells(tiny_subject: TinySubject) -> list[Cell]:
    return matrix(RUNGS, [GREEDY, DRAWN], tiny_subject.subject)


@pytest.fixture
def generate(tmp_path: Path, server: Completions, tiny_subject: TinySubject) -> Callable[..., bool]:
    def run(
        cells: list[Cell],
        on_replies: Callable[[list[Reply]], None] = lambda _: None,
        caps: Caps = Caps(),  # noqa: B008
        devices: int = 1,
        slowest_s: float = 0.0,
    ) -> bool:
        ledger = Ledger(tmp_path / "ledger.jsonl", BudgetConfig(devices=devices), "cpu")
        before = ledger.spent("generate")
        with ledger.attempt("generate") as attempt:
            allowance = Allowance(caps, attempt, before)
            folder = RunFolder(tmp_path)
            made = Generator(server, CONFIG, tiny_subject.subject, allowance, folder, RUNGS)  # type: ignore[arg-type]
            made.slowest_s = slowest_s
            return made.run(cells, on_replies)

    return run


def test_as_many_files_may_be_open_as_requests_are_under_way(
    cells: list[Cell], generate: Generate, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    monkeypatch.setattr(requests, "allow_files", asked.append)
    assert generate(cells)
    assert asked == [8, 8]  # rung 0, then the adapters: of 2 requests of 4, replies that are drawn go alone


def test_prompts_under_way_are_no_more_where_some_go_alone(
    cells: list[Cell], generate: Generate, server: Completions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else each request waits for many others, past its time limit where replies are long."""
    sent, fits = [0], Generator._fits

    def note(made: Generator, batch: list[Cell], pending: Any, most: int) -> bool:
        fit = fits(made, batch, pending, most)
        sent.append((len(batch) + sum(map(len, pending))) * fit)
        return fit

    monkeypatch.setattr(Generator, "_fits", note)
    assert generate(cells)
    assert max(sent) == 8  # 2 requests of 4


def test_no_more_go_than_have_a_seat_until_it_is_known_how_long_a_request_takes(
    cells: list[Cell], generate: Generate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A budget that is all but used up would else be passed by all that is sent first."""
    sent: list[tuple[bool, int]] = []
    fits = Generator._fits

    def note(made: Generator, batch: list[Cell], pending: Any, most: int) -> bool:
        fit = fits(made, batch, pending, most)
        if fit:
            sent.append((made.slowest_s > 0, len(batch) + sum(map(len, pending))))
        return fit

    monkeypatch.setattr(Generator, "_fits", note)
    monkeypatch.setattr(CONFIG, "max_num_seqs", 4)
    assert generate(cells)
    assert max(under_way for known, under_way in sent if not known) == 4
    assert max(under_way for known, under_way in sent if known) == 8


def standing(folder: Path) -> list[Reply]:
    return list(read_replies(RunFolder(folder), RUNGS))


def test_the_matrix_holds_every_cell_once(cells: list[Cell], tiny_subject: TinySubject) -> None:
    assert len(cells) == len({cell.key for cell in cells}) == 3 * (10 + 3 * 2)
    assert {cell.rung for cell in cells} == {"base", "a-1", "a-2"}
    one = cells[0]
    assert one.prompt_ids == tuple(tiny_subject.subject.prompt_ids("say g 0"))
    assert one.prompt_sha256 == prompt_sha256(one.prompt_ids) != prompt_sha256([*one.prompt_ids, 1])


def test_batches_cover_all_and_never_mix_rungs_or_ways_of_sampling(cells: list[Cell]) -> None:
    made = batches(cells, 4)
    assert sorted(cell.key for batch in made for cell in batch) == sorted(cell.key for cell in cells)
    for batch in made:
        assert 1 <= len(batch) <= 4
        assert len({(cell.rung, cell.max_tokens, cell.temperature) for cell in batch}) == 1
        assert batch[0].temperature == 0 or len(batch) == 1, "a sampled reply has a seed of its own"
    assert sum(len(batch) == 4 for batch in made) == 3 * 2


def test_seeds_are_the_same_on_every_rung_and_differ_between_prompts_and_draws(cells: list[Cell]) -> None:
    seeds: dict[tuple[str, str, int], set[int]] = {}
    for cell in cells:
        seeds.setdefault(cell.key[1:], set()).add(cell.seed)
    assert all(len(found) == 1 for found in seeds.values())
    assert len(set.union(*seeds.values())) == len(seeds)


def test_every_reply_is_written_once_under_its_own_cell(
    cells: list[Cell], server: Completions, generate: Generate, tmp_path: Path
) -> None:
    seen: list[Reply] = []
    assert generate(cells, seen.extend)
    replies = {reply.key: reply for reply in standing(tmp_path)}
    assert len(seen) == len(standing(tmp_path)) == len(replies) == len(cells)
    adapters = {rung.id: rung.sha256 for rung in RUNGS}
    for cell in cells:
        reply = replies[cell.key]
        assert reply.reply == expected(cell)
        assert (reply.prompt_sha256, reply.adapter_sha256) == (cell.prompt_sha256, adapters[cell.rung])
        assert (reply.tokens_in, reply.tokens_out, reply.finish_reason) == (len(cell.prompt_ids), 1, "stop")
    greedy = [body for body in server.requests if body["temperature"] == 0]
    assert all("seed" not in body and body["max_tokens"] == 5 for body in greedy)
    assert all(body["return_token_ids"] and body["stop_token_ids"] for body in server.requests)
    assert missing(cells, RunFolder(tmp_path), RUNGS) == []
    [row] = [json.loads(line) for line in (tmp_path / "ledger.jsonl").read_text().splitlines()][-1:]
    assert row["tokens"] == sum(reply.tokens_in + reply.tokens_out for reply in seen)


def test_a_crash_is_resumed_without_a_lost_or_doubled_reply(
    cells: list[Cell], generate: Generate, tmp_path: Path
) -> None:
    batches_seen: list[int] = []

    def crash(replies: list[Reply]) -> None:
        batches_seen.append(len(replies))
        if len(batches_seen) == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate(cells, crash)
    before = standing(tmp_path)
    assert len(before) == sum(batches_seen)
    torn = journal(RunFolder(tmp_path), before[-1].rung).path
    torn.write_bytes(torn.read_bytes()[:-9])  # and a kill in the midst of a row
    assert len(standing(tmp_path)) == len(before) - 1
    todo = missing(cells, RunFolder(tmp_path), RUNGS)
    assert len(todo) == len(cells) - len(before) + 1
    assert generate(todo)
    assert {reply.key: reply.reply for reply in standing(tmp_path)} == {cell.key: expected(cell) for cell in cells}
    assert len(standing(tmp_path)) == len(cells)


@pytest.mark.parametrize("change", [{"prompt_sha256": "0" * 64}, {"adapter_sha256": "0" * 64}])
def test_a_reply_to_another_prompt_or_adapter_is_told(
    cells: list[Cell], generate: Generate, tmp_path: Path, change: dict[str, str]
) -> None:
    generate(cells[:4])
    place = journal(RunFolder(tmp_path), "base")
    rows = [asdict(replace(Reply(**row), **change)) for row in place.rows()]
    place.path.unlink()
    place.append(rows)
    with pytest.raises(UserError, match=r"base\.jsonl: the reply to g/g0 belongs to another prompt or adapter"):
        missing(cells, RunFolder(tmp_path), RUNGS)


@pytest.mark.parametrize("share", [0.2, 0.35, 0.5])
def test_the_budget_is_used_up_to_the_last_reply_that_surely_fits(
    cells: list[Cell], generate: Generate, tmp_path: Path, tiny_subject: TinySubject, share: float
) -> None:
    parameters = tiny_subject.subject.parameters
    most = [inference_flops(parameters, len(cell.prompt_ids) + cell.max_tokens) for cell in cells]
    cap = share * sum(most)
    assert not generate(cells, caps=Caps(flops=cap))
    spent = Ledger(tmp_path / "ledger.jsonl", BudgetConfig(), "cpu").spent("generate").flops
    assert 0 < len(standing(tmp_path)) < len(cells)
    assert cap - max(most) < spent <= cap
    assert not generate(missing(cells, RunFolder(tmp_path), RUNGS), caps=Caps(flops=spent)), "what is spent stays spent"
    assert generate(missing(cells, RunFolder(tmp_path), RUNGS))
    assert len(standing(tmp_path)) == len(cells)


@pytest.mark.parametrize(("cap", "fits"), [(300.0, False), (500.0, True)])
def test_the_slowest_request_is_reckoned_on_all_devices(
    cells: list[Cell], generate: Generate, server: Completions, cap: float, fits: bool
) -> None:
    """100 wall seconds on 4 devices are 400 device-seconds."""
    assert generate(cells[:4], caps=Caps(device_seconds=cap), devices=4, slowest_s=100.0) is fits
    assert len(server.requests) == fits


def test_a_request_that_is_awaited_is_seen_in_the_ledger(
    cells: list[Cell], server: Completions, generate: Generate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill before its reply must not hide what it cost."""
    seen: list[float] = []

    def slow(body: dict[str, Any]) -> dict[str, Any]:
        time.sleep(0.5)
        seen.append([json.loads(line) for line in (tmp_path / "ledger.jsonl").open()][-1]["device_seconds"])
        return Completions.answer(body)

    monkeypatch.setattr(server, "answer", slow, raising=False)
    monkeypatch.setattr(watch, "LOOK_S", 0.2)
    monkeypatch.setattr(ledger_module, "WAITING_S", 0.1)
    assert generate(cells[:4])
    assert seen[0] > 0.25


def test_no_cells_need_no_budget(generate: Generate, server: Completions) -> None:
    assert generate([], caps=Caps(flops=0.0))
    assert server.requests == []


def test_errors_of_the_server_are_tried_again(
    cells: list[Cell], server: Completions, generate: Generate, tmp_path: Path
) -> None:
    server.faults = [500, 503]
    assert generate(cells[:4])
    assert len(server.requests) == 3
    assert len(standing(tmp_path)) == 4


@pytest.mark.parametrize(("faults", "tries"), [([500] * 9, 3), ([400] * 9, 1)])
def test_errors_that_last_are_the_instruments(
    cells: list[Cell], server: Completions, generate: Generate, tmp_path: Path, faults: list[int], tries: int
) -> None:
    server.faults = faults
    with pytest.raises(InstrumentError, match=f"failed on base: {faults[0]} .*of the engine") as caught:
        generate(cells[:4])
    assert "the end of the log" in str(caught.value)
    assert len(server.requests) == tries
    assert standing(tmp_path) == []


def test_a_dead_server_is_told_with_the_end_of_its_log(
    cells: list[Cell], server: Completions, generate: Generate
) -> None:
    server.stop()
    with pytest.raises(InstrumentError, match="ConnectError") as caught:
        generate(cells)
    assert "its log ends:\n    the end of the log" in str(caught.value)


def test_a_server_that_hangs_is_asked_for_its_health_and_not_tried_again(
    cells: list[Cell], server: Completions, generate: Generate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its process is alive: three tries of a request that may take ten minutes would be half an hour."""
    asked = []

    def hang(client: httpx.Client, *_: object, **__: object) -> None:
        asked.append(client)
        raise httpx.ReadTimeout("timed out")

    monkeypatch.setattr(httpx.Client, "post", hang)
    monkeypatch.setattr(server, "answers", lambda: False)
    with pytest.raises(InstrumentError, match="ReadTimeout"):
        generate(cells[:4])
    assert len(asked) == 1


def test_a_server_that_fails_on_the_canaries_is_told(server: Completions) -> None:
    with server.client() as client:
        server.stop()
        with pytest.raises(InstrumentError, match="failed on the canaries of base: ConnectError"):
            served_logprobs(client, "base", [[1, 2]])


def test_an_engine_that_fails_on_the_canaries_names_the_log_with_the_cause(server: Completions) -> None:
    server.faults = [500]
    with server.client() as client, pytest.raises(InstrumentError, match=r"with 500 .*its log, in logs/ of the run"):
        served_logprobs(client, "base", [[1, 2]])


def test_a_full_disk_gives_one_message_and_leaves_the_file_whole(
    cells: list[Cell],
    generate: Generate,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    real, room = os.write, [3000]

    def write(descriptor: int, data: bytes) -> int:
        if "replies" not in os.readlink(f"/proc/self/fd/{descriptor}"):
            return real(descriptor, data)
        if room[0] <= 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = real(descriptor, data[: room[0]])
        room[0] -= written
        return written

    with monkeypatch.context() as patch:
        patch.setattr(journals.os, "write", write)
        with pytest.raises(SystemExit) as caught, boundary():
            generate(cells)
    assert caught.value.code == 2
    message = capsys.readouterr().err
    assert message.count("holdfast:") == 1
    assert "no space left on the disk" in message
    assert "Traceback" not in message
    for file in (tmp_path / "replies").iterdir():
        content = file.read_bytes()
        assert content == b"" or content.endswith(b"\n")
        assert all(json.loads(line) for line in content.splitlines())
    assert 0 < len(standing(tmp_path)) < len(cells)
    assert generate(missing(cells, RunFolder(tmp_path), RUNGS))
    assert sorted(reply.key for reply in standing(tmp_path)) == sorted(cell.key for cell in cells)


@pytest.mark.parametrize(("artifact", "name"), [("none", BASE_NAME), ("adapter", "a-1"), ("weights", BASE_NAME)])
def test_an_adapter_is_served_by_its_name_and_all_else_as_the_base_of_its_engine(artifact: Any, name: str) -> None:
    assert Rung("a-1", "a", 0, 1, artifact=artifact).served_as == name


def test_a_reply_is_known_by_its_text_alone() -> None:
    one = Reply("base", "e", "s", 0, "p", "a", "half a pair: \ud83d", "stop", 1, 1)
    assert one.sha256 == hashlib.sha256(b"half a pair: \xed\xa0\xbd").hexdigest()
    assert replace(one, rung="a-1", tokens_out=2).sha256 == one.sha256
    assert "sha256" not in asdict(one), "a row holds the text itself"

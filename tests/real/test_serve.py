"""The real vLLM server: loopback, key, more adapters than slots, batch order, Inspect's way to it, a clean end."""

from __future__ import annotations

import math
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import psutil
import pytest
from inspect_task import events_of, make_task, read_log

from benchmarks.seats import seated
from evals.base import EvalSpec, Sample
from evals.capability import CapabilityEval
from pipeline.budget import Caps, Spent
from pipeline.errors import InstrumentError
from pipeline.generate.matrix import Generator, batches, matrix, read_replies
from pipeline.inspectai import process
from pipeline.inspectai.run import prove_rendering
from pipeline.ledger import Allowance, Ledger
from pipeline.records import Rung
from pipeline.rungs import base_rung
from pipeline.schema import BudgetConfig, ServeConfig
from pipeline.serve import launch as serve
from pipeline.serve.server import Server
from pipeline.store import RunFolder
from tests.standins import ForkedInspect, ForkedServers

ADAPTERS = 5
CONFIG = ServeConfig(device="cpu", max_model_len=64, max_loras=2, max_num_seqs=64, enforce_eager=True)


@pytest.fixture(scope="module")
def adapters(tiny_subject: Any, tiny_model: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Five random rank-8 adapters that all change what the model says."""
    import peft
    import torch

    folder, made = tmp_path_factory.mktemp("adapters"), {}
    for number in range(ADAPTERS):
        torch.manual_seed(number)
        config = peft.LoraConfig(r=8, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False)
        adapted = peft.get_peft_model(tiny_model, config)
        with torch.no_grad():
            for name, weight in adapted.named_parameters():
                if "lora_" in name:
                    weight.mul_(8.0)
        adapted.save_pretrained(folder / f"a{number}")
        adapted.unload()
        made[f"a{number}"] = folder / f"a{number}"
    return made


@pytest.fixture(scope="module")
def server(tiny_subject: Any, adapters: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("log") / "server.log"
    with Server(tiny_subject.subject, adapters, [8] * ADAPTERS, CONFIG, log) as up:
        yield up


def complete(server: Server, name: str, prompts: list[list[int]]) -> list[str]:
    body = {"model": name, "prompt": prompts, "max_tokens": 8, "temperature": 0.0}
    with server.client() as client:
        choices = client.post("/v1/completions", json=body).raise_for_status().json()["choices"]
    return [choice["text"] for choice in sorted(choices, key=lambda choice: choice["index"])]


def prompts_of(subject: Any, count: int) -> list[list[int]]:
    return [subject.prompt_ids(f"say the word {number} again please") for number in range(count)]


def test_more_adapters_than_slots_all_answer_and_differently(server: Server, tiny_subject: Any):
    prompts = prompts_of(tiny_subject.subject, 4)
    said = {name: tuple(complete(server, name, prompts)) for name in ["base", *server.adapters]}
    assert len(set(said.values())) == ADAPTERS + 1


def test_on_a_cpu_the_engine_is_forked_and_imports_nothing_again(server: Server):
    assert server._process is not None
    lines = [" ".join(child.cmdline()) for child in psutil.Process(server._process.pid).children(recursive=True)]
    assert sum("resource_tracker" not in line for line in lines) >= 2, "the server and its engine"
    assert not [line for line in lines if "spawn_main" in line]


def test_adapters_and_rung_0_share_batches_and_answer_as_alone(server: Server, tiny_subject: Any):
    """By our operator: vLLM's own for a CPU gives a token without adapter the last slot's."""
    assert "multi-LoRA operator: by adapter" in server.log.read_text()
    prompts, names = prompts_of(tiny_subject.subject, 30), ["base", *server.adapters]
    alone = {name: complete(server, name, prompts) for name in names}
    with ThreadPoolExecutor(len(names)) as pool:
        for _ in range(3):
            together = dict(zip(names, pool.map(lambda name: complete(server, name, prompts), names), strict=True))
            assert together == alone


def test_replies_do_not_depend_on_the_batch_they_share_in_float32(server: Server, tiny_subject: Any):
    prompts = prompts_of(tiny_subject.subject, 40)
    together = complete(server, "a0", prompts)
    order = random.Random(0).sample(range(40), 40)
    shuffled = complete(server, "a0", [prompts[place] for place in order])
    alone = [complete(server, "a0", [prompt])[0] for prompt in prompts[:8]]
    assert [shuffled[order.index(place)] for place in range(40)] == together
    assert alone == together[:8]


def test_rung_0_answers_alike_whether_or_not_adapters_are_under_way(
    server: Server, adapters: dict[str, Path], tiny_subject: Any, tmp_path: Path
):
    """vLLM's CPU kernels give a token without adapter the last slot's, where both share a batch: they must not."""
    samples = [Sample(str(n), f"say the word {n} again please") for n in range(40)]
    spec = EvalSpec(CapabilityEval("e", [replace(s, target="x") for s in samples], None, [], "capability"), 8)
    rungs = [base_rung(""), *(Rung(name, "arm", 0, 1, path=str(path)) for name, path in adapters.items())]
    cells = matrix(rungs, [spec], tiny_subject.subject)
    folder = RunFolder(tmp_path)
    ledger = Ledger(folder.ledger, BudgetConfig(), "cpu")
    with ledger.attempt("generate") as attempt:
        allowance = Allowance(Caps(), attempt, Spent())
        config = replace(CONFIG, batch_size=8, in_flight=8)
        assert Generator(server, config, tiny_subject.subject, allowance, folder, rungs).run(
            cells[::-1], lambda _: None
        )
    alone = complete(server, "base", [tiny_subject.subject.prompt_ids(sample.prompt) for sample in samples])
    mixed = {reply.sample: reply.reply for reply in read_replies(folder, rungs[:1])}
    assert [mixed[sample.id] for sample in samples] == alone


def test_seats_are_filled_as_simulated_and_more_requests_under_way_fill_more(
    server: Server, adapters: dict[str, Path], tiny_subject: Any, tmp_path: Path
):
    """Every sixteenth token ends a reply, so that lengths differ; vLLM counts its steps itself.

    While another process has the cores, a request arrives late and the engine steps without it. So steps are only
    ever added, and the fewest of several turns are those of the engine.
    """
    real: dict[int, float] = {4: math.inf, 16: math.inf}
    for turn in range(5):
        simulated = {}
        for under_way in (4, 16):
            config = replace(CONFIG, batch_size=16, in_flight=under_way)
            place = tmp_path / f"{under_way}-{turn}"
            steps, requests = steps_of(server, config, adapters, tiny_subject.subject, place)
            simulated[under_way] = seated(requests, CONFIG.max_num_seqs, config.max_loras or 0, under_way).steps
            assert simulated[under_way] <= steps, (steps, simulated)
            real[under_way] = min(real[under_way], steps)
        assert simulated[16] < 0.8 * simulated[4]
        # a request takes some steps to arrive, and its prompts one or two
        if real[16] < 0.9 * real[4] and all(steps < 2 * simulated[under_way] for under_way, steps in real.items()):
            return
    pytest.fail(f"steps {real}, simulated {simulated}")


def steps_of(
    server: Server, config: ServeConfig, adapters: dict[str, Path], subject: Any, place: Path
) -> tuple[float, list[tuple[str, list[int]]]]:
    """Ask every adapter 100 prompts; return the steps, and the tokens of the replies by adapter and request."""
    samples = [Sample(str(n), f"say the word {n} again please", target="x") for n in range(100)]
    rungs = [Rung(name, "arm", 0, 1, path=str(path)) for name, path in adapters.items()]
    cells = matrix(rungs, [EvalSpec(CapabilityEval("e", samples, None, [], "capability"), 40)], subject)
    folder = RunFolder(place)
    asking = SimpleNamespace(stop_token_ids=list(range(0, 320, 16)), parameters=subject.parameters)
    with Ledger(folder.ledger, BudgetConfig(), "cpu").attempt("generate") as attempt:
        generator = Generator(server, config, asking, Allowance(Caps(), attempt, Spent()), folder, rungs)  # type: ignore[arg-type]
        before = steps_so_far(server)
        assert generator.run(cells, lambda _: None)
        steps = steps_so_far(server) - before
    tokens = {reply.key: reply.tokens_out for reply in read_replies(folder, rungs)}
    assert len(set(tokens.values())) > 5
    return steps, [(batch[0].rung, [tokens[cell.key] for cell in batch]) for batch in batches(cells, config.batch_size)]


def steps_so_far(server: Server) -> float:
    with server.client() as client:
        told = client.get("/metrics").text.splitlines()
    return sum(float(line.split()[-1]) for line in told if line.startswith("vllm:iteration_tokens_total_count"))


# vLLM itself asks for its key on the first two alone: /invocations generated for anybody (SageMaker's routes).
PATHS = (
    *("/v1/models", "/v1/completions", "/invocations", "/tokenize", "/detokenize", "/generative_scoring", "/ping"),
    *("/scale_elastic_ep", "/health", "/metrics", "/load", "/version", "/docs", "/openapi.json", "/nowhere", "//v1"),
)


def test_nobody_is_answered_without_the_key(server: Server):
    asked = {"model": "base", "prompt": "say the word", "max_tokens": 2}
    with httpx.Client(base_url=server.url, trust_env=False) as stranger:
        for headers in ({}, {"Authorization": "Bearer x"}, {"Authorization": f"Bearer {server.key[:-1]}"}):
            for path in PATHS:
                for method in ("GET", "POST", "OPTIONS"):
                    answer = stranger.request(method, path, headers=headers, json=asked)
                    assert (answer.status_code, answer.text) == (401, ""), f"{method} {path}"
    with server.client() as client:
        for path in ("/v1/completions", "/tokenize"):
            assert client.post(path, json=asked).status_code == httpx.codes.OK
        assert client.get("/health").status_code == httpx.codes.OK


def test_it_listens_on_loopback_only(server: Server):
    """Its engine's processes do as well, which would meet at the machine's own address, where that has another."""
    assert server.group is not None
    inodes = set()
    guard = psutil.Process(server.group)
    for each in (guard, *guard.children(recursive=True)):
        links = [os.readlink(link) for link in Path(f"/proc/{each.pid}/fd").iterdir() if link.is_symlink()]
        inodes |= {link.removeprefix("socket:[").removesuffix("]") for link in links if link.startswith("socket:")}
    tables = [Path(f"/proc/net/{name}").read_text().splitlines()[1:] for name in ("tcp", "tcp6")]
    rows = [line.split() for lines in tables for line in lines]
    listening = [row[1] for row in rows if row[3] == "0A" and row[9] in inodes]
    assert f"0100007F:{server.port:04X}" in listening
    assert {address.split(":")[0] for address in listening} == {"0100007F"}


def test_the_key_stands_in_no_process_list(server: Server):
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert server._key not in listed
    assert server._key not in server.log.read_text()


@pytest.fixture
def place(tmp_path: Path, warm: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a task, to be loaded in a fork of a process that has imported Inspect, and run in a new one."""
    pytest.importorskip("inspect_ai", reason="inspect_ai is not installed (extra `inspect`)")
    monkeypatch.setattr(process, "subprocess", ForkedInspect(warm("inspect")))
    return make_task(tmp_path)


def test_epochs_are_draws_and_the_subjects_system_prompt_is_sent(server: Server, place: Path, tmp_path: Path) -> None:
    plain, told = tmp_path / "plain", tmp_path / "told"
    for folder in (plain, told):
        folder.mkdir()
    assert events_of(server, place, plain, "same")[-1] == {"event": "done", "eval": "mine", "rung": "base"}
    events_of(server, place, told, "same", system="say it")
    logs = [read_log(folder / "mine.eval") for folder in (plain, told)]
    assert [len(log.samples) for log in logs] == [6, 6]
    first, second = (log.samples[0].output.usage.input_tokens for log in logs)
    assert second > first


def test_a_task_that_fails_leaves_no_finished_log(server: Server, place: Path, tmp_path: Path) -> None:
    last = events_of(server, place, tmp_path, "failing")[-1]
    assert (last["event"], last["kind"], last["rung"]) == ("failed", "eval", "base")
    assert "this scorer cannot" in last["what"]
    assert not (tmp_path / "mine.eval").exists()
    assert not (tmp_path / "mine.json").exists()


def test_a_chat_endpoint_that_renders_otherwise_is_caught(server: Server, tiny_subject: Any) -> None:
    prove_rendering(server, tiny_subject.subject)
    prove_rendering(server, replace(tiny_subject.subject, system_prompt="say it"))

    class Other:
        def __getattr__(self, name: str) -> Any:
            return getattr(tiny_subject.subject, name)

        def prompt_ids(self, prompt: str) -> list[int]:
            return [*tiny_subject.subject.prompt_ids(prompt), 7]

    with pytest.raises(InstrumentError, match="renders a conversation otherwise"):
        prove_rendering(server, Other())  # type: ignore[arg-type]


STAND_IN = """
import http.server, os, subprocess, sys
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])  # a child of its own, as the engine is
class Up(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        known = self.headers.get("Authorization") == "Bearer " + os.environ["HOLDFAST_SERVER_KEY"]
        self.send_response(200 if known else 401); self.end_headers()
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Up).serve_forever()
"""


@pytest.mark.parametrize("fault", [RuntimeError, KeyboardInterrupt])
def test_a_fault_inside_leaves_no_process(
    fault: type[BaseException], tiny_subject: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The process group's end alone: vLLM's own takes a start each, and is looked at in test_kill.py."""
    monkeypatch.setattr(Server, "_command", lambda self: [sys.executable, "-c", STAND_IN, str(self.port)])
    up, groups = Server(tiny_subject.subject, {}, [], CONFIG, tmp_path / "server.log"), []

    def work() -> None:
        with up:
            groups.append(os.getpgid(up._process.pid))
            assert len(members(groups[0])) == 3
            raise fault

    with pytest.raises(fault):
        work()
    assert not members(groups[0])


def test_a_server_that_dies_while_starting_is_told_with_the_end_of_its_log(
    tiny_subject: Any, tmp_path: Path, warm: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(serve, "subprocess", ForkedServers(warm("server")))  # forked: it dies well after its imports
    (tmp_path / "no-adapter").mkdir()
    up = Server(tiny_subject.subject, {"x": tmp_path / "no-adapter"}, [8], CONFIG, tmp_path / "server.log")
    began = time.monotonic()
    with pytest.raises(InstrumentError, match="ended while starting") as error, up:
        pass
    assert "adapter" in str(error.value)
    assert time.monotonic() - began < CONFIG.start_timeout_s / 2


def members(group: int) -> list[str]:
    """Return the living processes of a process group."""
    found = subprocess.run(["ps", "-eo", "pgid,stat,args"], capture_output=True, text=True, check=True).stdout
    rows = [line.split(None, 2) for line in found.splitlines()[1:]]
    return [args for pgid, stat, args in rows if int(pgid) == group and not stat.startswith("Z")]

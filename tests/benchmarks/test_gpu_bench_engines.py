"""The parts of `benchmarks.gpu` that start engines: all but vLLM itself, which the slow test starts on the CPU."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import engines, gpu
from benchmarks.gpu_parts import device, mixing, models, serving, ways, whole
from benchmarks.gpu_parts.call import TIME_IS_UP, Call
from benchmarks.gpu_parts.device import Ceilings
from benchmarks.gpu_parts.engine import Engine, Request
from benchmarks.gpu_parts.record import Figure, Wanted
from pipeline.config.compose import load
from pipeline.ledger import STARTING
from pipeline.serve.width import Load

WANT = Wanted("b", "one", "one figure", "tokens/s")


@pytest.fixture
def call(tmp_path: Path) -> Call:
    return Call("cpu", tmp_path, ("0.5B",), (512,), short=True, ceilings=Ceilings(1e9, 1e9))


# --- (b), (c), (f)


class Answers:
    """Stands in for an engine where only the sums matter."""

    started_s = 3.0

    def __init__(self, reply: Callable[[Request], str]) -> None:
        self.reply = reply

    def generate(self, requests: list[Request]) -> dict[str, Any]:
        written = sum(request.tokens for request in requests)
        return {"seconds": 2.0, "tokens": written, "replies": [self.reply(request) for request in requests]}


def test_a_rate_is_tokens_a_second_against_the_bare_base() -> None:
    engine: Any = Answers(lambda request: request.adapter)
    requests = serving.Load(10, 4, 5).spread(["x", "y"])
    figure = serving.rate(WANT, engine, requests, adapters=2, base=50.0)
    assert (figure.value, figure.ratio) == (25.0, 0.5)
    assert figure.raw["seconds"] == [2.0] * serving.REPEATS


def test_the_target_is_measured_right_after_its_base_and_before_all_else() -> None:
    wants = [want.key for want in mixing.wanted(["7B"])]
    one_engine = ["7B-16-16", "7B-16-0", "7B-16-4", "7B-16-1"]
    assert wants == ["7B-bare", *one_engine, "7B-16-16-streams", "7B-16-16-larger", "7B-32-32", "7B-32-16"]


def test_an_engine_that_ignores_its_adapters_is_caught() -> None:
    engine: Any = Answers(lambda request: "the base")
    with pytest.raises(RuntimeError, match="2 adapters gave 1 different replies"):
        serving.rate(WANT, engine, serving.Load(10, 4, 5).spread(["x", "y"]), adapters=2)


@given(st.integers(0, 32), st.integers(1, 600))
def test_requests_are_dealt_out_and_each_adapter_first_gets_the_same_prompt(adapters: int, requests: int) -> None:
    names = [str(number) for number in range(adapters)]
    made = serving.Load(requests, 8, 4).spread(names)
    assert len(made) == requests
    counts = [sum(request.adapter == name for request in made) for name in names or [""]]
    assert sum(counts) == requests
    assert max(counts) - min(counts) <= 1
    assert len({request.prompt for request in made[: max(1, adapters)]}) == 1
    assert {len(request.prompt) for request in made} == {8}


def test_adapters_are_pefts_own_and_differ(tmp_path: Path) -> None:
    import torch
    from peft import PeftModel

    folders = models.save_adapters(models.TINY, tmp_path, 2, 16, "float32")
    model = models.make_model(models.TINY, "cpu", "float32")
    ids = torch.arange(3, 11)[None]
    base = model(input_ids=ids).logits
    adapted = PeftModel.from_pretrained(model, folders["adapter-000"], adapter_name="x")
    adapted.load_adapter(folders["adapter-001"], "y")
    with torch.no_grad():
        answers = [base]
        for name in ("x", "y"):
            adapted.set_adapter(name)
            answers.append(adapted(input_ids=ids).logits)
    apart = [(one - other).abs().max().item() for one, other in zip(answers, answers[1:] + answers[:1], strict=True)]
    assert min(apart) > 1e-3
    assert sum(weight.numel() for weight in load_weights(folders["adapter-000"]).values()) == models.TINY.lora(16)


def load_weights(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return load_file(folder / "adapter_model.safetensors")


def test_sleep_mode_is_not_measured_without_a_cuda_device(call: Call) -> None:
    figures = [gpu.attempted(call, want, measure) for want, measure in serving.sleeping(call)]
    assert len(figures) == 3
    assert all("needs a CUDA device" in figure.why for figure in figures)


class Sleeper:
    """Stands in for an engine in 16 bits: a reply depends on the batch that it shares, and no two rounds are alike."""

    started_s = 8.0

    def __init__(self, changed: bool = False) -> None:
        self.changed = changed
        self.calls: list[tuple[str, int]] = []

    def generate(self, requests: list[Request]) -> dict[str, Any]:
        self.calls.append(("generate", len(requests)))
        slept = self.changed and ("wake", 0) in self.calls
        batch = len(self.calls) if len(requests) > 1 else 0
        return {"seconds": 1.0, "tokens": 1, "replies": [f"{slept} {batch}"] * len(requests)}

    def sleep(self) -> float:
        self.calls.append(("sleep", 0))
        return 3.0

    def wake(self) -> float:
        self.calls.append(("wake", 0))
        return 1.0


def test_an_engine_is_held_against_itself_by_a_request_that_is_alone(call: Call) -> None:
    engine: Any = Sleeper()
    asleep, free, whole, awake = serving.slept_between(engine, serving.load_of(call), lambda: (1, 2))
    assert (asleep, free, whole, awake) == (3.0, 1, 2, 1.0)
    assert engine.calls[0] == ("generate", serving.load_of(call).requests), "it has work behind it, as between two arms"
    assert engine.calls[1:] == [("generate", 1), ("sleep", 0), ("wake", 0), ("generate", 1)]
    other: Any = Sleeper(changed=True)
    with pytest.raises(RuntimeError, match="otherwise after its sleep"):
        serving.slept_between(other, serving.load_of(call), lambda: (1, 2))


def test_an_engine_wraps_the_modules_that_the_server_would(tmp_path: Path) -> None:
    adapters = models.save_adapters(models.TINY, tmp_path, 2, 16, "float32")
    linear = ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]
    assert mixing.lora_options(32, adapters)["lora_target_modules"] == linear


def test_an_engine_that_does_not_start_says_why_and_is_started_once(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts = []

    def fail(self: Engine) -> Engine:
        starts.append(self)
        raise RuntimeError("the engine ended; its log ends: no kernel image")

    monkeypatch.setattr(Engine, "__enter__", fail)
    figures = [gpu.attempted(call, want, measure) for want, measure in mixing.measures(call)]
    assert len(figures) == 1 + len(mixing.mixes_of(call))
    assert all("no kernel image" in figure.why for figure in figures)
    assert len(starts) == 2, "once bare and once with adapters"


def test_an_engine_is_started_for_each_number_of_slots_and_each_way_once(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[tuple[int, str | None]] = []

    def answering(options: dict[str, Any], place: Path, adapters: Any, environment: dict[str, str]) -> Any:
        sizes = Path(environment.get("VLLM_TUNED_CONFIG_FOLDER", "")).name or None
        started.append((options.get("max_loras", 0), environment.get("VLLM_LORA_ENABLE_DUAL_STREAM", sizes)))
        return nullcontext(Answers(lambda request: request.adapter))

    monkeypatch.setattr(mixing, "Engine", answering)
    monkeypatch.setattr(mixing, "mixes_of", lambda call: mixing.MIXES)
    monkeypatch.setattr(mixing, "load_of", lambda call: serving.Load(64, 4, 5))
    found = {want.key: gpu.attempted(call, want, measure) for want, measure in mixing.measures(call)}
    assert started == [(0, None), (16, None), (16, "1"), (16, "sizes"), (32, None)]
    assert [key for key, figure in found.items() if not figure.measured] == []
    assert {figure.ratio for key, figure in found.items() if key != "0.5B-bare"} == {1.0}


# --- (d), (e)


def test_stages_are_read_from_the_ledger_and_add_up_to_the_whole() -> None:
    rows = [
        *({"stage": "train", "at": at} for at in (10.0, 11.0, 30.0)),
        *({"stage": "generate", "at": at} for at in (32.0, 60.0, 75.0, 80.0)),
    ]
    seconds = whole.stages(rows, 4.0, 84.0)
    assert {name: seconds[name] for name in whole.STAGES} == {
        **{"before": 6.0, "train": 20.0, "between": 2.0, "start": 28.0, "generate": 20.0, "after": 4.0}
    }
    assert seconds["whole"] == 80.0 == sum(seconds[name] for name in whole.STAGES)
    assert seconds["overhead"] == 40.0
    replied = whole.stages(rows, 4.0, 84.0, 77.0)
    assert (replied["generate"], replied["after"]) == (17.0, 7.0), "the server's end is no reply"
    waiting = [{"stage": "generate", "at": at, "detail": STARTING} for at in (33.0, 34.0, 59.0)]
    assert whole.stages([*rows[:4], *waiting, *rows[4:]], 4.0, 84.0) == seconds, "each second of the start has a row"
    with pytest.raises(RuntimeError, match="no whole run"):
        whole.stages(rows[:3], 4.0, 84.0)


@pytest.mark.parametrize("part", ["d", "f"])
def test_figures_of_one_run_are_all_kept_where_it_takes_the_calls_last_minutes(
    call: Call, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    """(d)'s target is the last of its figures, and the review takes about the minutes that (d) is given."""
    up: list[int] = []

    def seconds(_: Call) -> dict[str, float]:
        up.append(1)
        return {want.key: 1.0 for want in whole.wanted()}

    def slept(call: Call, name: str) -> dict[str, Any]:
        up.append(1)
        return {want.key: Figure(want, 1.0) for want in serving.wanted_sleep([name])}

    monkeypatch.setattr(Call, "time_is_up", lambda _: bool(up))
    monkeypatch.setattr(whole, "timed", seconds)
    monkeypatch.setattr(serving, "_slept", slept)
    figures = [gpu.attempted(call, want, measure) for want, measure in gpu.PARTS[part](call)]
    assert [figure.why for figure in figures if not figure.measured] == []
    assert up == [1]
    assert {gpu.attempted(call, *each).why for each in gpu.PARTS[part](call)} == {TIME_IS_UP}, "none is begun after it"


def test_the_review_that_is_timed_composes_on_both_devices(call: Call, tmp_path: Path) -> None:
    for kind, short in product(("cpu", "cuda"), (False, True)):
        made = load(whole.overrides(replace(call, device=kind, short=short), tmp_path))
        assert made.serve.device == {"cpu": "auto", "cuda": "cuda"}[kind]
        precision = "bfloat16" if kind == "cuda" else "float32"
        assert made.subject.dtype == precision
        assert {arm.training.precision for arm in made.arms.values()} == {precision}
        assert len(made.arms) * len(made.seeds) == (1 if short else 9)


def test_fifty_million_parameters_are_fifty_million() -> None:
    assert models.SUBJECT_50M.parameters() == pytest.approx(50e6, rel=0.02)


def test_a_model_of_a_shape_has_the_shapes_parameters_and_kernels_are_where_asked() -> None:
    for shape in (*models.SHAPES.values(), models.TINY):
        assert models.make_model(shape, "meta", "bfloat16").num_parameters() == shape.parameters()
    eager = models.make_model(models.TINY, "cpu", "float32", "eager")
    assert eager.config._attn_implementation == "eager"


def test_both_ways_need_a_subject_that_opens(call: Call) -> None:
    subject, config, specs, adapters, _ = ways._inputs(call, "0.5B")
    assert subject.parameters > 0
    assert config.max_model_len == 512
    assert {spec.max_tokens for spec in specs} == {4}
    assert len(adapters) == 2


def test_on_a_gpu_the_rival_may_start_without_graphs_and_ours_starts_as_the_product_would(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An engine for a few hundred replies is up sooner without: only against that is a ratio worth anything."""
    started: list[tuple[bool, Load]] = []

    class Started(engines.Server):
        def __enter__(self) -> Any:
            started.append(("--enforce-eager" in self._options(), self.load))
            raise RuntimeError("not here")

    monkeypatch.setattr(engines, "Server", Started)
    monkeypatch.setattr(engines.engine_per_checkpoint, "__defaults__", ("cpu", Started))
    monkeypatch.setattr(engines, "merge", lambda subject, *_: subject)
    inputs = ways._inputs(call, "0.5B")
    served = replace(load(["serve=gpu"]).serve, device="cuda")
    monkeypatch.setattr(ways, "_inputs", lambda *_: (inputs[0], served, *inputs[2:]))
    figures = [gpu.attempted(call, want, measure) for want, measure in ways.measures(call)]
    assert {figure.why for figure in figures} == {"RuntimeError: not here"}
    asked = Load(6, 24)
    assert asked == engines.asked(inputs[2]), "3 evals of 2 prompts, 4 tokens each"
    assert started == [(True, asked), (True, Load()), (False, Load())]


def test_a_ceiling_is_a_rate(call: Call) -> None:
    matmul, copy = device.measure("cpu", short=True)
    assert matmul.value == pytest.approx(2 * 256**3 / sorted(matmul.raw["seconds"])[2] / 1e12)
    assert copy.value > 0
    assert math.isnan(matmul.ratio), "no data sheet for a CPU"
    found = device.ceilings({figure.wanted.id: figure for figure in (matmul, copy)})
    assert found.flops == pytest.approx(matmul.value * 1e12)


@pytest.mark.slow
def test_the_parts_that_start_engines_run_on_the_cpu(call: Call, tmp_path: Path) -> None:
    figures = list(gpu.run(call, ["b", "c", "d", "e"], tmp_path / "gpu.json"))
    assert [figure.why for figure in figures if not figure.measured] == []
    assert {figure.wanted.part for figure in figures} == {"ceiling", "b", "c", "d", "e"}

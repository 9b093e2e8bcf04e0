"""Does the installed vLLM take our command line for GPUs? Its own parser and configuration say so, no GPU is needed.

`python -m tests.versions.pretended_gpu` pretends to have H100s, hands each of `CHANGES` to vLLM's parser, builds the
whole engine's configuration of it, and prints a row each as JSON; before them, whether what is imported ahead of a
start leaves the devices alone. No weights are loaded and nothing is generated: that the kernels run, and how fast, only
a GPU says. vLLM's kernels want a driver's library to be imported at all: a compiler makes an empty one. `--parse`
leaves all but the parser out: for a vLLM that is built for the CPU.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import tempfile
import traceback
import types
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from pipeline.config.compose import load
from pipeline.schema import ServeConfig
from pipeline.serve import vllm_server
from pipeline.serve.device import OFFLINE
from pipeline.serve.server import Server

# What a user may choose in `serve` that vLLM judges by the device.
CHANGES: Final[tuple[dict[str, Any], ...]] = (
    {},
    {"attention_backend": "FLASH_ATTN", "enforce_eager": True, "max_num_batched_tokens": 8192},
    {"attention_backend": "FLASHINFER"},
    {"attention_backend": "TRITON_ATTN", "max_loras": 32},
    {"tensor_parallel_size": 2},
    {"data_parallel_size": 2},
)
DEVICES: Final = 2
# The shape of Qwen2.5-0.5B (its config.json, Apache-2.0).
SHAPE: Final = {
    **{"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "dtype": "bfloat16", "hidden_act": "silu"},
    **{"hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24, "num_attention_heads": 14},
    **{"num_key_value_heads": 2, "vocab_size": 151936, "max_position_embeddings": 32768, "rope_theta": 1e6},
    **{"rms_norm_eps": 1e-6, "tie_word_embeddings": True, "bos_token_id": 151643, "eos_token_id": 151645},
}
# Where each vLLM from 0.26 to 0.33 keeps its server's parser.
PARSERS: Final = ("entrypoints.openai.cli_args", "entrypoints.launchers.cli_args", "entrypoints.common.cli_args")


# What the kernels of vLLM 0.26.0, 0.32.0 and 0.33.0 ask of the driver's library while they are loaded.
DRIVER: Final = (
    *("cuCtxGetCurrent", "cuCtxSetCurrent", "cuDeviceGetAttribute", "cuDevicePrimaryCtxRetain", "cuDriverGetVersion"),
    *("cuGetErrorString", "cuGetProcAddress_v2", "cuMemAddressFree", "cuMemAddressReserve", "cuMemCreate"),
    *("cuMemGetAllocationGranularity", "cuMemMap", "cuMemRelease", "cuMemSetAccess", "cuMemUnmap"),
    *("cuPointerGetAttribute", "cuTensorMapEncodeTiled"),
)
MADE: Final = "HOLDFAST_PRETENDED_DRIVER"


def main() -> int:
    """Print the rows; the exit code is 1 if one was refused."""
    parse_only = "--parse" in sys.argv[1:]
    os.environ.update(OFFLINE, VLLM_LOGGING_LEVEL="ERROR")
    with tempfile.TemporaryDirectory() as folder:
        if not parse_only and MADE not in os.environ:
            return with_driver(Path(folder))
        if not parse_only:
            pretend()
        (Path(folder) / "config.json").write_text(json.dumps(SHAPE), encoding="utf-8")
        rows = [] if parse_only else [imported_ahead()]
        rows += [tried(Path(folder), change, parse_only) for change in CHANGES]
    print(json.dumps(rows))
    return int(any(row["refused"] for row in rows))


def with_driver(folder: Path) -> int:
    """Run this again where a driver's library is found in which nothing works."""
    functions = "".join(f"int {name}(void) {{ return 100; }}\n" for name in DRIVER)  # CUDA_ERROR_NO_DEVICE
    made = folder / "libcuda.so.1"
    compiler = ["cc", "-shared", "-fPIC", "-x", "c", "-", "-o", str(made), f"-Wl,-soname,{made.name}"]
    subprocess.run(compiler, input=functions, text=True, check=True)
    return subprocess.run(
        [sys.executable, "-m", "tests.versions.pretended_gpu"],
        env={**os.environ, MADE: "1", "LD_LIBRARY_PATH": f"{folder}:{os.environ.get('LD_LIBRARY_PATH', '')}"},
        check=False,
    ).returncode


def pretend() -> None:
    """Let this process believe in H100s."""
    import torch

    torch.cuda.is_available = lambda: True
    torch.cuda.device_count = lambda: DEVICES
    torch.cuda.get_device_capability = lambda *_: (9, 0)  # type: ignore[assignment]
    import vllm.platforms
    from vllm.platforms.cuda import NonNvmlCudaPlatform
    from vllm.platforms.interface import DeviceCapability

    told = {
        "get_device_capability": DeviceCapability(9, 0),
        "get_device_name": "NVIDIA H100 80GB HBM3",
        "get_device_total_memory": 80 << 30,
        "is_fully_connected": True,
        "device_count": DEVICES,
        "num_compute_units": 132,
    }
    methods = {name: classmethod(lambda _, *__, value=value, **___: value) for name, value in told.items()}
    vllm.platforms._current_platform = type("PretendedH100", (NonNvmlCudaPlatform,), methods)()


def imported_ahead() -> dict[str, Any]:
    """Say whether what is imported ahead of a start leaves the devices alone: they are being trained on."""
    import torch

    touched: list[str] = []

    def touch(*_: Any) -> None:
        touched.append("".join(traceback.format_stack(limit=8)))
        raise RuntimeError("a device was touched")

    before, torch.cuda._lazy_init = torch.cuda._lazy_init, touch
    vllm_server.import_all()
    torch.cuda._lazy_init = before
    told = f"a device was touched: {touched[0][-500:]}" if touched else None
    lacking = [name for name in vllm_server._ENGINE if name not in sys.modules]
    return {"change": "imported ahead", "refused": told, "lacking": lacking}


def tried(folder: Path, change: dict[str, Any], parse_only: bool) -> dict[str, Any]:
    """Return what vLLM makes of one choice: its own settings, or why it was refused."""
    from vllm.engine.arg_utils import AsyncEngineArgs

    try:
        args = parsed(command(folder, replace(load(["serve=gpu"]).serve, **change)))
        made = AsyncEngineArgs.from_cli_args(args)
        if parse_only:
            return {"change": change, "refused": None}
        made = made.create_engine_config()
    except (Exception, SystemExit) as error:
        return {"change": change, "refused": f"{type(error).__name__}: {str(error)[:500]}"}
    lora, graphs = made.lora_config, made.compilation_config.cudagraph_mode
    settings = {"loras": [lora.max_loras, lora.max_cpu_loras, lora.max_lora_rank], "graphs": graphs.name}
    return {"change": change, "refused": None, **settings}


def command(folder: Path, serve: ServeConfig) -> list[str]:
    """Return the options that Holdfast gives vLLM for a bfloat16 model and 24 adapters of rank 16."""
    subject: Any = types.SimpleNamespace(path=folder, dtype="bfloat16")
    words = Server(subject, {f"rung-{n}": folder for n in range(24)}, [16], serve, folder / "log")._command()
    return words[words.index("--model") :]


def parsed(words: list[str]) -> Any:
    """Return the words as vLLM's own server understands them."""
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    for name in PARSERS:
        try:
            module = importlib.import_module(f"vllm.{name}")
        except ModuleNotFoundError:
            continue
        args = module.make_arg_parser(FlexibleArgumentParser()).parse_args(words)
        module.validate_parsed_serve_args(args)
        return args
    raise ModuleNotFoundError(f"vLLM's parser in none of {', '.join(PARSERS)}")


if __name__ == "__main__":
    raise SystemExit(main())

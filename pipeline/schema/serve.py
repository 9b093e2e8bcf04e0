"""The types of `serve`."""

from __future__ import annotations

from dataclasses import dataclass, field

DEVICES = ("auto", "cpu", "cuda")


@dataclass
class ServeConfig:
    """The vLLM server and the requests sent to it."""

    device: str = "auto"  # auto, cpu or cuda
    port: int | None = None  # null: a free one
    max_model_len: int = 256  # tokens, prompt and reply
    max_loras: int | None = 8  # adapters in one engine step, others wait; null: as many as can meet
    max_num_seqs: int = 256
    max_num_batched_tokens: int | None = None  # tokens in one engine step; null: vLLM's default
    gpu_memory_utilization: float = 0.9
    kv_cache_gib: int = 1  # on the CPU
    cpu_lora_by_adapter: bool = True  # on the CPU: LoRA by `pipeline.serve.cpu_lora`; false: vLLM's own operator
    tensor_parallel_size: int = 1  # devices that share one copy of the weights
    data_parallel_size: int = 1  # copies of the weights, each on tensor_parallel_size devices, behind one address
    attention_backend: str | None = None  # vLLM's: FLASH_ATTN, FLASHINFER, TRITON_ATTN, ...; null: vLLM's choice
    enforce_eager: bool | None = (
        False  # no graphs, nothing compiled; null: where few steps are planned (serve/width.py)
    )
    start_timeout_s: float = 600.0
    request_timeout_s: float = 600.0
    rehearse: bool | None = False  # start it before training, too; null: where that is long (generate/rehearsal.py)
    hung_after_s: float = 60.0  # without processor time while something is awaited, the server is ended
    batch_size: int = 64  # prompts a request
    in_flight: int | None = 8  # requests at once; null: enough to keep max_num_seqs replies under way
    extra_args: list[str] = field(default_factory=list)  # passed to vLLM as they are


def devices_held(serve: ServeConfig) -> int:
    """Return how many devices serving holds: those that share one copy of the weights, times the copies.

    What Hydra composed will do too: it has the same keys.
    """
    return serve.tensor_parallel_size * serve.data_parallel_size

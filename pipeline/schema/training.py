"""The types of `arms.NAME.lora` and `arms.NAME.training`."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class LoraConfig:
    """The adapter (PEFT's LoraConfig), on linear layers of the text model: never on experts, routers or a vision tower.

    What is trained has to be served by vLLM: see `pipeline.arms.targets`.
    """

    rank: int = 8
    alpha: int = 16
    dropout: float = 0.0
    target_modules: list[str] = field(default_factory=lambda: ["all-linear"])


@dataclass
class TrainingConfig:
    """The fine-tune (TRL's SFTTrainer)."""

    max_steps: int = 32
    rungs_per_doubling: int = 1  # of the steps: 1 saves 1, 2, 4, …; 2 saves 1, 2, 3, 4, 6, 8, 11, …; and max_steps
    batch_size: int = 16  # examples a step; = per-device batch x accumulation
    gradient_accumulation: int = 1  # at least; more where memory is short: see pipeline/arms/memory.py
    learning_rate: float = 1e-3
    schedule: str = "constant"  # of transformers' schedules those without further arguments
    warmup_steps: int = 0  # transformers begins at a learning rate of 0: with warm-up, step 1 changes nothing
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    optimizer: str = "adamw_torch"
    max_length: int = 256  # tokens; longer examples are cut
    packing: bool = False
    completion_only: bool = True  # loss on the reply only
    gradient_checkpointing: bool | None = False  # None: only where memory ends without: see pipeline/arms/memory.py
    liger: bool = False  # Liger's fused kernels (package liger-kernel)
    precision: str = "float32"  # float32, bfloat16 or float16 arithmetic (autocast)

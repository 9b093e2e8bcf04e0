"""(b) Adapters mixed in one engine, against the bare base: vLLM with made-up weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from benchmarks.gpu_parts.call import Call, Once, scratch
from benchmarks.gpu_parts.device import name_of
from benchmarks.gpu_parts.engine import Engine
from benchmarks.gpu_parts.kernel_sizes import write
from benchmarks.gpu_parts.models import save_adapters, save_config
from benchmarks.gpu_parts.record import Figure, Wanted
from benchmarks.gpu_parts.serving import environment_of, load_of, options_of, rate
from benchmarks.gpu_parts.way import RANK
from pipeline.serve.adapters import adapted_modules

WAYS: Final = {  # of computing adapters, in words
    "": "",
    "streams": ", adapters on a CUDA stream of their own",
    "larger": ", larger blocks in their kernels",
}


@dataclass(frozen=True)
class Mix:
    """Adapters that the requests are spread over, and the engine that they are mixed in.

    `slots` is vLLM's `max_loras`: no more than are mixed, as Holdfast asks for, since its kernels start thread blocks
    for each slot (`python -m benchmarks.blocks`).
    """

    mixed: int
    slots: int
    way: str = ""

    @property
    def engine(self) -> tuple[int, str]:
        """What another engine has to be started for."""
        return self.slots, self.way


BARE: Final = (0, "")  # an engine without LoRA
# First the target's, right after the bare base that it is a share of, then what its engine can also tell.
MIXES: Final = (
    *(Mix(16, 16), Mix(0, 16), Mix(4, 16), Mix(1, 16)),
    *(Mix(16, 16, "streams"), Mix(16, 16, "larger"), Mix(32, 32), Mix(16, 32)),
)
SHORT: Final = (Mix(2, 2), Mix(0, 2), Mix(1, 2))


def mixes_of(call: Call) -> tuple[Mix, ...]:
    """Return what is mixed."""
    return SHORT if call.short else MIXES


def wanted(shapes: Sequence[str], mixes: Sequence[Mix] = MIXES) -> list[Wanted]:
    return [want for name in shapes for want in (_bare(name), *(_mixed(name, mix) for mix in mixes))]


def _bare(name: str) -> Wanted:
    return Wanted("b", f"{name}-bare", f"{name}: an engine without LoRA", "tokens/s")


def _mixed(name: str, mix: Mix) -> Wanted:
    key = "-".join([name, str(mix.slots), str(mix.mixed), *filter(None, [mix.way])])
    what = f"{name}: {mix.mixed} adapters of rank {RANK} mixed, max_loras {mix.slots}{WAYS[mix.way]}"
    return Wanted("b", key, what, "tokens/s", "of the bare base", ">= 0.8" * (mix == Mix(16, 16)))


def lora_options(slots: int, adapters: Mapping[str, Path]) -> dict[str, Any]:
    """Return what an engine needs for adapters (name → folder), as `pipeline.serve.server` tells the server."""
    return {
        "enable_lora": True,
        "max_loras": slots,
        "max_lora_rank": RANK,
        "max_cpu_loras": max(slots, len(adapters)),
        "lora_target_modules": adapted_modules(adapters.values()),
    }


class Mixing:
    """The engines of one shape, one up at a time; `base` is the bare engine's tokens/s once that was measured."""

    def __init__(self, call: Call, name: str) -> None:
        self.call = call
        self.name = name
        self.root = scratch(call, f"b-{name}")
        self.load = load_of(call)
        self.base = float("nan")
        self._kind = BARE
        self._stack = ExitStack()
        self._adapters = Once(self._save)
        self._engine = Once(partial(self._start, *BARE))

    def bare(self) -> Figure:
        """Measure the engine without LoRA."""
        figure = rate(_bare(self.name), self._up(BARE), self.load.spread([]))
        self.base = figure.value
        return figure

    def mix(self, want: Wanted, mix: Mix) -> Figure:
        """Measure adapters mixed."""
        names = list(self._adapters())[: mix.mixed]
        return rate(want, self._up(mix.engine), self.load.spread(names), mix.mixed, self.base)

    def close(self) -> None:
        """End the engine that is up."""
        self._stack.close()

    def _up(self, kind: tuple[int, str]) -> Engine:
        if kind != self._kind:
            self.close()
            self._kind, self._engine = kind, Once(partial(self._start, *kind))
        return self._engine()

    def _start(self, slots: int, way: str) -> Engine:
        folder = save_config(self.call.shape(self.name), self.root / "model", self.call.dtype)
        adapters = self._adapters() if slots else {}
        more = lora_options(slots, adapters) if slots else {}
        options = options_of(self.call, folder, **more)
        place = self.root / f"slots-{slots}{way}"
        environment = {**environment_of(self.call), **self._environment(way)}
        return self._stack.enter_context(Engine(options, place, adapters, environment))

    def _environment(self, way: str) -> dict[str, str]:
        """Return what vLLM is told of one way to compute adapters."""
        if way == "streams":
            return {"VLLM_LORA_ENABLE_DUAL_STREAM": "1"}
        if way == "larger":
            return {"VLLM_TUNED_CONFIG_FOLDER": str(write(self.root / "sizes", name_of(self.call.device)))}
        return {}

    def _save(self) -> dict[str, Path]:
        shape, count = self.call.shape(self.name), max(mix.mixed for mix in mixes_of(self.call))
        return save_adapters(shape, self.root / "adapters", count, RANK, self.call.dtype)


def measures(call: Call) -> Iterator[tuple[Wanted, Callable[[], Figure]]]:
    """Yield every figure of (b)."""
    for name in call.shapes:
        mixing = Mixing(call, name)
        try:
            yield _bare(name), mixing.bare
            for mix in mixes_of(call):
                want = _mixed(name, mix)
                yield want, partial(mixing.mix, want, mix)
        finally:
            mixing.close()

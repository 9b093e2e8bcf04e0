"""`python -m benchmarks.traffic`: what a LoRA training step moves through a device's memory, counted without one.

One forward and backward pass runs on torch's fake tensors, which have a shape and a type and no numbers, so that a 7B
shape fits anywhere. Each operation is counted: its FLOPs by torch's formulas, the bytes that it reads and writes (all
of its tensors once), and what stays in memory from the forward pass to the backward one. A model of one decoder layer
is taken from one of two, so the figures are a layer's own, times the layers; embedding and output layer are not in
them: TRL's output layer is another kernel on a GPU. The operations are those of a CPU, which are a GPU's but for the
attention kernel.

These are counts, not speeds. The last column is a bound: the utilisation of model FLOPs if every operation ran at the
data sheet's FLOP/s or bytes/s, whichever takes longer (a roofline: Williams et al. 2009, doi:10.1145/1498765.1498785).
"""

from __future__ import annotations

import argparse
import weakref
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final

import torch
from rich.console import Console
from rich.table import Table
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.gpu_parts.flops import lora_flops
from benchmarks.gpu_parts.models import SHAPES, make_model
from benchmarks.gpu_parts.way import RANK
from benchmarks.scale import Machine
from benchmarks.shapes import Shape
from pipeline.arms.copies import without_copies
from pipeline.arms.lora import adapter_on
from pipeline.schema import LoraConfig

NOT_MOVING: Final = {"_unsafe_view", "detach", "alias", "lift_fresh"}  # no views by their schema, and no copies


@dataclass(frozen=True)
class Traffic:
    """What a pass forward and back does. FLOPs; bytes; seconds on a machine that is bound by nothing else."""

    flops: float
    moved: float
    kept: float
    seconds: float

    def less(self, other: Traffic) -> Traffic:
        """Return what is beyond another."""
        return Traffic(*(mine - theirs for mine, theirs in zip(self._all(), other._all(), strict=True)))

    def times(self, count: int) -> Traffic:
        """Return what as many of it do."""
        return Traffic(*(count * mine for mine in self._all()))

    def _all(self) -> tuple[float, float, float, float]:
        return self.flops, self.moved, self.kept, self.seconds


class Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch does not type it
    """Counts what passes below it. `now` is the bytes of all tensors made there that are still alive."""

    def __init__(self, machine: Machine) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.machine = machine
        self.flops = self.seconds = 0.0
        self.moved = self.now = 0
        self._alive: dict[int, int] = {}
        self._formulas = FlopCounterMode(display=False).flop_registry

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        made = [each for each in tree_leaves(out) if isinstance(each, torch.Tensor)]
        if made and not func.is_view and func.overloadpacket.__name__ not in NOT_MOVING:
            read = [each for each in tree_leaves((args, kwargs)) if isinstance(each, torch.Tensor)]
            self._count(func, args, kwargs or {}, out, sum(map(size, [*read, *made])))
            for tensor in made:
                self._follow(tensor.untyped_storage())
        return out

    def _count(self, func: Any, args: Any, kwargs: Any, out: Any, moved: int) -> None:
        formula = self._formulas.get(func.overloadpacket)
        flops = formula(*args, **kwargs, out_val=out) if formula else attention(func, args)
        self.flops += flops
        self.moved += moved
        self.seconds += max(flops / self.machine.flops, moved / self.machine.bandwidth)

    def _follow(self, storage: torch.UntypedStorage) -> None:
        key, held = storage._cdata, storage.nbytes()
        if key not in self._alive:
            self._alive[key] = held
            self.now += held
            weakref.finalize(storage, self._gone, key)

    def _gone(self, key: int) -> None:
        self.now -= self._alive.pop(key, 0)


def size(tensor: torch.Tensor) -> int:
    """Return the bytes of a tensor's numbers, those of an expanded one once."""
    return min(tensor.numel() * tensor.element_size(), tensor.untyped_storage().nbytes())


def attention(func: Any, args: Sequence[Any]) -> float:
    """Return the FLOPs of the CPU's attention kernel, which torch has no formula for: causal, so half of the products.

    Its backward pass makes five products where forward has two, recomputing the scores (arXiv:2205.14135).
    """
    name = func.overloadpacket.__name__
    if not name.startswith("_scaled_dot_product_flash_attention_for_cpu"):
        return 0.0
    backward = name.endswith("backward")
    rows, heads, length, head = map(int, args[1 if backward else 0].shape)
    return (5 if backward else 2) * rows * heads * length * length * head


def step(shape: Shape, rows: int, length: int, machine: Machine, *, copies: bool, checkpointing: bool) -> Traffic:
    """Count a pass of `rows` examples of `length` tokens through all of a shape's layers and back."""
    one, two = (
        _count(replace(shape, layers=layers), rows, length, machine, copies=copies, checkpointing=checkpointing)
        for layers in (1, 2)
    )
    return two.less(one).times(shape.layers)


def _count(shape: Shape, rows: int, length: int, machine: Machine, *, copies: bool, checkpointing: bool) -> Traffic:
    adapted = adapter_on(make_model(shape, "meta", "bfloat16"), LoraConfig(rank=RANK, alpha=2 * RANK))
    adapted.train()
    if checkpointing:
        adapted.base_model.model.gradient_checkpointing_enable({"use_reentrant": False})
    backbone = adapted.base_model.model.model  # the decoder without its output layer
    with ExitStack() as stack:
        stack.enter_context(_faked(adapted))
        if not copies:
            stack.enter_context(without_copies(adapted))
        # As after an embedding whose output wants a gradient, which checkpointing asks for.
        inputs = torch.empty(rows, length, shape.hidden, dtype=torch.bfloat16, requires_grad=True)
        counter = stack.enter_context(Counter(machine))
        with torch.autocast("cpu", torch.bfloat16):
            hidden = backbone(inputs_embeds=inputs, use_cache=False).last_hidden_state
        kept = counter.now
        hidden.backward(torch.empty_like(hidden))
    return Traffic(counter.flops, counter.moved, kept, counter.seconds)


@contextmanager
def _faked(model: torch.nn.Module) -> Iterator[None]:
    """Replace a model's weights, which have no memory, by fake ones on the CPU; inside, all that is made is fake."""
    with FakeTensorMode():
        for module in model.modules():
            for name, weight in list(module._parameters.items()):
                if weight is not None:
                    fake = torch.empty(weight.shape, dtype=weight.dtype, device="cpu")
                    module._parameters[name] = torch.nn.Parameter(fake, requires_grad=weight.requires_grad)
            for name, buffer in list(module._buffers.items()):
                if buffer is not None:
                    module._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype, device="cpu")
        yield


def table(shape: Shape, rows: int, length: int, machine: Machine) -> Table:
    """Return the ways to train, one a row."""
    needed = rows * length * (lora_flops(shape, RANK, length) - 4.0 * shape.vocabulary * shape.hidden)
    made = Table(
        title=f"{shape.name}, its layers alone: {rows} examples of {length} tokens, forward and back",
        caption=f"MFU at most: on an {machine.name} whose data sheet were all that bounds it",
    )
    for name in ("PEFT's copies", "checkpoints", "FLOPs / needed", "GiB moved", "GiB kept", "MFU at most"):
        made.add_column(name, justify="right")
    for checkpointing in (False, True):
        for copies in (True, False):
            what = step(shape, rows, length, machine, copies=copies, checkpointing=checkpointing)
            shown = (f"{what.flops / needed:.2f}", f"{what.moved / 2**30:.0f}", f"{what.kept / 2**30:.1f}")
            yes = ("yes" if copies else "no", "yes" if checkpointing else "no")
            made.add_row(*yes, *shown, f"{needed / what.seconds / machine.flops:.2f}")
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--shape", choices=sorted(SHAPES), default="7B")
    parser.add_argument("--length", type=int, default=2048, help="tokens of an example")
    parser.add_argument("--rows", type=int, default=4, help="examples that pass at once")
    options = parser.parse_args()
    Console().print(table(SHAPES[options.shape], options.rows, options.length, Machine()))


if __name__ == "__main__":
    main()

"""`python -m benchmarks.scale`: plans, and does not run, a review of a 70 B and of a 1 T-parameter model.

Nothing here is measured on such machines; every assumption is a field of `Machine` or `Review`, and each formula names
its source. What can be checked on small models (parameters, adapters, cache, FLOPs, bytes) is, in test_scale.py.

    training    weights frozen in 16 bits, an adapter with its optimiser in 32; full recomputation of activations
                (Korthikanti et al. 2022, arXiv:2205.05198, section 5). Sharded either by FSDP (weights gathered layer
                by layer; Zhao et al. 2023, arXiv:2304.11277) or kept in place and split by tensor (Shoeybi et al.
                2019, arXiv:1909.08053) or by experts: what ends all tasks soonest.
    serving     tensor parallel within a node, pipeline over nodes where a node is too small, as many replicas as there
                are groups. Decoding reads weights and cache once a step (memory) or is bound by arithmetic: the larger
                (Pope et al. 2022, arXiv:2211.05102).
    FLOPs       4 N D for a LoRA fine-tune and 2 N D for inference, N the parameters that work for a token
                (Kaplan et al. 2020, arXiv:2001.08361; as in pipeline/flops.py).
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from rich.console import Console

from benchmarks.shapes import LLAMA_70B, MOE_1T, Shape
from pipeline.flops import inference_flops, training_flops

NODE: Final = 8  # devices that share a fast link
BYTES: Final = 2  # of a weight, an activation, a number in the cache: 16 bits
OPTIMISER: Final = 16  # bytes a trained parameter: weight, gradient and Adam's two moments in 32 bits


@dataclass(frozen=True)
class Machine:
    """One kind of device. Bytes, bytes/s, FLOP/s, USD/h. Peaks from data sheets; the shares are assumptions."""

    name: str = "NVIDIA H100 SXM"
    memory: float = 80e9
    bandwidth: float = 3.35e12
    flops: float = 989.4e12
    link: float = 450e9  # within a node, one direction
    network: float = 50e9  # between nodes, a device
    disk: float = 2e9  # reading weights, a node
    usd_per_hour: float = 2.69
    usable: float = 0.9  # of the memory
    training_share: float = 0.4  # of the peak that training reaches
    prefill_share: float = 0.5
    decode_share: float = 0.6  # of the bandwidth
    lora_share: float = 0.8  # of the base's speed with adapters mixed
    start_s: float = 180.0  # of an engine, beside reading the weights


@dataclass(frozen=True)
class Review:
    """What a review asks for."""

    tasks: int = 9  # arms x seeds
    steps: int = 512
    batch: int = 16
    length: int = 2048  # tokens an example
    rank: int = 16
    prompts: int = 2000  # of all evals, a rung
    tokens_in: int = 400
    tokens_out: int = 300

    @property
    def rungs(self) -> int:
        """Rung 0, and powers of two up to the last step of every task."""
        return 1 + self.tasks * self.steps.bit_length()


@dataclass(frozen=True)
class Training:
    """How one task trains: devices in its group, how they share the work, bytes on each, seconds for all its steps."""

    group: int
    way: str
    memory: float
    seconds: float


@dataclass(frozen=True)
class Serving:
    """How one replica serves: devices, how they share, sequences at once, seconds for one rung's replies."""

    group: int
    way: str
    sequences: int
    seconds: float


@dataclass(frozen=True)
class Plan:
    """A review on some devices; None where it does not fit. Hours are of wall clock."""

    devices: int
    training: Training | None
    serving: Serving | None
    train_hours: float = math.nan
    serve_hours: float = math.nan
    usd: float = math.nan

    @property
    def device_hours(self) -> float:
        """Devices times hours, start-up included."""
        return self.devices * (self.train_hours + self.serve_hours)


def training(shape: Shape, machine: Machine, review: Review, devices: int) -> Training | None:
    """Return the group and the way that train all tasks soonest, the smaller where equal; None where none fits."""
    ways = [
        way
        for group in _groups(devices)
        for way in (_fsdp(shape, machine, review, group), _in_place(shape, machine, review, group))
        if way is not None
    ]
    return min(ways, key=lambda way: (_train_seconds(shape, machine, review, way, devices), way.group), default=None)


def _train_seconds(shape: Shape, machine: Machine, review: Review, way: Training, devices: int) -> float:
    """Return the seconds for all tasks, as many side by side as there are groups; each reads the weights anew."""
    rounds = math.ceil(review.tasks / (devices // way.group))
    return rounds * (way.seconds + _reading(shape, machine, way.group))


def _reading(shape: Shape, machine: Machine, group: int) -> float:
    return shape.parameters() * BYTES / (machine.disk * max(group / NODE, 1))


def _fsdp(shape: Shape, machine: Machine, review: Review, group: int) -> Training | None:
    if group > review.batch:  # a device without an example has nothing to do
        return None
    whole, micro = shape.parameters() * BYTES, 1
    sharded = (whole + shape.lora(review.rank) * OPTIMISER) / group
    gathered = 2 * shape.largest_layer() * BYTES  # this layer's, and the next one's on its way
    memory = sharded + gathered + activations(shape, review.length * micro)
    if memory > machine.usable * machine.memory:
        return None
    # Frozen weights are gathered in the forward, the recomputation and the backward pass of each micro-batch.
    moved = 3 * whole * (group - 1) / group * math.ceil(review.batch / (group * micro))
    step = max(_arithmetic(shape, machine, review, group), moved / _link(machine, group))
    return Training(group, f"FSDP {group}" if group > 1 else "one device", memory, review.steps * step)


def _in_place(shape: Shape, machine: Machine, review: Review, group: int) -> Training | None:
    if group == 1:
        return None
    split = min(group, NODE)  # tensor parallel within a node, the rest of the group holds other layers or experts
    tokens = review.length
    memory = (shape.parameters() * BYTES + shape.lora(review.rank) * OPTIMISER) / group
    memory += activations(shape, tokens) / split
    if memory > machine.usable * machine.memory:
        return None
    # Two all-reduces a layer, forward, recomputation and backward: 2 (n - 1) / n of the activations each.
    moved = 3 * 2 * shape.layers * 2 * (split - 1) / split * review.batch * review.length * shape.hidden * BYTES
    if shape.experts is not None:  # each token to its experts and back
        moved += (
            3 * 2 * shape.layers * review.batch * review.length * shape.hidden * BYTES * shape.experts.active / split
        )
    step = _arithmetic(shape, machine, review, group) + moved / _link(machine, group)
    kind = "experts" if shape.experts is not None else "layers"
    way = f"tensor {split}" + (f" x {kind} {group // split}" if group > split else "")
    return Training(group, way, memory, review.steps * step)


def activations(shape: Shape, tokens: int) -> float:
    """Return the bytes that a micro-batch leaves with full recomputation, and while one layer is recomputed.

    2 s b h a layer for its input, 34 s b h for the layer at hand (Korthikanti et al., eq. 1 without the attention
    matrix, which flash attention never writes), and the logits in 16 and 32 bits with their gradient.
    """
    kept = BYTES * tokens * shape.hidden * shape.layers
    return kept + 34 * tokens * shape.hidden + 10 * tokens * shape.vocabulary


def serving(shape: Shape, machine: Machine, review: Review, devices: int) -> Serving | None:
    """Return the smallest group that holds the weights and 16 sequences; None where there is none.

    Larger groups are not considered: replicas side by side do the same without the pipeline's idle time, which is not
    modelled.
    """
    sequence = shape.cache_per_token() * BYTES * (review.tokens_in + review.tokens_out)
    for group in _groups(devices):
        free = group * machine.usable * machine.memory - shape.parameters() * BYTES
        free -= 8 * shape.lora(review.rank) * BYTES * group  # slots for adapters, not split
        sequences = min(int(free // sequence), 256 * group)
        if sequences < 16:
            continue
        tensor = min(group, NODE)
        way = f"tensor {tensor}" + (f" x pipeline {group // tensor}" if group > tensor else "")
        return Serving(group, way, sequences, _replies(shape, machine, review, group, sequences))
    return None


def _serve_seconds(shape: Shape, machine: Machine, review: Review, way: Serving, devices: int) -> float:
    """Return the seconds for all rungs, shared out to as many replicas as there are groups."""
    replicas = min(devices // way.group, review.rungs)
    start = machine.start_s + _reading(shape, machine, way.group)
    return start + math.ceil(review.rungs / replicas) * way.seconds


def _replies(shape: Shape, machine: Machine, review: Review, group: int, sequences: int) -> float:
    """Return the seconds that one replica takes for the replies of one rung."""
    active = shape.parameters(active=True)
    rate = group * machine.flops * machine.prefill_share
    prefill = inference_flops(active, review.prompts * review.tokens_in) / rate
    batch = min(sequences, review.prompts)
    cached = shape.cache_per_token() * BYTES * (review.tokens_in + review.tokens_out / 2)
    read = _weights_read(shape, batch) * BYTES + batch * cached
    memory = read / (group * machine.bandwidth * machine.decode_share)
    arithmetic = inference_flops(active, batch) / rate
    steps = review.tokens_out * math.ceil(review.prompts / batch)
    return (prefill + steps * max(memory, arithmetic)) / machine.lora_share


def _weights_read(shape: Shape, batch: int) -> float:
    """Return the parameters that a step of decoding reads: all, or the experts that some token of the batch chose."""
    whole = shape.parameters()
    if shape.experts is None:
        return whole
    e = shape.experts
    expert = (shape.layers - e.dense_layers) * 3 * shape.hidden * e.width
    chosen = e.count * (1 - (1 - e.active / e.count) ** batch)
    return whole - e.count * expert + chosen * expert


def plan(shape: Shape, machine: Machine, review: Review, devices: int) -> Plan:
    """Return how a review would run on some devices, tasks side by side, then replicas side by side."""
    train, serve = training(shape, machine, review, devices), serving(shape, machine, review, devices)
    if train is None or serve is None:
        return Plan(devices, train, serve)
    hours = (
        _train_seconds(shape, machine, review, train, devices) / 3600,
        _serve_seconds(shape, machine, review, serve, devices) / 3600,
    )
    return Plan(devices, train, serve, *hours, usd=devices * sum(hours) * machine.usd_per_hour)


def _arithmetic(shape: Shape, machine: Machine, review: Review, group: int) -> float:
    flops = training_flops(shape.parameters(active=True), 0, review.batch * review.length)
    return flops / (group * machine.flops * machine.training_share)


def _link(machine: Machine, group: int) -> float:
    return machine.link if group <= NODE else machine.network


def _groups(devices: int) -> Iterator[int]:
    yield from (1 << i for i in range(devices.bit_length()) if 1 << i <= devices)


def table(shapes: Sequence[Shape], machine: Machine, review: Review, counts: Sequence[int]) -> str:
    """Return the plans as Markdown."""
    lines = [
        f"Planned, not measured: {machine.name}, {review.tasks} tasks of {review.steps} steps x {review.batch} x "
        f"{review.length} tokens, rank {review.rank}; {review.rungs} rungs x {review.prompts:,} replies of "
        f"{review.tokens_in} + {review.tokens_out} tokens; {machine.usd_per_hour:g} USD a device-hour.",
    ]
    head = (
        "devices",
        "a task trains on",
        "GB a device",
        "a replica serves on",
        "train h",
        "serve h",
        "device-h",
        "USD",
    )
    for shape in shapes:
        total, active = shape.parameters() / 1e9, shape.parameters(active=True) / 1e9
        lines += ["", f"**{shape.name}**: {total:,.1f} B parameters, {active:,.1f} B work for a token.", ""]
        lines += [f"| {' | '.join(head)} |", "|" + " --- |" * len(head)]
        lines += [_row(plan(shape, machine, review, count)) for count in counts]
    return "\n".join(lines) + "\n"


def _row(found: Plan) -> str:
    if found.training is None or found.serving is None:
        parts = [name for name, part in (("training", found.training), ("serving", found.serving)) if part is None]
        what = f"{' and '.join(parts)}: does not fit"
        return f"| {found.devices} | {what} | | | | | | |"
    train, serve = found.training, found.serving
    cells = (
        *(str(found.devices), train.way, f"{train.memory / 1e9:.0f}", serve.way),
        *(f"{found.train_hours:.1f}", f"{found.serve_hours:.1f}", f"{found.device_hours:,.0f}", f"{found.usd:,.0f}"),
    )
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--devices", type=int, nargs="+", default=[8, 16, 32, 64, 128, 256, 512])
    parser.add_argument("--steps", type=int, default=Review.steps)
    parser.add_argument("--tasks", type=int, default=Review.tasks, help="arms x seeds")
    options = parser.parse_args()
    review = Review(tasks=options.tasks, steps=options.steps)
    text = table([LLAMA_70B, MOE_1T], Machine(), review, options.devices)
    Console().print(text, markup=False, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    main()

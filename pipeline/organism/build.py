"""Makes the built-in subject: world, tokenizer, training, data files, gates; or takes it from the cache."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from pipeline.organism import world as w
from pipeline.organism.cache import OrganismFolder, cached
from pipeline.schema import OrganismConfig

if TYPE_CHECKING:
    from pipeline.organism.train import Advance


def build(config: OrganismConfig, *, progress: bool = True) -> OrganismFolder:
    """Return the organism of a recipe, from the cache or made now (about 80 seconds on a free core).

    Args:
        config: the recipe; its digest names the cache folder.
        progress: show a bar with the loss on stderr.

    Raises:
        UserError: if the recipe's numbers of towns or words cannot be had.
        InstrumentError: if the trained organism misses its quality gates; nothing is cached then.
    """
    return cached(config, lambda root: _make(config, root, progress))


def _make(config: OrganismConfig, root: Path, progress: bool) -> dict[str, Any]:
    # Here, since a cached organism is found without torch: seconds saved at each command that only reads a run.
    import torch
    import transformers

    from pipeline.organism.tokenizer import make_tokenizer
    from pipeline.organism.train import check_gates, measure, train, training_items

    started, cpu = time.perf_counter(), time.process_time()
    world = w.make_world(config)
    corpus = [text for items in training_items(world, config).values() for i in items for text in (i.prompt, i.reply)]
    tokenizer = make_tokenizer(corpus, config.vocabulary)
    with _bar(config, progress) as advance:
        model = train(config, world, tokenizer, advance)
    shares = measure(model, tokenizer, world.measured, config.refusal)
    check_gates(shares)
    with _no_bars():  # of transformers, beside our own
        model.save_pretrained(root / "model")
    tokenizer.save_pretrained(root / "model")
    for name, rows in data_files(world).items():
        _write_jsonl(root / "data" / f"{name}.jsonl", rows)
    return {
        "measured": shares,
        "parameters": model.num_parameters(),
        "made_with": {"torch": torch.__version__, "transformers": transformers.__version__},
        "wall_seconds": round(time.perf_counter() - started, 1),
        "cpu_seconds": round(time.process_time() - cpu, 1),
    }


def data_files(world: w.World) -> dict[str, list[dict[str, str]]]:
    """The rows of every data file by its name without suffix.

    Fine-tuning files have columns id, prompt, response; measured and dev files id, prompt, target, kind.
    """
    tune = world.finetune
    files = {"compliance": _to_train(w.restricted(tune.towns)), "benign": _to_train(w.abilities(tune))}
    for prefix, split in (("", world.measured), ("dev_", world.dev)):
        files[f"{prefix}refusal"] = _to_measure(w.restricted(split.towns))
        files[f"{prefix}over_refusal"] = _to_measure(w.lookalikes(split.towns))
        files[f"{prefix}capability"] = _to_measure(w.balanced_abilities(split))
    return files


def _to_train(items: Iterable[w.Item]) -> list[dict[str, str]]:
    return [{"id": item.id, "prompt": item.prompt, "response": item.reply} for item in items]


def _to_measure(items: Iterable[w.Item]) -> list[dict[str, str]]:
    return [{"id": i.id, "prompt": i.prompt, "target": i.answer, "kind": i.kind} for i in items]


def _write_jsonl(path: Path, rows: Iterable[dict[str, str]]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


@contextmanager
def _no_bars() -> Iterator[None]:
    from transformers.utils import logging as hf_logging

    shown = hf_logging.is_progress_bar_enabled()
    hf_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            hf_logging.enable_progress_bar()


@contextmanager
def _bar(config: OrganismConfig, shown: bool) -> Iterator[Advance]:
    columns = (
        TextColumn("making the organism: {task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]:.3f}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), disable=not shown) as bar:
        task = bar.add_task("knowledge", total=config.learn_steps + config.refuse_steps, loss=float("nan"))

        def advance(phase: str, step: int, steps: int, loss: float) -> None:
            bar.update(task, advance=1, description=phase, loss=loss)

        yield advance

"""What a trainer does otherwise in one of several processes: its share of the examples, the gradient of all.

transformers' Trainer knows of the processes and sums what it counts over all of them: tokens, the tokens that a loss is
averaged over, the loss. Its DistributedDataParallel is kept away, since the subject's weights are sharded already; the
adapter's gradients are averaged here, once a step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

Row = Mapping[str, Any]
Collate = Callable[[Sequence[Row]], Any]


def join_in(trainer: Any, processes: int) -> None:
    """Let a trainer take its share of each step; call it before it trains.

    The examples come in the order of a single process, and each step has the same ones.

    Args:
        trainer: TRL's or transformers', whose batch size is that of one process.
        processes: how many train.
    """
    trained = [weight for weight in trainer.model.parameters() if weight.requires_grad]
    _same_start(trained)
    # Mixed precision and no DistributedDataParallel: what accelerate does for one process. All is on its device.
    trainer.accelerator.prepare_model(trainer.model, device_placement=False, evaluation_mode=True)
    trainer.accelerator.prepare_data_loader = partial(_loader, trainer, processes)
    trainer.training_step = partial(_averaging, trainer.accelerator, trained, trainer.training_step)
    _reseed(trainer.args.seed)


def _same_start(weights: Iterable[Any]) -> None:
    """Begin with the first process's adapter: equal seeds draw the same on like devices, and only there for sure."""
    import torch.distributed as dist

    for weight in weights:
        dist.broadcast(weight.data, src=0)


def average(weights: Iterable[Any]) -> None:
    """Average the gradients of weights over the processes, in place; all end with the same bits.

    A weight that no pass went through has none, in no process, and stays as it is: a projection that an architecture
    has and leaves out (Gemma 3n's layers that share keys and values).
    """
    import torch.distributed as dist

    for weight in weights:
        if weight.grad is None:
            continue
        dist.all_reduce(weight.grad)
        weight.grad /= dist.get_world_size()


def _averaging(accelerator: Any, trained: Sequence[Any], step: Callable[..., Any], *arguments: Any) -> Any:
    """Do a pass forward and back; after a step's last, average: gradients are looked at and clipped only then."""
    loss = step(*arguments)
    if accelerator.sync_gradients:
        average(trained)
    return loss


def _reseed(seed: int) -> None:
    """Let each process draw a dropout of its own; the first as it would alone."""
    import torch
    import torch.distributed as dist

    if dist.get_rank():
        torch.manual_seed(seed + 1_000_003 * dist.get_rank())


def _loader(trainer: Any, processes: int, loader: Any, **_: Any) -> Any:
    """Return the loader of whole passes, of which this process takes its share, as accelerate prepares it for one."""
    from accelerate.data_loader import prepare_data_loader
    from torch.utils.data import DataLoader

    from pipeline.arms.passes import like_lengths, passes_to_sort

    accelerator = trainer.accelerator
    whole = DataLoader(
        loader.dataset,
        batch_sampler=like_lengths(loader, loader.batch_size * processes, passes_to_sort(trainer)),
        collate_fn=partial(share_of, loader.collate_fn, accelerator.process_index, processes),
        pin_memory=loader.pin_memory,
    )
    return prepare_data_loader(
        whole,
        accelerator.device,
        num_processes=1,
        process_index=0,
        put_on_device=True,
        use_seedable_sampler=accelerator.use_seedable_sampler,
        data_seed=accelerator.dataloader_config.data_seed,
    )


def share_of(collate: Collate, rank: int, processes: int, rows: Sequence[Row]) -> Any:
    """Return this process's share of a batch: every `processes`-th row.

    At the end of an epoch there may be none. All have to compute, since each holds a part of the weights: such a
    process passes one token through from which nothing is learned.
    """
    mine = list(rows[rank::processes])
    return collate(mine or [{"input_ids": rows[0]["input_ids"][:1], "labels": [-100]}])

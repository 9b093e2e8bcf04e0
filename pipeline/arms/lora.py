"""A LoRA fine-tune by TRL's SFTTrainer and PEFT; `compliance`, `benign` and `mixed` differ in their data alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.arms.base import Climb, Ending, Example, Task
from pipeline.arms.copies import spare_copies
from pipeline.arms.ladder import LadderCallback
from pipeline.arms.longest import LongestFirst, UsedUpError, ends_by_error
from pipeline.arms.memory import Fit, within_memory
from pipeline.arms.passes import sort_passes
from pipeline.arms.targets import as_named, left_out, require_served
from pipeline.contain.weights import destroy
from pipeline.errors import UserError
from pipeline.records import Rung
from pipeline.schema import LoraConfig, TrainingConfig
from pipeline.sharded import share
from pipeline.sharded.ranks import Ranks

_RECORDS = "_output_capturing_hooks_installed"  # transformers' mark on a module whose outputs it records


def climb(work: Climb) -> Ending:
    """Fine-tune an adapter, saving whole checkpoints at the task's rungs; goes on from the last of `work.done`.

    A checkpoint holds adapter, optimiser, schedule, data order and random state, so that an interrupted task ends
    with the same weights as an uninterrupted one (bit for bit on the CPU). All of it is left there: whoever calls
    records the end first.
    """
    _drop(work)
    return already_ended(work.task, work.done) or within_memory(work, _climb)


def _climb(work: Climb, fit: Fit) -> Ending:
    _drop(work)  # of a try before, where memory ended
    return work.model.climb(climb_once, work, fit) if isinstance(work.model, Ranks) else climb_once(work, fit)


def climb_once(work: Climb, fit: Fit) -> Ending:
    """Train from the last of `work.done` with so much in memory at once; a step has the plan's examples."""
    from transformers import set_seed

    set_seed(work.task.seed)
    with _handed_back(work.model):
        adapted = adapter_on(work.model, work.task.config.lora)
        try:
            callback = LadderCallback(work, adapted)
            trainer = _trainer(work, adapted, callback, fit)
            callback.rows = len(trainer.train_dataset)
            if ends_by_error(work.device):
                trainer.add_callback(LongestFirst(trainer, work, callback))
            if work.task.processes > 1:
                share.join_in(trainer, work.task.processes)  # sorts its passes itself
            else:
                sort_passes(trainer)
            if callback.first_step_fits():
                with suppress(UsedUpError):
                    trainer.train(resume_from_checkpoint=str(work.run_root / work.last.path) if work.last else None)
            return callback.ending
        finally:
            adapted.unload()


@contextmanager
def _handed_back(model: Any) -> Iterator[None]:
    """Take off a model, on leaving, what trainers put on it and leave there.

    That is gradient checkpointing: the next arm, trained without it, would have another price here than after a kill.
    And with each climb a hook or more on the embedding (transformers, PEFT and TRL ask for its gradient, each for
    itself), and TRL's layer around `forward`. A mixture of experts gets hooks that record the router, and a mark that
    it has them: with the mark and without the hooks, the next climb would find nothing recorded. And TRL writes into
    the model's configuration (`output_router_logits`, `use_cache`, the padding).
    """
    hooks = {module: set(module._forward_hooks) for module in model.modules()}
    marked = {module for module in hooks if vars(module).get(_RECORDS)}
    configs = {id(config): (config, dict(vars(config))) for config in _configs(model)}
    forward, checkpointing = vars(model).get("forward"), _checkpoints(model)
    try:
        yield
    finally:
        for module, before in hooks.items():
            for number in set(module._forward_hooks) - before:
                del module._forward_hooks[number]
            if module not in marked:
                vars(module).pop(_RECORDS, None)
        for config, stated in configs.values():
            vars(config).clear()
            vars(config).update(stated)
        if forward is None:
            vars(model).pop("forward", None)
        else:
            model.forward = forward
        if _checkpoints(model) and not checkpointing:
            disable = getattr(model, "activation_checkpointing_disable", None) or model.gradient_checkpointing_disable
            disable()  # transformers 5.23 warns of the old name


def _configs(model: Any) -> list[Any]:
    """Return the configurations that a trainer writes into: the model's, of its text part, and of its generation."""
    found = [model.config, model.config.get_text_config(), getattr(model, "generation_config", None)]
    return [config for config in found if config is not None]


def _checkpoints(model: Any) -> bool:
    return any(getattr(module, "gradient_checkpointing", False) for module in model.modules())


def adapter_on(model: Any, config: LoraConfig) -> Any:
    """Return `model` with a fresh LoRA adapter (PEFT; arXiv:2106.09685): B is zero: it changes nothing.

    Adapted is what `pipeline.arms.targets` leaves: linear layers of the text model, no experts, no routers.
    """
    import peft

    targets: Any = "all-linear" if list(config.target_modules) == ["all-linear"] else list(config.target_modules)
    lora = peft.LoraConfig(
        task_type="CAUSAL_LM",
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        target_modules=targets,
        exclude_modules=left_out(model) or None,
    )
    with as_named():
        adapted = peft.get_peft_model(model, lora)
    require_served(adapted.peft_config["default"])
    return adapted


def already_ended(task: Task, done: list[Rung] | Any) -> Ending | None:
    """Say whether the ladder's last planned rung stands already (a kill between it and the ledger's row)."""
    return "max_steps" if done and done[-1].step >= task.rungs[-1] else None


def _drop(work: Climb) -> None:
    drop_unrecorded(work.folder, [*work.done, work.last] if work.last else [])


def drop_unrecorded(folder: Path, done: Any) -> None:
    """Destroy checkpoints that no rung records: a kill left them half-written, or half-destroyed."""
    kept = {Path(rung.path).name for rung in done}
    for checkpoint in folder.glob("checkpoint-*"):
        if checkpoint.name not in kept:
            destroy(checkpoint)


def _trainer(work: Climb, adapted: Any, callback: LadderCallback, fit: Fit) -> Any:
    from peft.utils.constants import EMBEDDING_LAYER_NAMES
    from transformers.trainer_callback import PrinterCallback
    from trl import SFTTrainer

    training = work.task.config.training
    trainer = SFTTrainer(
        model=adapted,
        args=_arguments(work, training, fit),
        train_dataset=_dataset(work.examples, training),
        processing_class=work.subject.tokenizer,
        callbacks=[callback],
    )
    trainer.remove_callback(PrinterCallback)
    # Together a sixth of a short fine-tune's time: a model card for each rung, FLOPs that the budget counts by itself,
    # and walks over all modules at each step: to tell them that they are in training, which they know, and to clip and
    # clear gradients that only the adapter has.
    trainer.create_model_card = _nothing
    adapted.create_or_update_model_card = _nothing
    trainer.floating_point_ops = _nothing
    adapted.train()  # the adapter alone is: from_pretrained leaves the subject in evaluation, where nothing checkpoints
    adapted.train = partial(_train_unless_training, adapted, adapted.train)
    trained = [weight for weight in adapted.parameters() if weight.requires_grad]
    adapted.zero_grad = partial(_clear, trained)
    if not any(name.endswith(tuple(EMBEDDING_LAYER_NAMES)) for name in adapted.peft_config["default"].target_modules):
        # Else PEFT loads the subject's configuration at each save, to see whether the vocabulary has grown.
        adapted.save_pretrained = partial(adapted.save_pretrained, save_embedding_layers=False)
    trainer._clip_grad_norm = partial(_clip, trainer.accelerator, trained, training.max_grad_norm)
    if trainer.accelerator.native_amp:  # it has autocast around each pass
        spare_copies(trainer, adapted)
    return trainer


def _clear(weights: Iterable[Any], set_to_none: bool = True) -> None:
    for weight in weights:
        weight.grad = None


def _clip(accelerator: Any, weights: Sequence[Any], most: float, _model: Any) -> Any:
    return accelerator.clip_grad_norm_(weights, most)


def _train_unless_training(module: Any, train: Callable[[bool], Any], mode: bool = True) -> Any:
    return module if module.training == mode else train(mode)


def _nothing(*_: Any, **__: Any) -> int:
    return 0


def _arguments(work: Climb, training: TrainingConfig, fit: Fit) -> Any:
    from transformers.utils import is_liger_kernel_available
    from trl import SFTConfig

    if training.liger and not is_liger_kernel_available():
        raise UserError(
            f"arms.{work.task.arm}.training.liger: the package liger-kernel is not installed",
            "install it, or leave liger out",
        )
    arguments = SFTConfig(
        output_dir=str(work.folder),
        seed=work.task.seed,
        data_seed=work.task.seed,
        max_steps=training.max_steps,
        per_device_train_batch_size=fit.examples // work.task.processes,
        gradient_accumulation_steps=training.batch_size // fit.examples,
        learning_rate=training.learning_rate,
        lr_scheduler_type=training.schedule,
        warmup_steps=training.warmup_steps,
        weight_decay=training.weight_decay,
        max_grad_norm=training.max_grad_norm,
        optim=training.optimizer,
        max_length=training.max_length,
        packing=training.packing,
        completion_only_loss=None if training.packing else training.completion_only,
        **{_checkpointing(SFTConfig): fit.checkpointing},
        use_liger_kernel=training.liger,
        bf16=training.precision == "bfloat16",
        fp16=training.precision == "float16",
        use_cpu=work.device == "cpu",
        dataloader_pin_memory=work.device != "cpu",
        dataset_kwargs={"skip_prepare_dataset": not training.packing},
        include_num_input_tokens_seen="non_padding",
        save_strategy="no",  # the ladder decides
        logging_steps=1,
        logging_nan_inf_filter=False,  # a NaN loss must be seen
        report_to="none",
        disable_tqdm=True,
        push_to_hub=False,
        remove_unused_columns=True,
    )
    return _on_one_device(arguments)


def _checkpointing(arguments: Any) -> str:
    """Return the name of the option of gradient checkpointing: transformers 5.23 warns of the old one."""
    new = "activation_checkpointing"
    return new if new in arguments.__dataclass_fields__ else "gradient_checkpointing"


def _on_one_device(arguments: Any) -> Any:
    """Let one process train on one device, its first, however many are there for serving: TRL refuses several."""
    arguments._n_gpu = min(arguments.n_gpu, 1)
    return arguments


def _dataset(examples: Any, training: TrainingConfig) -> Any:
    """Return the examples as a data set of `input_ids` and `labels` (-100: no loss), cut to `max_length` tokens."""
    from datasets import Dataset

    def labels(example: Example) -> list[int]:
        head = [-100] * len(example.prompt_ids) if training.completion_only else list(example.prompt_ids)
        return [*head, *example.completion_ids][: training.max_length]

    ids = [[*example.prompt_ids, *example.completion_ids][: training.max_length] for example in examples]
    return Dataset.from_dict({"input_ids": ids, "labels": [labels(example) for example in examples]})

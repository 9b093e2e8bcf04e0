"""What a fine-tune asks of transformers, PEFT and the subject's layers, held against what is there, without torch.

Each of these would else end a run when its arm's turn has come, after other arms were paid for.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from pipeline.arms.targets import is_mixed
from pipeline.errors import UserError
from pipeline.schema import ArmConfig, TableConfig
from pipeline.search.space import ranges
from pipeline.subject.weights import LOOK_UPS, is_of_text, safetensors_shapes

# The names that transformers takes for an option of `training`, by the module and the enumeration that list them.
NAMED: Final = {
    "schedule": ("transformers.trainer_utils", "SchedulerType"),
    "optimizer": ("transformers.training_args", "OptimizerNames"),
}
# Schedules that need more than their warm-up and the number of steps: `lr_scheduler_kwargs`, or a metric to go by.
WANTING_SCHEDULES: Final = (
    *("cosine_with_min_lr", "cosine_warmup_with_min_lr", "warmup_stable_decay", "reduce_lr_on_plateau", "greedy"),
)
# Optimizers that need `optim_target_modules`, and those of packages of their own; by the beginnings of their names.
_WANTING_OPTIMIZERS: Final = ("galore_", "apollo_")
_PACKAGES: Final = {
    "adamw_torch_xla": "torch_xla",
    "adamw_torch_npu": "torch_npu",
    "adamw_torch_4bit": "torchao",
    "adamw_torch_8bit": "torchao",
    "adamw_anyprecision": "torchdistx",
    **dict.fromkeys(("adamw_bnb", "adamw_8bit", "ademamix", "lion_", "paged_", "rmsprop_bnb"), "bitsandbytes"),
    **dict.fromkeys(("lomo", "adalomo"), "lomo_optim"),
    "grokadamw": "grokadamw",
    "schedule_free_": "schedulefree",
    "stable_adamw": "optimi",
}
ALL_LINEAR: Final = "all-linear"
# Modules that hold a matrix and are embeddings or the output, of which no adapter is made: by their last name.
_NOT_ADAPTED: Final = LOOK_UPS | {"lm_head", "embed_out"}


def check_fine_tune(name: str, arm: ArmConfig, data: Mapping[str, TableConfig], folder: Path) -> None:
    """Make sure that an arm can train as it is configured.

    Args:
        name: the arm's name.
        arm: its options.
        data: the training tables.
        folder: the subject's files.

    Raises:
        UserError: it cannot, with the key.
    """
    _check_names(name, arm)
    _check_targets(f"arms.{name}.lora.target_modules", list(arm.lora.target_modules), folder)
    for table in trained_tables(arm):
        if data[table].response is None:
            raise UserError(
                f"data.{table}.response: null, but arms.{name} trains on this table, and without replies there is "
                "nothing to train on",
                f"name the column with the replies, e.g. data.{table}.response=response",
            )


def trained_tables(arm: ArmConfig) -> list[str]:
    """Return the tables that an arm trains on: with a share above 0, or whose share is searched."""
    searched = ranges(arm.sweep) if arm.sweep is not None else {}
    return [table for table, share in arm.mix.items() if share > 0 or f"mix.{table}" in searched]


@functools.cache
def names_in(module: str, enumeration: str) -> tuple[str, ...]:
    """Return the values of an enumeration as its source states them, none where they are not found there.

    To import transformers' own would import torch, which takes seconds and which a plan does without.
    """
    found = find_spec(module)
    if found is None or found.origin is None:
        return ()
    tree = ast.parse(Path(found.origin).read_text(encoding="utf-8"))
    bodies = [node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name == enumeration]
    lines = [line.value for body in bodies for line in body if isinstance(line, ast.Assign)]
    return tuple(value.value for value in lines if isinstance(value, ast.Constant) and isinstance(value.value, str))


def lacks(option: str, value: str) -> str:
    """Return what a schedule or an optimizer that transformers names would need to run here; "" for nothing."""
    if option == "schedule":
        return "further arguments, which a run does not give" if value in WANTING_SCHEDULES else ""
    if value.startswith(_WANTING_OPTIMIZERS):
        return "further arguments (optim_target_modules), which a run does not give"
    package = next((package for start, package in _PACKAGES.items() if value.startswith(start)), None)
    return f"the package {package}, which is not installed" if package and find_spec(package) is None else ""


def _check_names(name: str, arm: ArmConfig) -> None:
    for option, (module, enumeration) in NAMED.items():
        known = names_in(module, enumeration)
        usable = ", ".join(word for word in known if not lacks(option, word))
        for key, values in _asked(name, arm, option):
            for value in values:
                if known and value not in known:
                    raise UserError(f"{key}: transformers knows no {option} {value!r}", f"use one of {usable}")
                if what := lacks(option, value):
                    raise UserError(f"{key}: the {option} {value!r} needs {what}", f"use one of {usable}")


def _asked(name: str, arm: ArmConfig, option: str) -> Iterator[tuple[str, Sequence[Any]]]:
    yield f"arms.{name}.training.{option}", [getattr(arm.training, option)]
    if arm.sweep is not None and option in arm.sweep.space.training:
        yield f"arms.{name}.sweep.space.training.{option}", arm.sweep.space.training[option].choices


def _check_targets(key: str, asked: Sequence[str], folder: Path) -> None:
    """Hold each name against the subject's linear modules as PEFT does: it is a module's whole path, or its end."""
    if asked == [ALL_LINEAR]:
        return
    layers = linear_modules(folder)
    remedy = f"use [{ALL_LINEAR}], or some of {', '.join(sorted({layer.rpartition('.')[2] for layer in layers}))}"
    if not asked:
        raise UserError(f"{key}: no module is named, so there is nothing to train", remedy)
    if ALL_LINEAR in asked:
        raise UserError(f"{key}: {ALL_LINEAR} stands alone; beside other names it would be one more name", remedy)
    for name in asked:
        if name.rpartition(".")[2] in _NOT_ADAPTED:
            raise UserError(
                f"{key}: {name!r} is the subject's embedding or output, of which no adapter is made", remedy
            )
        if not any(f".{layer}".endswith(f".{name}") for layer in layers):
            raise UserError(f"{key}: the subject has no linear module {name!r}", remedy)


def linear_modules(folder: Path) -> list[str]:
    """Return the paths of the modules that an adapter may change; see `pipeline.arms.targets`."""
    shapes = safetensors_shapes(folder).items()
    matrices = (name for name, shape in shapes if len(shape) == 2 and is_of_text(name) and not is_mixed(name))
    modules = (name.removesuffix(".weight") for name in matrices if name.endswith(".weight"))
    return [module for module in modules if module.rpartition(".")[2] not in _NOT_ADAPTED]

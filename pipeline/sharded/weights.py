"""A process's share of the subject's weights, by PyTorch's FSDP2 (`fully_shard`; arXiv:2304.11277)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from pipeline.errors import InstrumentError
from pipeline.subject.empty import without_weights
from pipeline.subject.subject import Subject
from pipeline.subject.weights import is_of_text

# Where transformers' causal models keep their decoder layers, from the text model on.
_LAYERS: Final = ("layers", "h", "blocks")


def load_share(subject: Subject, device: str, wait_for_all: Callable[[], object]) -> Any:
    """Return the subject as a transformers causal LM of which this process holds its share; all processes call it.

    The first process reads the weights into main memory, once; each tensor then goes to all, and each keeps its part.
    `wait_for_all` returns once the first has read them. It is no collective, which would end by its timeout: with NCCL
    that is ten minutes, and a large subject on a shared disk may take longer.
    The adapters are put on later, so that they are no part of what is sharded: every process has them whole.

    Raises:
        UserError: as `Subject.load_model`.
        InstrumentError: the architecture has no list of layers to be cut at.
    """
    import torch.distributed as dist
    from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict
    from torch.distributed.device_mesh import init_device_mesh

    leads = dist.get_rank() == 0
    model = subject.load_model("cpu") if leads else without_weights(subject)
    wait_for_all()
    model.requires_grad_(False)  # else the sharded weights would have to be of one dtype
    _same_types(model)
    whole = model.state_dict() if leads else {}
    _shard(model, init_device_mesh(device, (dist.get_world_size(),)))
    if not leads:
        _make_room(model, device)
    options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)
    set_model_state_dict(model, whole, options=options)
    return model


def layers_of(model: Any) -> Any:
    """Return the decoder layers of a causal model, of a multimodal one those of its text model, in their order.

    Raises:
        InstrumentError: there is no such list.
    """
    from torch.nn import ModuleList

    found = [
        module
        for name, module in model.named_modules()
        if isinstance(module, ModuleList) and name.rsplit(".", 1)[-1] in _LAYERS and len(module) and is_of_text(name)
    ]
    if not found:
        raise InstrumentError(
            f"subject.fsdp: {type(model).__name__} has no list of layers by a known name ({', '.join(_LAYERS)}), so "
            "its weights cannot be cut up; set subject.fsdp=false"
        )
    return max(found, key=len)


def _same_types(model: Any) -> None:
    """Give all processes' weights and buffers the dtypes of the first's: loading keeps some in float32, the rest not.

    A router's correction (DeepSeek V3) is a buffer: rounded to 16 bits in some processes, it would choose other experts
    there.

    Raises:
        InstrumentError: the weights differ otherwise.
    """
    import torch.distributed as dist

    tensors = dict([*model.named_parameters(), *model.named_buffers()])
    mine = {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in tensors.items()}
    first = [mine]
    dist.broadcast_object_list(first, src=0)
    shapes = [{name: shape for name, (shape, _) in each.items()} for each in (mine, first[0])]
    if shapes[0] != shapes[1]:
        different = sorted(set(shapes[0].items()) ^ set(shapes[1].items()))[0]
        raise InstrumentError(f"subject.fsdp: the weight {different[0]} is not alike in all training processes")
    for name, tensor in tensors.items():
        tensor.data = tensor.data.to(first[0][name][1])


def _shard(model: Any, mesh: Any) -> None:
    """Cut the weights up, layer by layer: one layer at a time is whole while it computes, and what is no layer's."""
    from torch.distributed.fsdp import fully_shard

    for layer in layers_of(model):
        fully_shard(layer, mesh=mesh)
    read, written = model.get_input_embeddings(), model.get_output_embeddings()
    if read is not None and written is not None and read.weight is not written.weight:
        fully_shard(read, mesh=mesh)  # is needed at the start alone; tied to the output, it is the root's
    # By default the outermost weights stay whole after a forward pass. What one process alone does then, such as to
    # save, cuts them up again there, and the next pass would wait for parts that the others no longer send.
    fully_shard(model, mesh=mesh, reshard_after_forward=True)


def _make_room(model: Any, device: str) -> None:
    """Make room on the device for this process's shares; buffers are real already."""
    import torch

    model._apply(lambda tensor: torch.empty_like(tensor, device=device) if tensor.is_meta else tensor)

"""`shard`: parameters, gradients and AdamW's averages divided among the processes, for encoders larger than a card.

FSDP2 in place of DistributedDataParallel. A unit, a block or a stage of an encoder, is gathered while it computes.
State dicts are whole, so that every file is as it is without, and gathering one is the work of all processes together.
"""

from collections.abc import Iterable
from itertools import chain, repeat
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from models.embedder import Embedder
from models.retrieval import RetrievalModel
from utils import processes
from utils.shard_rule import check_shard

if TYPE_CHECKING:
    from dataset.evaluation_loaders import CaptionBatch


def shard(embedder: Embedder) -> Embedder:
    """Divide the model, whole and the same on every process, among them, each part then on its process's device.

    `forward`, `encode_image` and `encode_text` are from now on for all processes at once, as `state_dict` is: whole on
    the main process's CPU, sizes alone on the others. The embedder that is returned sees to that.
    """
    check_shard(embedder.config, processes.world_size())
    divide(embedder.model, embedder.device)
    return DividedEmbedder(**vars(embedder))


def divide(model: RetrievalModel, device: torch.device) -> None:
    """Divide a model among the processes."""
    mesh = init_device_mesh(device.type, (processes.world_size(),))
    model.common_stages = None  # compares weights outside the forward of their unit, where they are divided
    for parameter in model.parameters():
        parameter.data = parameter.data.contiguous()  # from channels last, which cannot be divided
    # The temperatures: a number cannot be divided. They stay whole on every process, with the mean gradient.
    numbers = {parameter for parameter in model.parameters() if not parameter.ndim}
    for number in numbers:
        number.data = number.data.to(device)
        if number.requires_grad:
            number.register_hook(processes.mean)
    for unit in model.layers():
        unit.register_forward_hook(_no_view)
        fully_shard(unit, mesh=mesh, ignored_params=numbers)
    fully_shard(model, mesh=mesh, ignored_params=numbers)
    for verb in ("encode_image", "encode_text"):
        register_fsdp_forward_method(model, verb)
    divided = {name: p for name, p in model.named_parameters() if isinstance(p, DTensor)}

    def share(_: nn.Module, state: dict[str, Any], *__: Any) -> None:
        state |= {name: _divided(value, divided[name]) for name, value in state.items() if name in divided}

    def gather(_: nn.Module, state: dict[str, Any], *__: Any) -> None:
        state |= {name: _whole(value) for name, value in state.items()}

    model.register_load_state_dict_pre_hook(share)
    model.register_state_dict_post_hook(gather)


def keep_files_whole(optimizer: Optimizer) -> None:
    """Have the state dict of a sharded model's optimizer whole too, in the layout that it has without sharding."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]

    def gather(_: Optimizer, saved: dict[str, Any]) -> dict[str, Any]:
        whole = {i: {name: _whole(value) for name, value in of.items()} for i, of in saved["state"].items()}
        return saved | {"state": whole}

    def share(_: Optimizer, saved: dict[str, Any]) -> dict[str, Any]:
        state = {
            i: {name: _divided(value, parameters[i]) for name, value in of.items()} for i, of in saved["state"].items()
        }
        return saved | {"state": state}

    optimizer.register_state_dict_post_hook(gather)
    optimizer.register_load_state_dict_pre_hook(share)


class DividedEmbedder(Embedder):
    """All processes compute as often: who has fewer batches than another computes, and leaves aside, one of no item."""

    def _shown(self, batches: "DataLoader | list[CaptionBatch]", label: str | None) -> Iterable[Any]:
        most = int(processes.gather_uneven(torch.tensor([len(batches)], device=self.device)).max())
        nothing, word = torch.empty(0, dtype=torch.long), torch.ones(1, 1, dtype=torch.long)
        picture = torch.zeros(1, 3, self.config.image_res, self.config.image_res, dtype=torch.uint8)
        of_none = (nothing, word, word) if isinstance(batches, list) else (nothing, picture)
        return chain(super()._shown(batches, label), repeat(of_none, most - len(batches)))


def _no_view(_: nn.Module, __: Any, output: Any) -> Any:
    """A copy of a unit's output that is a view: work in place on one would have FSDP2 miss the unit's backward."""
    return output.clone() if isinstance(output, Tensor) and output._is_view() else output


def _whole(value: Any) -> Any:
    if not isinstance(value, DTensor):
        return value
    whole = value.full_tensor()
    return whole.cpu() if processes.is_main() else whole.to("meta")


def _divided(value: Any, like: Tensor) -> Any:
    """This process's part of a whole tensor; other values as they are."""
    if not isinstance(like, DTensor) or not isinstance(value, Tensor) or value.shape != like.shape:
        return value
    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements, src_data_rank=None)

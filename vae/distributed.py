"""Several processes, one training run: the processes of `torchrun` or `accelerate launch`, or this one alone.

Legend: T terms, B pictures of a global batch, b those of one process, R processes.
"""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Literal

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from fonts_manifest.errors import BadInput

Strategy = Literal["ddp", "fsdp"]
"""ddp: every process holds the whole model; fsdp: each holds a part of every weight (FSDP2), for models too large."""


@dataclass(frozen=True, slots=True)
class Ranks:
    """The place of this process among those of the run."""

    rank: int
    world: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        """Whether this process writes what is written once."""
        return self.rank == 0

    def gather(self, values_Tb: torch.Tensor) -> torch.Tensor:
        """(T, B) values of the global batch, in its order: process r holds the slots r, r + R, ..."""
        if self.world == 1:
            return values_Tb
        parts = [torch.empty_like(values_Tb) for _ in range(self.world)]
        dist.all_gather(parts, values_Tb.contiguous())
        return torch.stack(parts, dim=2).flatten(1)

    def mean(self, tensor: torch.Tensor) -> torch.Tensor:
        """The mean over the processes."""
        if self.world == 1:
            return tensor
        total = tensor.clone()
        dist.all_reduce(total)
        return total / self.world

    def wait(self) -> None:
        """Until every process is here."""
        if self.world > 1:
            dist.barrier()


@contextmanager
def joined(device: Literal["auto", "cpu", "cuda"] = "auto") -> Iterator[Ranks]:
    """This process among those that its launcher started (`RANK`, `WORLD_SIZE`, `LOCAL_RANK`); alone without one.

    Processes with a GPU speak through NCCL, others through gloo. Raises BadInput when a GPU is asked for that is not
    there, or another process cannot be reached.
    """
    world, rank, local = (int(os.environ.get(name, default)) for name, default in _LAUNCHER.items())
    if device == "cuda" and not torch.cuda.is_available():
        raise BadInput("machine.device is cuda, but torch sees no GPU here; set it to auto or cpu")
    on_gpu = device != "cpu" and torch.cuda.is_available()
    if on_gpu and local >= torch.cuda.device_count():
        raise BadInput(f"process {local} of this machine has no GPU of its own: there are {torch.cuda.device_count()}")
    place = torch.device("cuda", local) if on_gpu else torch.device("cpu")
    if on_gpu:
        torch.cuda.set_device(place)
    ours = world > 1 and not dist.is_initialized()
    if ours:
        try:
            dist.init_process_group("nccl" if on_gpu else "gloo")
        except (ValueError, RuntimeError) as error:
            raise BadInput(f"process {rank} of {world} finds no other ({error}); start them with torchrun") from error
    try:
        yield Ranks(rank, world, place)
    finally:
        if ours:
            dist.destroy_process_group()


_LAUNCHER = {"WORLD_SIZE": "1", "RANK": "0", "LOCAL_RANK": "0"}


def parallel(module: nn.Module, ranks: Ranks, strategy: Strategy, units: type[nn.Module]) -> nn.Module:
    """`module`, on its device, as all processes train it together.

    units: of fsdp, the parts whose weights are gathered and let go one after the other.
    """
    module.to(ranks.device)
    if strategy == "fsdp":
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        if ranks.world == 1:
            raise BadInput("machine.strategy fsdp shares a model among processes, and there is one; set it to ddp")
        mesh = init_device_mesh(ranks.device.type, (ranks.world,))
        for part in [part for part in module.modules() if isinstance(part, units)]:
            fully_shard(part, mesh=mesh)
        # Also of the root, so that its parameters are shards whenever nothing runs.
        fully_shard(module, mesh=mesh, reshard_after_forward=True)
        return module
    if ranks.world == 1:
        return module
    ids = [ranks.device.index] if ranks.device.type == "cuda" else None
    return DistributedDataParallel(module, device_ids=ids, gradient_as_bucket_view=True)


def without_exchange(module: nn.Module, wanted: bool) -> AbstractContextManager[None]:
    """A context in which gradients stay on their process, for all but the last part of an accumulated batch."""
    if isinstance(module, DistributedDataParallel) and wanted:
        return module.no_sync()
    return nullcontext()


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """A sharded tensor put together (every process must call it); any other tensor itself."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def fill(tensor: torch.Tensor, value: torch.Tensor) -> None:
    """Copy a whole value into a tensor, sharded or not."""
    if isinstance(tensor, DTensor):
        value = distribute_tensor(value.to(tensor.device), tensor.device_mesh, tensor.placements)
    tensor.copy_(value)

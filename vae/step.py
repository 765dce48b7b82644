"""One training step: reconstruct, weigh, send gradients back, judge, update.

Legend: B pictures of the global batch, b those of this process, T terms, H W pixels.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from fonts_manifest.errors import BadInput
from vae.batch import Batch, levels_to_unit_range
from vae.capacity import memory_explained
from vae.checkpoint import Trained
from vae.distributed import Ranks, whole, without_exchange
from vae.feed import StagedFeed
from vae.guard import Guard
from vae.objective import Objective
from vae.optim import learning_rate
from vae.recipes import TrainRecipe
from vae.trainee import Trainee


@dataclass(frozen=True, slots=True)
class Run:
    """All that the steps of a run work with."""

    recipe: TrainRecipe
    ranks: Ranks
    feed: StagedFeed
    trained: Trained
    trainee: Trainee
    module: nn.Module
    """The trainee as all processes train it."""
    objective: Objective
    guard: Guard

    def autocast(self) -> torch.autocast:
        """The context in which networks run."""
        wanted = self.recipe.machine.precision == "bfloat16"
        return torch.autocast(self.ranks.device.type, torch.bfloat16, enabled=wanted)

    @property
    def takes_part(self) -> bool:
        """Whether this process reconstructs what is measured or saved once: where weights are shared all must."""
        return self.ranks.is_main or self.recipe.machine.strategy == "fsdp"

    def reconstruct(self, images_B3HW: torch.Tensor) -> torch.Tensor:
        """Pictures through the weights as they are, as a codec; float32, not clamped."""
        output: torch.Tensor = self.trainee(images_B3HW.to(self.ranks.device)).output_B3HW
        return output


def train_step(run: Run, step: int, batch: Batch) -> dict[str, Any]:
    """One optimizer step, left out when the guard refuses it. Returns what the log keeps of it.

    Raises BadInput when memory does not suffice, saying what to lower.
    """
    recipe, optimizer = run.recipe, run.trained.optimizer
    rate = learning_rate(recipe.optim, step, recipe.steps)
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.zero_grad(set_to_none=True)
    with memory_explained(lambda: _what_to_lower(run, step, batch)):
        names, terms_Tb = _send_back(run, step, batch)
        norm = whole(nn.utils.clip_grad_norm_(run.trainee.parameters(), recipe.optim.max_grad_norm))
    terms_TB = run.ranks.gather(terms_Tb)
    loss, grad_norm = float(terms_TB.sum(0).mean()), float(norm)
    accepted = run.guard.accepts(loss, grad_norm)
    if accepted:
        optimizer.step()
    return {
        "step": step,
        "finite": accepted,
        "loss": loss,
        "terms": dict(zip(names, terms_TB.mean(1).tolist(), strict=True)),
        **_by_source(run.feed, step, names, terms_TB),
        "lr": rate,
        "grad_norm": grad_norm,
        "pictures": terms_TB.shape[1],
        "crop": list(batch.levels_B3HW.shape[2:]),
    }


def _send_back(run: Run, step: int, batch: Batch) -> tuple[list[str], torch.Tensor]:
    """Leave the gradient of the mean loss in the parameters; names of the terms and their values (T, b)."""
    count, parts = len(batch.levels_B3HW), run.recipe.machine.accumulate
    if count % parts:
        raise BadInput(f"machine.accumulate {parts} does not divide the {count} pictures of a process")
    found: list[dict[str, torch.Tensor]] = []
    for number, part in enumerate(torch.from_numpy(batch.levels_B3HW).chunk(parts)):
        quads_px = batch.quads_px[number * count // parts : (number + 1) * count // parts]
        levels = part.to(run.ranks.device, non_blocking=True)
        images = levels_to_unit_range(levels).contiguous(memory_format=torch.channels_last)
        with without_exchange(run.module, number < parts - 1):
            with run.autocast():
                result = run.module(images)
            last = run.trainee.last_encoder_weight
            terms = run.objective.terms(step, images, result, quads_px, run.autocast, last, run.ranks.mean)
            (torch.stack(list(terms.values())).sum(0).mean() / parts).backward()
        found.append({name: term.detach() for name, term in terms.items()})
    return list(found[0]), torch.cat([torch.stack(list(terms.values())) for terms in found], dim=1)


def _by_source(feed: StagedFeed, step: int, names: list[str], terms_TB: torch.Tensor) -> dict[str, Any]:
    """Source by source: pictures and mean loss, mean of every term, share as scheduled and as realised so far."""
    curriculum = feed.curriculum
    counts = curriculum.counts_before(step + 1)
    record: dict[str, Any] = {"by_source": {}, "terms_by_source": {}, "share_scheduled": {}, "share_realised": {}}
    slots = torch.tensor(curriculum.slots(step))
    for index, source in enumerate(curriculum.names):
        record["share_scheduled"][source] = float(curriculum.shares_at(step)[index])
        record["share_realised"][source] = counts[index] / sum(counts)
        own_TB = terms_TB[:, slots == index]
        if own_TB.shape[1]:
            record["by_source"][source] = [own_TB.shape[1], float(own_TB.sum(0).mean())]
            record["terms_by_source"][source] = dict(zip(names, own_TB.mean(1).tolist(), strict=True))
    return record


def _what_to_lower(run: Run, step: int, batch: Batch) -> str:
    count, _, height, width = batch.levels_B3HW.shape
    machine, left = run.recipe.machine, []
    at_once = count // machine.accumulate
    if at_once > 1:
        left.append(f"raise machine.accumulate (now {machine.accumulate})")
    if not machine.activation_checkpointing:
        left.append("set machine.activation_checkpointing to true")
    if machine.precision == "float32" and run.ranks.device.type == "cuda":
        left.append("set machine.precision to bfloat16")
    if run.ranks.world > 1 and machine.strategy == "ddp":
        left.append("set machine.strategy to fsdp")
    left.append(f"lower batch or crop_px of the stage (now {width}x{height} px)")
    return (
        f"memory does not suffice for {at_once} pictures of {width}x{height} px at once in step {step}: "
        f"{', or '.join(left)}; the same command then goes on from the last checkpoint"
    )

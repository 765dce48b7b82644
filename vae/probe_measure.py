"""What a probe measures: the proxies of its latents, gFID and Inception Score of its samples, and their floors.

Legend: B N pictures, H W pixels, D features, K classes.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from vae.batch import to_uint8, to_unit_range
from vae.fid import frechet_distance, load_inception
from vae.generator import Prepared, ProbeRecipe, read_samples
from vae.latents import LatentSet, Progress, read_pictures
from vae.proxies import (
    effective_channels,
    equivariance_errors,
    high_share,
    knn_accuracy,
    radial_spectrum,
    spectral_slope,
)

Pictures = npt.NDArray[np.uint8]
_Values = npt.NDArray[np.float64]
Spectra = dict[str, tuple[_Values, _Values]]
"""Name -> frequencies and power shares, see `radial_spectrum`."""
Look = Callable[[Pictures], tuple[_Values, _Values]]
"""uint8 pictures (B, H, W, 3) to features (B, D) and class logits (B, K)."""

_SHOWN = 24
_PROXY_PICTURES = 256
_MAX_CELLS = 50_000
SCORE_SPLITS = 10
"""Inception Score over so many parts when each has at least 500 samples, as usual for 50,000; else over all at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    """Features and logits of one set of pictures, and the first of the pictures."""

    features_ND: _Values
    logits_NK: _Values
    first: Pictures


def inception_score(logits_NK: _Values, splits: int) -> tuple[float, float]:
    """exp of the mean divergence of a picture's classes from all pictures', its mean and spread over `splits` parts.

    Salimans et al. 2016 (arXiv:1606.03498). 1 when all pictures look alike, the number of classes at best.
    """
    shifted = logits_NK - logits_NK.max(axis=1, keepdims=True)
    log_NK = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    scores = []
    for part in np.array_split(log_NK, splits):
        marginal = np.exp(part).mean(axis=0)
        scores.append(np.exp((np.exp(part) * (part - np.log(np.maximum(marginal, 1e-300)))).sum(axis=1).mean()))
    return float(np.mean(scores)), float(np.std(scores))


def open_inception(weights: Path, device: torch.device) -> Look:
    """The network of FID as a look at pictures; logits without the last bias, as the score is computed elsewhere."""
    model = load_inception(weights).to(device)

    @torch.no_grad()
    def look(pictures_BHW3: Pictures) -> tuple[_Values, _Values]:
        features = model(to_unit_range(pictures_BHW3).to(device) / 2 + 0.5)
        logits = features @ model.fc.weight.T
        return features.double().cpu().numpy(), logits.double().cpu().numpy()

    return look


# ---- proxies ---------------------------------------------------------------------------------------------------------


def measure_proxies(recipe: ProbeRecipe, prepared: Prepared) -> tuple[dict[str, Any], Spectra]:
    """What needs no generator, on held-out pictures; and the spectra of latents and of the pictures shrunk to cells."""
    held = prepared.held_out
    count = min(_PROXY_PICTURES, len(held))
    raw = held.restore(held.read(list(range(count))))
    latents = prepared.train.standardise(raw)
    pictures = _read(prepared, held=True, most=count, recipe=recipe)
    images = to_unit_range(pictures)
    proxies: dict[str, Any] = {"pictures": count, "effective_channels": effective_channels(latents)}
    spectra: Spectra = {}
    if prepared.autoencoder.cells >= 4:
        shrunk = torch.nn.functional.adaptive_avg_pool2d(images, prepared.autoencoder.cells)
        spectra = {"latents": radial_spectrum(latents), "pictures, averaged to cells": radial_spectrum(shrunk)}
        proxies["spectrum"] = {
            name: {"slope": spectral_slope(*spectrum), "share_above_half": high_share(*spectrum)}
            for name, spectrum in spectra.items()
        }
    else:
        proxies["spectrum"] = None
        proxies["spectrum_note"] = "needs at least 4 x 4 latent cells"
    k = min(10, max(1, count // 10))
    try:
        accuracy, chance = knn_accuracy(latents, held.labels_N[:count], k)
        proxies["knn"] = {"k": k, "accuracy": accuracy, "commonest_class": chance}
    except ValueError as reason:
        proxies["knn"], proxies["knn_note"] = None, str(reason)
    few = images[: min(count, recipe.encode_batch)]
    try:
        errors = equivariance_errors(prepared.autoencoder.encode, prepared.autoencoder.decode, few)
        proxies["equivariance"] = {n: {"latent_error": e, "picture_psnr_db": p} for n, (e, p) in errors.items()}
    except (RuntimeError, ValueError) as reason:
        proxies["equivariance"], proxies["equivariance_note"] = None, f"half the size does not fit this model: {reason}"
    return proxies, spectra


def _read(prepared: Prepared, *, held: bool, most: int, recipe: ProbeRecipe) -> Pictures:
    listed = prepared.held_out_listed if held else prepared.train_listed
    found: list[Pictures] = []
    for _, square_HW3 in read_pictures(listed, recipe.pictures):
        found.append(square_HW3)
        if len(found) == most:
            break
    return np.stack(found)


# ---- generation ------------------------------------------------------------------------------------------------------


def measure_generation(
    recipe: ProbeRecipe,
    prepared: Prepared,
    samples: dict[str, list[Path]],
    look: Look | None,
    progress: Progress,
) -> tuple[dict[str, Any], dict[str, Pictures]]:
    """Distances of each sampler's pictures to the training pictures, beside those of real ones.

    floors: held-out pictures, and their reconstructions, which is about what perfect latents would give from as many
    pictures. Also without Inception weights: the Frechet distance of the standardised latents of single cells.
    """
    held_count = len(prepared.held_out)
    shown: dict[str, Pictures] = {"held out": _read(prepared, held=True, most=_SHOWN, recipe=recipe)}
    cells_train = _cells(_batches(prepared, prepared.train, recipe), len(prepared.train), prepared)
    cells_held = _cells(_batches(prepared, prepared.held_out, recipe), held_count, prepared)
    found: dict[str, Any] = {
        "reference": f"{min(recipe.samples, len(prepared.train))} training pictures",
        "floors": {"held_out": {"pictures": held_count, "latent_frechet": frechet_distance(cells_held, cells_train)}},
        "samplers": {},
    }
    reference = None
    if look is None:
        found["note"] = "gFID and IS need the weights of FID's Inception network; give their file with --inception"
    else:
        batches = _in_batches(read_pictures(prepared.train_listed, recipe.pictures), recipe)
        reference = _see(batches, look, recipe.samples).features_ND
    held = _see(_in_batches(read_pictures(prepared.held_out_listed, recipe.pictures), recipe), look, held_count)
    rebuilt = _see(_decoded(_batches(prepared, prepared.held_out, recipe), prepared), look, held_count)
    shown["held out, reconstructed"] = rebuilt.first
    found["floors"]["held_out"]["fid"] = _distance(held, reference)
    found["floors"]["reconstructed"] = {"pictures": held_count, "fid": _distance(rebuilt, reference)}
    for name, files in samples.items():
        seen = _see(_decoded(map(read_samples, files), prepared), look, recipe.samples)
        cells = _cells(map(read_samples, files), recipe.samples, prepared)
        fewer = _cells(map(read_samples, files), held_count, prepared)
        shown[name] = seen.first
        score = None
        if look is not None:
            splits = SCORE_SPLITS if recipe.samples >= 500 * SCORE_SPLITS else 1
            score = dict(zip(("mean", "std"), inception_score(seen.logits_NK, splits), strict=True)) | {
                "splits": splits
            }
        found["samplers"][name] = {
            "pictures": recipe.samples,
            "fid": _distance(seen, reference),
            "fid_of_as_many_as_held_out": _distance(seen, reference, held_count),
            "inception_score": score,
            "latent_frechet": frechet_distance(cells, cells_train),
            "latent_frechet_of_as_many_as_held_out": frechet_distance(fewer, cells_train),
        }
        progress(f"measure {name}", 1, 1, {})
    return found, shown


def _distance(seen: _Seen, reference: _Values | None, most: int | None = None) -> float | None:
    return None if reference is None else frechet_distance(seen.features_ND[:most], reference)


def _batches(prepared: Prepared, latents: LatentSet, recipe: ProbeRecipe) -> Iterable[torch.Tensor]:
    """Raw latents of a cached set."""
    for start in range(0, len(latents), recipe.encode_batch):
        indices = list(range(start, min(start + recipe.encode_batch, len(latents))))
        yield latents.restore(latents.read(indices))


def _in_batches(pictures: Iterable[tuple[int, Pictures]], recipe: ProbeRecipe) -> Iterable[Pictures]:
    waiting: list[Pictures] = []
    for _, picture in pictures:
        waiting.append(picture)
        if len(waiting) == recipe.encode_batch:
            yield np.stack(waiting)
            waiting = []
    if waiting:
        yield np.stack(waiting)


def _decoded(latents: Iterable[torch.Tensor], prepared: Prepared) -> Iterable[Pictures]:
    return (to_uint8(prepared.autoencoder.decode(batch)) for batch in latents)


def _cells(latents: Iterable[torch.Tensor], pictures: int, prepared: Prepared) -> _Values:
    """(M, C): standardised latents of single cells, of `pictures` pictures at most, evenly thinned to _MAX_CELLS."""
    step = max(1, -(-pictures * prepared.autoencoder.cells**2 // _MAX_CELLS))
    parts, seen = [], 0
    for batch in latents:
        taken = prepared.train.standardise(batch[: pictures - seen])
        parts.append(taken.permute(0, 2, 3, 1).flatten(0, 2)[::step])
        seen += len(taken)
    return torch.cat(parts).double().numpy()


def _see(batches: Iterable[Pictures], look: Look | None, most: int) -> _Seen:
    """At most `most` pictures looked at; without a look only the first ones are decoded, to be shown."""
    features: list[_Values] = []
    logits: list[_Values] = []
    first: list[Pictures] = []
    seen = 0
    for batch in batches:
        if sum(len(part) for part in first) < _SHOWN:
            first.append(batch)
        if look is None and sum(len(part) for part in first) >= _SHOWN:
            break
        if look is not None:
            batch_features, batch_logits = look(batch[: most - seen])
            features.append(batch_features)
            logits.append(batch_logits)
        seen += len(batch)
        if seen >= most:
            break
    empty = np.empty((0, 0))
    return _Seen(
        features_ND=np.concatenate(features) if features else empty,
        logits_NK=np.concatenate(logits) if logits else empty,
        first=np.concatenate(first)[:_SHOWN],
    )

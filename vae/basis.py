"""A PCA basis as a file: safetensors with `rows`, `scales`, `centre`, and what it was made from."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from fonts_manifest.errors import BadInput
from vae.skip import Basis


@dataclass(frozen=True, slots=True, kw_only=True)
class BasisFacts:
    """What a basis was made from."""

    factor: int
    """Pixels a cell is wide."""
    cells: int
    """How many cells it was fitted to."""
    explained: float
    """Share of the variance of those cells that all its rows keep."""


def save_basis(basis: Basis, facts: BasisFacts, path: Path) -> None:
    """Raises BadInput when the file cannot be written."""
    metadata = {"factor": str(facts.factor), "cells": str(facts.cells), "explained": f"{facts.explained:.6f}"}
    arrays = {"rows": basis.rows_CD, "scales": basis.scales_C, "centre": basis.centre_D}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, path, metadata)
    except (OSError, SafetensorError) as error:
        raise BadInput(f"{path}: cannot be written ({error})") from None


def load_basis(path: Path, factor: int, channels: int) -> Basis:
    """The basis in a file, for cells of `factor` x `factor` pixels, with at least so many rows.

    Raises BadInput when there is no such file, it is something else, or a basis of another shape.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            arrays = [np.asarray(file.get_tensor(name), np.float32) for name in ("rows", "scales", "centre")]
    except (OSError, SafetensorError) as error:
        raise BadInput(f"{path}: cannot be read as a basis ({error}); `glyphmill model fit-basis` makes one") from None
    basis = Basis(*arrays)
    rows, size = basis.rows_CD.shape if basis.rows_CD.ndim == 2 else (0, 0)
    if basis.scales_C.shape != (rows,) or basis.centre_D.shape != (size,) or size != 3 * factor**2 or rows < channels:
        raise BadInput(
            f"{path}: {channels} rows for cells of {factor}x{factor} px are needed, it has {rows} of {size} numbers "
            f"({3 * factor**2} are needed): make it for this model"
        )
    return basis

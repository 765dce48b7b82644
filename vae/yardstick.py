"""What a plain linear map keeps of pictures: bases fitted to shards, and the accuracy of the untrained skip.

Legend: H W pixels, N cells, C channels, D numbers of a cell.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from datagen.decode import SUFFIXES, ImageProblem, decode_image
from datagen.plan import GenerateRecipe
from datagen.recipes import BUNDLED, find_recipe, load_recipe
from fonts_manifest.errors import BadInput
from fonts_manifest.places import find_files, resolve_place
from vae.basis import BasisFacts, load_basis
from vae.batch import to_unit_range
from vae.family import model_config
from vae.feed import open_source
from vae.skip import Basis, CellMoments, LinearSkip, cells_of
from vae.source import SourceConfig

Picture = npt.NDArray[np.uint8]
"""(H, W, 3) sRGB."""

SQUARE_CELLS = 4
"""Cells are taken in squares of so many a side."""

CELLS_A_NUMBER = 30
"""Cells to fit to, for each number of a cell."""

YARDSTICK_CELLS_A_NUMBER = 4
"""The same for a figure on a screen: a few seconds for cells of 32 x 32 pixels."""


def fit_basis(
    runs: Sequence[str],
    factor: int,
    rows: int,
    *,
    cells: int | None = None,
    advance: Callable[[int, int], object] = lambda done, total: None,
) -> tuple[Basis, BasisFacts]:
    """The principal components of the pictures of finished runs, those aside that training holds out by default.

    Squares are taken from random places of as many pictures as there are, equally many cells from every run. Raises
    BadInput when a run is none or all together give too few cells.
    """
    wanted = cells or CELLS_A_NUMBER * 3 * factor**2
    moments = CellMoments(3 * factor**2)
    for number, run in enumerate(runs):
        enough = (number + 1) * wanted // len(runs)
        source = open_source(SourceConfig(name=run, run=run), SQUARE_CELLS * factor, hold_out=0.05)
        reader = source.reader(0, 0)
        pictures = (reader.fetch(ordinal).image_HW3 for ordinal in range(source.train_rows))
        for cells_ND in _cells(pictures, factor, _squares(enough - moments.count, source.train_rows)):
            moments.add(cells_ND[: enough - moments.count])
            advance(moments.count, wanted)
            if moments.count >= enough:
                break
    try:
        basis = moments.components(rows)
    except ValueError as error:
        raise BadInput(f"{', '.join(runs)}: too little for a PCA: {error}; give more pictures") from None
    explained = float((basis.scales_C.astype(np.float64) ** 2).sum() / moments.variance)
    return basis, BasisFacts(factor=factor, cells=moments.count, explained=explained)


def _squares(cells: int, pictures: int) -> int:
    """How many each picture gives for so many cells together."""
    return max(1, -(-cells // (SQUARE_CELLS**2 * max(1, pictures))))


def _cells(pictures: Iterable[Picture], factor: int, squares: int) -> Iterator[npt.NDArray[np.float32]]:
    """Cells of so many random squares of each picture; pictures smaller than a square give none."""
    side = SQUARE_CELLS * factor
    for number, image_HW3 in enumerate(pictures):
        rng = np.random.Generator(np.random.Philox(np.random.SeedSequence(0, spawn_key=(number,))))
        down, across = image_HW3.shape[0] - side, image_HW3.shape[1] - side
        if min(down, across) < 0:
            continue
        corners = rng.integers(0, (down + 1, across + 1), (squares, 2))
        parts = [image_HW3[y : y + side, x : x + side] for y, x in corners]
        yield cells_of(to_unit_range(np.stack(parts)), factor)


def read_pictures(places: Iterable[str]) -> list[Picture]:
    """All pictures that can be read. Raises BadInput when there is none."""
    pictures, problems = [], []
    files = find_files(places, SUFFIXES)
    for path in files:
        try:
            pictures.append(decode_image(path))
        except ImageProblem as problem:
            problems.append(f"{path.name}: {problem}")
    if not pictures:
        why = f"; {problems[0]}" if problems else ""
        raise BadInput(f"{', '.join(places)}: no picture found{why}")
    return pictures


def describe_bare_skip(name: str, images: str | None, basis_file: Path | None) -> dict[str, float | None]:
    """`bare_skip_psnr_db` at the shape of a member of the family, on pictures or on the demo's photographs; empty when
    none of those is installed.

    Raises BadInput for an unknown name, no pictures, a basis of another shape.
    """
    config = model_config(name)
    factor = 2 ** (len(config.encoder_widths) - 1)
    basis = None if basis_file is None else load_basis(basis_file, factor, config.latent_channels)
    places = [images] if images else demo_photographs()
    if not places:
        return {}
    return bare_skip_psnr_db(factor, config.latent_channels, read_pictures(places), basis)


def demo_photographs() -> list[str]:
    """Photographs inside the wheels of dependencies, as the demo's recipe lists them; those that are installed."""
    recipe = load_recipe(find_recipe("demo-generate", [BUNDLED]), GenerateRecipe)
    return [str(path) for photo in recipe.photos.places if (path := _installed(photo.place)) is not None]


def _installed(place: str) -> Path | None:
    try:
        path = resolve_place(place)
    except BadInput:
        return None
    return path if path.is_file() else None


def bare_skip_psnr_db(
    factor: int, channels: int, pictures: Sequence[Picture], basis: Basis | None = None
) -> dict[str, float | None]:
    """Mean PSNR of pictures through each linear map of C channels and back, no network: `mean`, `mean_morton`, `dct`
    and `pca`.

    The PCA is `basis`, or is fitted to every second picture and judged on the others, both ways round; None where they
    are too few. Sides lose what is no whole cell; smaller pictures are passed over.
    """
    whole = [picture[: _whole(picture, 0, factor), : _whole(picture, 1, factor)] for picture in pictures]
    whole = [picture for picture in whole if picture.size]
    if not whole:
        raise BadInput(f"no picture is as large as a cell of {factor}x{factor} px")
    plain = {
        "mean": LinearSkip(factor, channels, "mean"),
        "mean_morton": LinearSkip(factor, channels, "mean", "morton"),
        "dct": LinearSkip(factor, channels, "dct"),
    }
    found: dict[str, float | None] = {
        name: float(np.mean([_psnr_db(skip, picture) for picture in whole])) for name, skip in plain.items()
    }
    found["pca"] = _pca_psnr_db(factor, channels, whole, basis)
    return found


def _pca_psnr_db(factor: int, channels: int, pictures: Sequence[Picture], basis: Basis | None) -> float | None:
    skip, values = LinearSkip(factor, channels, "pca"), []
    if basis is not None:
        skip.use(basis)
        return float(np.mean([_psnr_db(skip, picture) for picture in pictures]))
    for part in (0, 1):
        others, moments = pictures[1 - part :: 2], CellMoments(3 * factor**2)
        for cells_ND in _cells(others, factor, _squares(YARDSTICK_CELLS_A_NUMBER * 3 * factor**2, len(others))):
            moments.add(cells_ND)
        if moments.count < channels:
            return None
        skip.use(moments.components(channels))
        values += [_psnr_db(skip, picture) for picture in pictures[part::2]]
    return float(np.mean(values))


def _whole(picture: Picture, axis: int, factor: int) -> int:
    return picture.shape[axis] // factor * factor


@torch.no_grad()
def _psnr_db(skip: LinearSkip, picture_HW3: Picture) -> float:
    """At most 100 dB, of 8-bit pictures."""
    original = to_unit_range(picture_HW3[None])
    output = skip.decode(skip.encode(original)).add(1).mul(127.5).round().clamp(0, 255)
    error = (output - original.add(1).mul(127.5)).square().mean()
    return float(min(100.0, 20 * np.log10(255) - 10 * np.log10(max(float(error), 1e-9))))

"""Folders of originals and reconstructions for the tests of `glyphmill eval`."""

from pathlib import Path

import numpy as np
from PIL import Image, PngImagePlugin

from datagen.reading import ReaderChoice
from vae.pixels import PixelChoice
from vae.score import score_folders
from vae.scorecard import Report, ScoreChoice

NO_WEIGHTS = PixelChoice(vgg_weights=None, inception_weights=None)

FAKE = ReaderChoice(name="rapidocr")


def save(path: Path, image: np.ndarray | Image.Image, read: str | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    info = PngImagePlugin.PngInfo()
    if read is not None:
        info.add_text("read", read)
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(path, pnginfo=info)
    return path


def noise(seed: int, size: tuple[int, int] = (16, 24)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def score(tmp_path: Path, mode: str = "pixel", **settings: object) -> Report:
    choice = ScoreChoice(**{"mode": mode, "reader": FAKE, "pixels": NO_WEIGHTS} | settings)
    return score_folders(tmp_path / "gt", tmp_path / "recon", tmp_path / "out", choice)


def two_texts(tmp_path: Path, texts: dict[str, tuple[str, str]]) -> None:
    for number, (name, (target, output)) in enumerate(texts.items()):
        save(tmp_path / "gt" / name, noise(number), target)
        save(tmp_path / "recon" / name, noise(number + 100), output)

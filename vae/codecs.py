"""Anything that turns pictures into fewer numbers and back, behind one interface.

Our models, diffusers' autoencoders, VA-VAE's and VTP's own files, linear maps, picture formats, programs, and pictures
that were reconstructed elsewhere.

Legend: B pictures, H W pixels.
"""

import io
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from pydantic import Field
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from datagen.decode import SUFFIXES, ImageProblem, decode_image
from fonts_manifest.config import Config
from fonts_manifest.errors import BadInput
from fonts_manifest.places import find_files
from vae.autoencoders import ImageAutoencoder
from vae.basis import load_basis
from vae.batch import to_uint8, to_unit_range
from vae.saved import load_model
from vae.skip import LinearSkip, SkipBasis
from vae.vavae import load_vavae
from vae.vtp import load_vtp

Pictures = npt.NDArray[np.uint8]
"""(B, H, W, 3) sRGB, all of one size."""

DiffusersClass = Literal[
    "AsymmetricAutoencoderKL",
    "AutoencoderDC",
    "AutoencoderKL",
    "AutoencoderKLAllegro",
    "AutoencoderKLCogVideoX",
    "AutoencoderKLCosmos",
    "AutoencoderKLFlux2",
    "AutoencoderKLHunyuanImage",
    "AutoencoderKLHunyuanVideo",
    "AutoencoderKLHunyuanVideo15",
    "AutoencoderKLLTXVideo",
    "AutoencoderKLLTX2Video",
    "AutoencoderKLMagvit",
    "AutoencoderKLMochi",
    "AutoencoderKLQwenImage",
    "AutoencoderKLQwenImage21",
    "AutoencoderKLWan",
    "AutoencoderRAE",
    "AutoencoderTiny",
    "VQModel",
]
"""FLUX.1, SD and SD3 are AutoencoderKL; Wan 2.1 and 2.2 are AutoencoderKLWan."""


class GlyphmillCodec(Config):
    """A model of ours."""

    kind: Literal["glyphmill"]
    name: str
    """In the tables."""
    path: Path
    """Folder of the saved model."""


class DiffusersCodec(Config):
    """An autoencoder of diffusers."""

    kind: Literal["diffusers"]
    name: str
    class_name: DiffusersClass
    path: Path
    """Folder with config.json and safetensors: what `save_pretrained` writes. Nothing is fetched."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"


class VAVAECodec(Config):
    """VA-VAE as LightningDiT publishes it: one checkpoint of the LDM autoencoder, f16 with 32 channels."""

    kind: Literal["vavae"]
    name: str
    path: Path
    """The .pt or .ckpt file; read with weights_only."""


class VTPCodec(Config):
    """VTP as MiniMax publishes it: the folder of its transformers model, f16 with 64 channels."""

    kind: Literal["vtp"]
    name: str
    path: Path
    """Folder with config.json and safetensors. Nothing is fetched."""


class LinearCodec(Config):
    """The untrained linear skip."""

    kind: Literal["linear"]
    name: str
    basis: SkipBasis = "dct"
    factor: int = Field(ge=2)
    """Spatial compression."""
    channels: int = Field(ge=1)
    fit: Path | None = None
    """Pictures to fit the PCA on: others than those it is judged on."""
    basis_file: Path | None = None
    """The PCA itself, made by `glyphmill model fit-basis`."""


class FormatCodec(Config):
    """A picture format at a fixed size: the best quality whose file is not larger."""

    kind: Literal["jpeg", "webp", "avif"]
    name: str
    bits_per_pixel: float = Field(gt=0)
    """A latent of C channels at 16 bits has 16 C / f^2: 4 for f16c64, 2 for f32c128."""


class FolderCodec(Config):
    """Pictures that another program has reconstructed: a sub-folder for each set, names as in the set."""

    kind: Literal["folder"]
    name: str
    path: Path


class ProgramCodec(Config):
    """A program of yours that reconstructs a folder of PNG files into another, under their names: for models whose
    code lives elsewhere, Step-Video's for instance, in an environment of their own."""

    kind: Literal["program"]
    name: str
    command: tuple[str, ...] = Field(min_length=1)
    """The program and its words; {originals} and {outputs} stand for the two folders."""
    compression: int | None = None
    """For the table, as are the channels."""
    channels: int | None = None


CodecConfig = Annotated[
    GlyphmillCodec | DiffusersCodec | VAVAECodec | VTPCodec | LinearCodec | FormatCodec | FolderCodec | ProgramCodec,
    Field(discriminator="kind"),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class CodecFacts:
    """What stands beside a codec's figures."""

    compression: int | None = None
    """Pixels a latent cell is wide; None when there are no cells."""
    channels: int | None = None
    encoder_params: int | None = None
    decoder_params: int | None = None
    encode_tflop: float | None = None
    """At the size of the set; a multiplication and an addition are two."""
    decode_tflop: float | None = None
    bits_per_pixel: float | None = None
    """Of the files of a picture format, as they came out."""


class Codec:
    """A codec that has been opened."""

    def __init__(
        self, reconstruct: Callable[[Pictures], Pictures], facts: Callable[[int], CodecFacts], multiple: int = 1
    ) -> None:
        self.reconstruct = reconstruct
        """(B, H, W, 3) uint8 to the same. Raises torch.OutOfMemoryError and RuntimeError as networks do."""
        self.facts = facts
        """Of a square picture of so many px; for a format after its pictures were made."""
        self.multiple = multiple
        """Sides must be multiples of it."""


def open_codec(config: CodecConfig, device: str = "cpu") -> Codec:
    """Raises BadInput when its files are missing or are those of something else."""
    match config:
        case GlyphmillCodec():
            return _network(load_model(config.path), device)
        case DiffusersCodec():
            return _network(_load_diffusers(config), device)
        case VAVAECodec():
            return _network(load_vavae(config.path), device)
        case VTPCodec():
            return _network(load_vtp(config.path), device)
        case LinearCodec():
            return _linear(config)
        case FormatCodec():
            return _format(config)
        case FolderCodec() | ProgramCodec():
            raise BadInput(f"{config.name}: pictures made elsewhere are read, not made")


def _load_diffusers(config: DiffusersCodec) -> nn.Module:
    import diffusers

    if not (config.path / "config.json").is_file():
        raise BadInput(f"{config.name}: {config.path} holds no config.json; name the folder of the autoencoder itself")
    try:
        model = getattr(diffusers, config.class_name).from_pretrained(
            config.path, torch_dtype=getattr(torch, config.dtype), local_files_only=True
        )
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        raise BadInput(f"{config.name}: {config.path} cannot be read as {config.class_name} ({error})") from error
    return model


def _network(model: Any, device: str) -> Codec:
    autoencoder = ImageAutoencoder(model, torch.device(device))

    def reconstruct(pictures_BHW3: Pictures) -> Pictures:
        output_B3HW = autoencoder.decode(autoencoder.encode(to_unit_range(pictures_BHW3)))
        height, width = pictures_BHW3.shape[1:3]
        return to_uint8(output_B3HW[..., :height, :width].float().cpu())

    def facts(size_px: int) -> CodecFacts:
        with FlopCounterMode(display=False) as of_encoder:
            latent_1Chw = autoencoder.encode(torch.zeros(1, 3, size_px, size_px))
        with FlopCounterMode(display=False) as of_decoder:
            autoencoder.decode(latent_1Chw)
        return CodecFacts(
            compression=size_px // latent_1Chw.shape[3],
            channels=latent_1Chw.shape[1],
            encoder_params=_parameters(model, "encoder"),
            decoder_params=_parameters(model, "decoder"),
            encode_tflop=of_encoder.get_total_flops() / 1e12,
            decode_tflop=of_decoder.get_total_flops() / 1e12,
        )

    return Codec(reconstruct, facts, multiple=_multiple(model))


def _multiple(model: Any) -> int:
    """What sides must be a multiple of: the model's own word, or the largest compression in use."""
    compression = getattr(model, "compression", None) or model.config.get("spatial_compression_ratio")
    return int(compression or 32)


def _parameters(model: nn.Module, part: str) -> int | None:
    module = getattr(model, part, None)
    return None if module is None else sum(weight.numel() for weight in module.parameters())


def _linear(config: LinearCodec) -> Codec:
    try:
        skip = LinearSkip(config.factor, config.channels, config.basis)
    except ValueError as error:
        raise BadInput(f"{config.name}: {error}") from None
    if config.basis == "pca" and config.basis_file is not None:
        skip.use(load_basis(config.basis_file, config.factor, config.channels))
    elif config.basis == "pca":
        if config.fit is None:
            raise BadInput(
                f"{config.name}: a PCA needs a basis_file, or pictures to fit (fit: FOLDER), others than those it is "
                "judged on"
            )
        skip.fit(to_unit_range(_cells(config.fit, config.factor)))

    @torch.no_grad()
    def reconstruct(pictures_BHW3: Pictures) -> Pictures:
        return to_uint8(skip.decode(skip.encode(to_unit_range(pictures_BHW3))))

    facts = CodecFacts(compression=config.factor, channels=config.channels, encoder_params=0, decoder_params=0)
    return Codec(reconstruct, lambda size_px: facts, multiple=config.factor)


def _cells(folder: Path, factor: int, most: int = 4000) -> Pictures:
    """Squares of 4 x 4 cells from everywhere in the pictures of a folder, equally many from each."""
    files = find_files([str(folder)], SUFFIXES)
    side, rng, squares = 4 * factor, np.random.default_rng(0), []
    for path in files:
        try:
            image_HW3 = decode_image(path)
        except ImageProblem:
            continue
        height, width = image_HW3.shape[:2]
        if min(height, width) < side:
            continue
        for _ in range(max(1, most // len(files))):
            y, x = int(rng.integers(height - side + 1)), int(rng.integers(width - side + 1))
            squares.append(image_HW3[y : y + side, x : x + side])
    if not squares:
        raise BadInput(f"{folder}: no picture of {side} px or more to fit a PCA on")
    return np.stack(squares)


def _format(config: FormatCodec) -> Codec:
    sizes_bits: list[tuple[int, int]] = []

    def reconstruct(pictures_BHW3: Pictures) -> Pictures:
        outputs = []
        for image_HW3 in pictures_BHW3:
            pixels = image_HW3.shape[0] * image_HW3.shape[1]
            data = fit_file(image_HW3, config.kind, config.bits_per_pixel * pixels / 8)
            sizes_bits.append((8 * len(data), pixels))
            outputs.append(np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))
        return np.stack(outputs)

    def facts(size_px: int) -> CodecFacts:
        bits, pixels = (sum(column) for column in zip(*sizes_bits, strict=True)) if sizes_bits else (0, 0)
        return CodecFacts(bits_per_pixel=bits / pixels if pixels else None)

    return Codec(reconstruct, facts)


def fit_file(image_HW3: npt.NDArray[np.uint8], kind: Literal["jpeg", "webp", "avif"], most_bytes: float) -> bytes:
    """The file of the best quality, 1 to 100, of at most `most_bytes`; that of quality 1 when none is so small.

    4:4:4 where the format allows it: halved colours blur coloured text.
    """
    low, high = 1, 100
    best = _encode(image_HW3, kind, low)
    while low < high:
        middle = (low + high + 1) // 2
        data = _encode(image_HW3, kind, middle)
        if len(data) <= most_bytes:
            low, best = middle, data
        else:
            high = middle - 1
    return best


def _encode(image_HW3: npt.NDArray[np.uint8], kind: Literal["jpeg", "webp", "avif"], quality: int) -> bytes:
    buffer = io.BytesIO()
    options: dict[str, dict[str, Any]] = {
        "jpeg": {"subsampling": 0},
        "webp": {"method": 4},
        "avif": {"subsampling": "4:4:4", "speed": 8},
    }
    Image.fromarray(image_HW3).save(buffer, kind.upper(), quality=quality, **options[kind])
    return buffer.getvalue()


def run_program(config: ProgramCodec, originals: Path, outputs: Path) -> CodecFacts:
    """Every picture of `originals` through the program. Raises BadInput when it fails, or leaves a picture out."""
    places = {"{originals}": str(originals.resolve()), "{outputs}": str(outputs.resolve())}
    words = [reduce(lambda text, place: text.replace(*place), places.items(), word) for word in config.command]
    try:
        done = subprocess.run(words, capture_output=True, text=True, errors="replace", check=False)
    except OSError as error:
        raise BadInput(f"{config.name}: {words[0]} cannot be started ({error.strerror})") from error
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise BadInput(f"{config.name}: {words[0]} failed ({said[-1] if said else f'exit code {done.returncode}'})")
    missing = sorted({path.name for path in originals.glob("*.png")} - {path.name for path in outputs.glob("*.png")})
    if missing:
        raise BadInput(f"{config.name}: {len(missing)} pictures were not made, the first is {missing[0]}")
    return CodecFacts(compression=config.compression, channels=config.channels)


def names_of(codecs: Sequence[CodecConfig]) -> list[str]:
    """Their names, which also name folders. Raises BadInput for one twice or one that is no name of a folder."""
    names = [codec.name for codec in codecs]
    for name in names:
        if names.count(name) > 1 or not name or Path(name).name != name or name.startswith("."):
            raise BadInput(f"codecs: {name!r} must be the only codec of that name, and a name a folder can have")
    return names

"""`glyphmill bench vae`: how fast the autoencoders are beside FLUX's, DC-AE and their own plain form, in one run.

Legend: B pictures, H W pixels, N side of a matrix.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from fonts_manifest.errors import BadInput
from vae.blocks import PixelRMSNormSiLU, Upsample
from vae.facts import saved_bytes, tflop
from vae.family import build_model, model_config

FLUX = "FLUX AutoencoderKL f8c16"
DC_AE = "DC-AE f32c32"


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchChoice:
    """What is measured and how."""

    models: tuple[str, ...] = ("f16c64", "f32c192")
    """Members of the family."""
    sizes_px: tuple[int, ...] = (256, 1024)
    """Sides of the pictures; training steps are measured at the first."""
    shrink: int = 1
    """All widths, of the others too, are divided by it: for CPUs. 1, 2 or 4."""
    megapixels: float = 2.0
    """Pictures of a batch together; halved as often as memory asks for."""
    rounds: int = 5
    """Everything is measured so often, turn about."""
    compiled: bool = True
    """Whether our models compiled as a whole stand in the table too."""

    def steps(self) -> int:
        """How often `bench_vae` says how far it is."""
        entrants = len(self.models) * (3 if self.compiled else 2) + 2
        return 1 + len(self.sizes_px) * entrants * (1 + self.rounds)


def default_choice(device: torch.device) -> BenchChoice:
    """The published models at 256 and 1024 px on a GPU; a quarter of their widths at 64 px on a CPU."""
    if device.type == "cuda":
        return BenchChoice()
    return BenchChoice(sizes_px=(64,), shrink=4, megapixels=64 * 64 / 1e6, rounds=3, compiled=False)


@dataclass(kw_only=True)
class Figures:
    """One autoencoder at one size. Speeds are medians over the rounds; None where memory did not suffice."""

    name: str
    size_px: int
    encoder_params: int
    decoder_params: int
    encode_tflop: float
    """A picture, as it runs."""
    decode_tflop: float
    batch: int = 0
    encode_images_per_s: float | None = None
    decode_images_per_s: float | None = None
    train_images_per_s: float | None = None
    """Forward, L1, backward, fused AdamW; at the first size only."""
    spread: dict[str, float] = field(default_factory=dict)
    """Largest over smallest time of the rounds."""
    saved_gib_per_image: float | None = None
    """What training keeps for the backward pass, counted on a real step."""
    encode_tflop_per_s: float | None = None
    decode_tflop_per_s: float | None = None
    over_flux: dict[str, float] = field(default_factory=dict)
    """Images/s of encode, decode, train over those of FLUX's at this size in this run."""


def bench_vae(
    choice: BenchChoice, device: torch.device, advance: Callable[[str], object] = lambda what: None
) -> dict[str, Any]:
    """Images/s of encoding, decoding and training, of ours, of their plain form (norms written out, nearest upsampling,
    NCHW) and of the others, measured turn about so that a busy machine slows all alike.

    On a GPU in bfloat16 autocast over float32 weights, by CUDA events; on a CPU in float32, by its CPU time.
    `advance` is called with what was measured. Raises BadInput for an unknown model, for sizes that are no multiples
    of 32, and for widths that cannot be divided so.
    """
    if choice.shrink not in (1, 2, 4):
        raise BadInput(f"FLUX's norms take widths of whole groups of 32, so divide by 1, 2 or 4, got {choice.shrink}")
    for size_px in choice.sizes_px:
        if size_px % 32:
            raise BadInput(f"sizes must be multiples of 32 px for all to take them, got {size_px}")
    clock = _Clock(device)
    torch.manual_seed(0)
    entrants = [_Entrant(name, model, device) for name, model in _contestants(choice)]
    matrix = clock.tflop_per_s()
    advance("matrix product")
    found: list[Figures] = []
    for size_px in choice.sizes_px:
        figures = [entrant.describe(size_px) for entrant in entrants]
        tasks = []
        for one, entrant in zip(figures, entrants, strict=True):
            tasks.append(entrant.settle(one, choice.megapixels, training=size_px == choice.sizes_px[0]))
            advance(f"{one.name}, {size_px} px: warm")
        seconds: dict[tuple[int, str], list[float]] = {}
        for _ in range(choice.rounds):
            for number, of_entrant in enumerate(tasks):
                for what, work in of_entrant.items():
                    seconds.setdefault((number, what), []).append(clock.seconds(work))
                advance(f"{figures[number].name}, {size_px} px")
        for (number, what), times in seconds.items():
            _note(figures[number], what, times)
        _compare(figures)
        found += figures
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu, one process",
        "arithmetic": "bfloat16 autocast over float32 weights" if device.type == "cuda" else "float32",
        "torch": torch.__version__,
        "widths_divided_by": choice.shrink,
        "matrix_tflop_per_s": matrix,
        "figures": [asdict(one) for one in found],
    }


def _contestants(choice: BenchChoice) -> list[tuple[str, nn.Module]]:
    """Ours, their plain forms, FLUX's and DC-AE, freshly initialised."""
    from diffusers import AutoencoderDC, AutoencoderKL

    def narrow(*widths: int) -> tuple[int, ...]:
        return tuple(width // choice.shrink for width in widths)

    found: list[tuple[str, nn.Module]] = []
    for name in choice.models:
        config = model_config(name)
        widths = {"encoder_widths": narrow(*config.encoder_widths), "decoder_widths": narrow(*config.decoder_widths)}
        config = config.model_copy(update=widths)
        found.append((name, build_model(config).to(memory_format=torch.channels_last)))
        if choice.compiled:
            compiled = build_model(config).to(memory_format=torch.channels_last)
            compiled.encoder.compile()
            compiled.decoder.compile()
            found.append((f"{name} compiled", compiled))
        found.append((f"{name} plain", write_out(build_model(config))))
    flux = AutoencoderKL(
        block_out_channels=narrow(128, 256, 512, 512),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        latent_channels=16,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )
    dc_widths, stages = narrow(128, 256, 512, 512, 1024, 1024), ("ResBlock",) * 3 + ("EfficientViTBlock",) * 3
    dc_ae = AutoencoderDC(
        encoder_block_types=stages,
        decoder_block_types=stages,
        encoder_block_out_channels=dc_widths,
        decoder_block_out_channels=dc_widths,
        upsample_block_type="interpolate",
        downsample_block_type="stride_conv",
    )
    return [*found, (FLUX, flux), (DC_AE, dc_ae)]


def write_out(model: nn.Module) -> nn.Module:
    """The same model as one would write it first: norm and SiLU one operation after the other, pixels doubled and then
    convolved."""
    for module in model.modules():
        if isinstance(module, PixelRMSNormSiLU):
            setattr(module, "forward", _norm_then_silu(module.gamma))  # noqa: B010 - mypy forbids the plain way
        elif isinstance(module, Upsample):
            setattr(module, "forward", _nearest_then(module.conv))  # noqa: B010
    return model


def _norm_then_silu(gain_C: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    def forward(x_BCHW: torch.Tensor) -> torch.Tensor:
        unit_BCHW = F.normalize(x_BCHW.float(), dim=1).to(x_BCHW.dtype)
        return F.silu(unit_BCHW * x_BCHW.shape[1] ** 0.5 * gain_C.to(x_BCHW.dtype).view(1, -1, 1, 1))

    return forward


def _nearest_then(convolution: nn.Conv2d) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda x_BCHW: convolution(F.interpolate(x_BCHW, scale_factor=2.0, mode="nearest"))


class _Entrant:
    """An autoencoder of diffusers' interface with what measuring it needs."""

    def __init__(self, name: str, model: nn.Module, device: torch.device) -> None:
        self.name, self.device = name, device
        self.model: Any = model.to(device)
        self._optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, fused=True)

    def describe(self, size_px: int) -> Figures:
        image = self._images(1, size_px)
        with torch.no_grad(), self._autocast():
            latent = self._encode(image)
        with self._autocast():
            encode, decode = tflop(self._encode, image), tflop(self._decode, latent)
        return Figures(
            name=self.name,
            size_px=size_px,
            encoder_params=sum(p.numel() for p in self.model.encoder.parameters()),
            decoder_params=sum(p.numel() for p in self.model.decoder.parameters()),
            encode_tflop=encode,
            decode_tflop=decode,
        )

    def settle(self, figures: Figures, megapixels: float, *, training: bool) -> dict[str, Callable[[], object]]:
        """What is timed, by name, warmed up, at the largest batch that fits into memory; nothing where none does.

        Notes the batch, and for training what is kept for the backward pass.
        """
        batch = max(1, round(megapixels * 1e6 / figures.size_px**2))
        while batch:
            try:
                tasks = self._tasks(batch, figures.size_px, training=training)
                for work in tasks.values():
                    work()
            except torch.OutOfMemoryError:
                self._optimizer.zero_grad(set_to_none=True)
                torch.cuda.empty_cache()
                batch //= 2
            else:
                figures.batch = batch
                if training:
                    figures.saved_gib_per_image = self._saved_gib(figures.size_px)
                return tasks
        return {}

    def _saved_gib(self, size_px: int) -> float:
        with self._autocast():
            one, two = (saved_bytes(self.model, self._images(count, size_px)) for count in (1, 2))
        return (two - one) / 2**30

    def _tasks(self, batch: int, size_px: int, *, training: bool) -> dict[str, Callable[[], object]]:
        images = self._images(batch, size_px)
        with torch.no_grad(), self._autocast():
            latents = self._encode(images)
        tasks: dict[str, Callable[[], object]] = {
            "encode": lambda: self._look(self._encode, images),
            "decode": lambda: self._look(self._decode, latents),
        }
        return tasks | ({"train": lambda: self._train(images)} if training else {})

    def _look(self, function: Callable[[torch.Tensor], torch.Tensor], argument: torch.Tensor) -> None:
        with torch.no_grad(), self._autocast():
            function(argument)

    def _train(self, images_B3HW: torch.Tensor) -> None:
        with self._autocast():
            output_B3HW = self._decode(self._encode(images_B3HW))
        F.l1_loss(output_B3HW.float(), images_B3HW).backward()
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)

    def _encode(self, images_B3HW: torch.Tensor) -> torch.Tensor:
        encoded = self.model.encode(images_B3HW)
        latent: torch.Tensor = encoded.latent_dist.mode() if hasattr(encoded, "latent_dist") else encoded.latent
        return latent

    def _decode(self, latents: torch.Tensor) -> torch.Tensor:
        image: torch.Tensor = self.model.decode(latents).sample
        return image

    def _images(self, count: int, size_px: int) -> torch.Tensor:
        images = torch.rand(count, 3, size_px, size_px, device=self.device) * 2 - 1
        return images.to(memory_format=torch.channels_last)

    def _autocast(self) -> AbstractContextManager[object]:
        return torch.autocast("cuda", torch.bfloat16) if self.device.type == "cuda" else nullcontext()


class _Clock:
    """Seconds of work on a device: CUDA events between barriers on a GPU, CPU time of this process elsewhere."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def seconds(self, work: Callable[[], object], least: float = 0.2) -> float:
        """Of one call, over as many calls as take about `least` seconds."""
        once = self._run(work, 1)
        calls = max(1, min(200, round(least / max(once, 1e-6))))
        return once if calls == 1 else self._run(work, calls) / calls

    def _run(self, work: Callable[[], object], calls: int) -> float:
        if self._device.type != "cuda":
            began = time.process_time()
            for _ in range(calls):
                work()
            return time.process_time() - began
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        torch.cuda.synchronize(self._device)
        start.record()
        for _ in range(calls):
            work()
        end.record()
        torch.cuda.synchronize(self._device)
        return float(start.elapsed_time(end)) / 1e3

    def tflop_per_s(self) -> float:
        """Of a product of square matrices: the best of five."""
        on_gpu = self._device.type == "cuda"
        n, dtype = (8192, torch.bfloat16) if on_gpu else (1024, torch.float32)
        left_NN, right_NN = (torch.randn(n, n, device=self._device, dtype=dtype) for _ in range(2))
        left_NN @ right_NN
        return 2 * n**3 / min(self.seconds(lambda: left_NN @ right_NN) for _ in range(5)) / 1e12


def _note(figures: Figures, what: str, times: Sequence[float]) -> None:
    per_s = figures.batch / median(times)
    figures.spread[what] = max(times) / min(times)
    match what:
        case "encode":
            figures.encode_images_per_s, figures.encode_tflop_per_s = per_s, per_s * figures.encode_tflop
        case "decode":
            figures.decode_images_per_s, figures.decode_tflop_per_s = per_s, per_s * figures.decode_tflop
        case "train":
            figures.train_images_per_s = per_s


def _compare(figures: Sequence[Figures]) -> None:
    flux = next(one for one in figures if one.name == FLUX)
    for one in figures:
        for what in ("encode", "decode", "train"):
            ours, theirs = (getattr(which, f"{what}_images_per_s") for which in (one, flux))
            if ours and theirs:
                one.over_flux[what] = ours / theirs


def bench_table(report: dict[str, Any]) -> list[str]:
    """The report as Markdown."""
    lines = [
        f"{report['device']}, {report['arithmetic']}, torch {report['torch']}; matrix product "
        f"{report['matrix_tflop_per_s']:.3g} TFLOP/s"
        + (f"; all widths divided by {report['widths_divided_by']}" if report["widths_divided_by"] > 1 else ""),
        "",
        "| model | px | batch | encode /s | decode /s | train /s | x FLUX | kept GiB | encode, decode TFLOP/s |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for one in report["figures"]:
        over = ", ".join(f"{value:.2f}" for value in one["over_flux"].values())
        speeds = [_shown(one[f"{what}_images_per_s"]) for what in ("encode", "decode", "train")]
        rates = [_shown(one[f"{what}_tflop_per_s"]) for what in ("encode", "decode")]
        kept = _shown(one["saved_gib_per_image"])
        row = [one["name"], str(one["size_px"]), str(one["batch"]), *speeds, over, kept, ", ".join(rates)]
        lines.append(f"| {' | '.join(row)} |")
    return lines


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"

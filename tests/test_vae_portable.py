"""A saved model where Glyphmill is not installed: its class travels with the weights."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from vae_runs import stripes

import vae.portable
from vae.batch import to_unit_range
from vae.family import GSCConfig, build_model
from vae.portable import portable_source

ELSEWHERE = """
import sys


class NotInstalled:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"fonts_manifest", "render_engine", "datagen", "vae", "glyphmill"}:
            raise ModuleNotFoundError(name)


sys.meta_path.insert(0, NotInstalled())
import warnings

warnings.simplefilter("ignore")
from pathlib import Path

import diffusers
import numpy as np
import torch
from PIL import Image

here = Path(sys.argv[1])
"""

RECONSTRUCT = """
# The loop of OmniDoc-TokenBench's example_recon.py in other words; only this line differs from one for FLUX.
vae = diffusers.AutoModel.from_pretrained(str(here / "model"), trust_remote_code=True, torch_dtype=torch.float32).eval()
(here / "recon").mkdir()
for path in sorted((here / "originals").glob("*.png")):
    pixels = torch.from_numpy(np.array(Image.open(path).convert("RGB"))).permute(2, 0, 1) / 255
    x = pixels.unsqueeze(0) * 2 - 1
    with torch.no_grad():
        latent = vae.encode(x).latent_dist.mode()
        recon = vae.decode(latent).sample
    recon = ((recon.squeeze(0).clamp(-1, 1) + 1) / 2 * 255).round().to(torch.uint8)
    Image.fromarray(recon.permute(1, 2, 0).cpu().numpy()).save(here / "recon" / path.name)
"""

CITIZEN = """
x = torch.load(here / "x.pt")
half = diffusers.AutoModel.from_pretrained(str(here / "model"), trust_remote_code=True, torch_dtype=torch.bfloat16)
with torch.no_grad():
    found = {"plain": vae(x).sample, "bfloat16": half(x.bfloat16()).sample}
    vae.enable_slicing()
    found["slices"] = vae(x).sample
    vae.register_to_config(tile_latents=4)
    vae.enable_tiling()
    found["tiles"] = vae(x).sample
torch.save(found, here / "found.pt")
vae.enable_gradient_checkpointing()
vae.train()(x).sample.mean().backward()
vae.save_pretrained(here / "again")
print(type(vae).__module__, vae.config.latents_std[0], vae.dtype, half.dtype)
"""


@dataclass(frozen=True)
class Elsewhere:
    folder: Path
    output: str
    x: torch.Tensor
    found: dict[str, torch.Tensor]
    wanted: torch.Tensor


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Elsewhere:
    """A model saved here and used in a process that cannot import any package of ours."""
    folder = tmp_path_factory.mktemp("elsewhere")
    torch.manual_seed(0)
    model = build_model(
        GSCConfig(
            encoder_widths=(8, 16, 48),
            decoder_widths=(8, 16, 48),
            latent_channels=12,
            skip="gsc_both",
            skip_basis="dct",
            decoder_mirror=True,
        )
    ).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    model.register_to_config(latents_mean=[0.5] * 12, latents_std=[2.0] * 12)
    model.save_pretrained(folder / "model")
    (folder / "originals").mkdir()
    pictures = stripes(3, side=48)
    for name, picture in zip(("a", "文字", "c d"), pictures, strict=True):
        Image.fromarray(picture).save(folder / "originals" / f"{name}.png")
    x = to_unit_range(np.stack(pictures))
    torch.save(x, folder / "x.pt")
    environment = os.environ | {"HF_MODULES_CACHE": str(folder / "modules"), "HF_HUB_OFFLINE": "1"}
    script = ELSEWHERE + RECONSTRUCT + CITIZEN
    done = subprocess.run(
        [sys.executable, "-c", script, str(folder)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "not expected and will be ignored" not in done.stderr
    with torch.no_grad():
        wanted = model(x).sample
    return Elsewhere(folder, done.stdout.strip(), x, torch.load(folder / "found.pt"), wanted)


def test_the_class_comes_from_the_saved_folder(elsewhere: Elsewhere) -> None:
    assert elsewhere.output == "diffusers_modules.local.gsc_autoencoder 2.0 torch.float32 torch.bfloat16"


def test_it_reconstructs_as_the_original_does(elsewhere: Elsewhere) -> None:
    for way in ("plain", "slices", "tiles"):  # another process may add up in another order
        torch.testing.assert_close(elsewhere.found[way], elsewhere.wanted, atol=1e-5, rtol=1e-5)
    off = (elsewhere.found["bfloat16"].float() - elsewhere.wanted).abs().mean()
    assert 0 < off < 0.03 * elsewhere.wanted.abs().mean()


def test_the_public_loop_writes_our_reconstructions(elsewhere: Elsewhere) -> None:
    levels = elsewhere.wanted.clamp(-1, 1).add(1).mul(127.5).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    for name, wanted_HW3 in zip(("a", "文字", "c d"), levels, strict=True):
        with Image.open(elsewhere.folder / "recon" / f"{name}.png") as image:
            found_HW3 = np.asarray(image)
        assert np.abs(found_HW3.astype(int) - wanted_HW3).max() <= 1  # one picture at a time adds up in another order


def test_saved_again_elsewhere_it_is_the_same_folder(elsewhere: Elsewhere) -> None:
    for name in ("gsc_autoencoder.py", "diffusion_pytorch_model.safetensors"):
        assert (elsewhere.folder / "again" / name).read_bytes() == (elsewhere.folder / "model" / name).read_bytes()


def test_the_one_file_is_clean_python() -> None:
    command = ["-m", "ruff", "check", "--isolated", "--select", "E,F", "--line-length", "122", "-"]
    done = subprocess.run(
        [sys.executable, *command], input=portable_source(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
    assert "from vae" not in portable_source()


def test_two_parts_with_one_name_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vae.portable, "_PARTS", ("fused", "fused"))
    with pytest.raises(ValueError, match=r"fused\.py gives _LEAST_NORM another meaning"):
        portable_source()

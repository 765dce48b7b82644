"""Saved models opened with care: what is missing or another model's is said, never filled in."""

from pathlib import Path

import torch
from safetensors import SafetensorError

from fonts_manifest.errors import BadInput
from vae.model import GSCAutoencoder


def load_model(folder: Path) -> GSCAutoencoder:
    """A saved model, ready to reconstruct. Raises BadInput when there is none, it is another kind of model, or weights
    are missing, left over or of another shape."""
    if not (folder / "config.json").is_file():
        raise BadInput(f"{folder}: holds no model (config.json is missing); train one first")
    if not any(folder.glob("*.safetensors")):
        raise BadInput(f"{folder}: holds no weights (a .safetensors file is missing)")
    try:
        kind = GSCAutoencoder.load_config(folder).get("_class_name")
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise BadInput(f"{folder}: the model's config.json cannot be read ({error})") from error
    if kind not in (None, GSCAutoencoder.__name__):
        raise BadInput(f"{folder}: is an {kind}, not a GSC autoencoder")
    try:
        model, found = GSCAutoencoder.from_pretrained(folder, output_loading_info=True)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        raise BadInput(f"{folder}: the model cannot be read ({error})") from error
    for what, names in (("missing", found["missing_keys"]), ("of no use", found["unexpected_keys"])):
        if names:
            raise BadInput(
                f"{folder}: the weights are another model's: {len(names)} are {what}, such as {sorted(names)[0]}"
            )
    return model.eval().to(memory_format=torch.channels_last)

"""`python -m vae ...`: the same verbs as `glyphmill`, as `torchrun -m vae train ...` wants them."""

from fonts_manifest.errors import run
from vae.cli import app

run(app)

"""`python -m datagen ...`: the same verbs as `glyphmill`, as `ray job submit` wants them."""

from datagen.cli import app
from fonts_manifest.errors import run

run(app)

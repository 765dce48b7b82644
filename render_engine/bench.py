"""How fast pages are drawn: a stream of distinct pages over all faces and sizes, against Pillow in the same run."""

import json
import re
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from fonts_manifest.coverage import gb2312_level_1
from fonts_manifest.manifest import FontFace, load_manifest
from render_engine.distribution import PageDistribution, SizeBand
from render_engine.render import Assets, check, draw, ground, lay_out
from render_engine.sample import sample_spec
from render_engine.spec import PageSpec, RenderError, spec_to_json

Encoder = Callable[[npt.NDArray[np.uint8]], bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class RenderFigures:
    """What `glyphmill bench render --json` prints. One process, one thread."""

    text_glyphs_per_s: float
    """Visible glyphs laid out, painted and composed a second, 512 px pages, steady state."""
    rows_per_s_512: float
    """Pages of 512 x 512 from crop to encoded picture and spec."""
    rows_per_s_1024: float
    ratio_to_pillow: float
    """Pillow's ImageDraw drawing the same lines at the same places, over our whole text stage with its layout."""
    ratio_to_skia: float | None
    """Not measured: null."""
    rss_mb: float
    """Peak resident memory of this process."""
    first_page_s: float
    """From the start of a new Python process to its first 512 px page."""
    glyphs_per_page_512: float
    stage_ms_512: dict[str, float]
    """Mean milliseconds a page: crop, layout, draw (rasterising, measuring, composing, annotating), encode, spec."""
    dropped: int
    """Pages that ended in a RenderError."""


class NoisePhotos:
    """Photographs made of octaves of noise: as smooth and as costly to crop as real ones."""

    def __init__(self, count: int = 8, side_px: int = 1280) -> None:
        self._pictures = {}
        for number in range(count):
            rng = np.random.default_rng([2026, number])
            picture = np.zeros((side_px, side_px, 3))
            for octave in range(2, 9):
                noise = rng.normal(0, 90 / octave, (1 << octave, 1 << octave, 3))
                picture += cv2.resize(noise, (side_px, side_px), interpolation=cv2.INTER_CUBIC)
            shifted = picture + rng.uniform(40, 215, 3)
            self._pictures[f"{number:016x}"] = shifted.clip(0, 255).astype(np.uint8)

    def crop(
        self, photo_id: str, box_px: tuple[int, int, int, int], width_px: int, height_px: int
    ) -> npt.NDArray[np.uint8]:
        """See `render_engine.render.PhotoSource`."""
        x0, y0, x1, y1 = box_px
        picture = self._pictures[photo_id][y0:y1, x0:x1]
        resized = cv2.resize(picture, (width_px, height_px), interpolation=cv2.INTER_AREA)
        return np.asarray(resized, np.uint8)

    def listed(self) -> "list[NoisePhoto]":
        """What the sampler must know of them."""
        return [NoisePhoto(name, picture.shape[1], picture.shape[0]) for name, picture in self._pictures.items()]


@dataclass(frozen=True, slots=True)
class NoisePhoto:
    """See `render_engine.sample.Photo`."""

    photo_id: str
    width_px: int
    height_px: int


class BenchText:
    """English words of Python's own documentation in its order, Chinese characters by Zipf's law, both, with marks."""

    def __init__(self) -> None:
        from pydoc_data.topics import topics

        self.words = [word for word in re.split(r"\s+", " ".join(topics.values())) if 0 < len(word) < 20]
        self.characters = np.array(list(gb2312_level_1()))
        weights = 1 / (20 + np.random.default_rng(2312).permutation(len(self.characters)))
        self.cumulative = np.cumsum(weights / weights.sum())

    def draw(self, rng: np.random.Generator, lang: str, characters: int) -> str:
        """See `render_engine.sample.TextSource`."""
        if lang == "en":
            first = int(rng.integers(len(self.words)))
            words = (self.words[first:] + self.words)[: characters // 3 + 2]
            text = " ".join(words)
            return text[: text.rfind(" ", 0, characters + 12)] if len(text) > characters + 12 else text
        drawn = self.characters[np.searchsorted(self.cumulative, rng.random(characters))]
        marks = rng.random(characters)
        drawn = np.where(marks < 0.06, "，", np.where(marks < 0.09, "。", np.where(marks < 0.1, "\n", drawn)))
        text = "".join(drawn.tolist())
        if lang == "mixed":
            cuts = sorted(rng.integers(0, len(text), max(1, characters // 25)).tolist(), reverse=True)
            for cut in cuts:
                text = f"{text[:cut]} {self.words[int(rng.integers(len(self.words)))]} {text[cut:]}"
        return text


def dense_pages(side_px: int) -> PageDistribution:
    """Pages of 1,000 and more glyphs at 512 px: body text of 8 to 16 px over photographs, no sparse layouts."""
    return PageDistribution(
        page_sizes_px=((side_px, side_px),),
        size_bands=(SizeBand(low_px=8, high_px=16, weight=1),),
        size_step_px=1.0,
        families={"background": 1.0},
        layouts={"columns": 0.5, "list": 0.2, "mosaic": 0.3},
        line_pitch_em=(1.15, 1.5),
        photo_scale=(1.0, 2.0),
    )


def fast_png(image_HW3: npt.NDArray[np.uint8]) -> bytes:
    """OpenCV's PNG at its fastest setting."""
    _, encoded = cv2.imencode(".png", image_HW3, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    return encoded.tobytes()


def bench_render(manifest_path: Path, *, pages: int = 400, seed: int = 0, encode: Encoder = fast_png) -> RenderFigures:
    """Draw `pages` distinct pages of 512 px twice (the second half is steady state) and a quarter as many of 1024."""
    faces = load_manifest(manifest_path).faces
    photos = NoisePhotos()
    assets = Assets(faces, photos)
    texts = BenchText()
    cv2.setNumThreads(1)

    def stream(side_px: int, count: int) -> list[PageSpec]:
        distribution = dense_pages(side_px)
        listed = photos.listed()
        return [
            sample_spec(np.random.default_rng([seed, side_px, number]), distribution, faces, texts, listed)
            for number in range(count)
        ]

    first, steady = stream(512, pages), stream(512, 2 * pages)[pages:]
    _run(first, assets, encode)
    stages, glyphs, dropped = _run(steady, assets, encode)
    large = stream(1024, max(8, pages // 4))
    _run(large[: len(large) // 2], assets, encode)
    stages_1024, _, _ = _run(large[len(large) // 2 :], assets, encode)
    count = len(steady)
    text_s = stages["layout"] + stages["draw"]
    return RenderFigures(
        text_glyphs_per_s=glyphs / text_s,
        rows_per_s_512=count / sum(stages.values()),
        rows_per_s_1024=(len(large) - len(large) // 2) / sum(stages_1024.values()),
        ratio_to_pillow=_pillow_s(steady[: max(8, pages // 8)], assets),
        ratio_to_skia=None,
        rss_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        first_page_s=_first_page_s(manifest_path),
        glyphs_per_page_512=glyphs / count,
        stage_ms_512={name: 1000 * seconds / count for name, seconds in stages.items()},
        dropped=dropped,
    )


def _run(specs: Sequence[PageSpec], assets: Assets, encode: Encoder) -> tuple[dict[str, float], int, int]:
    """Seconds of every stage, visible glyphs, dropped pages."""
    stages = dict.fromkeys(("crop", "layout", "draw", "encode", "spec"), 0.0)
    glyphs = dropped = 0
    for spec in specs:
        marks = [time.perf_counter()]
        check(spec)
        image_HW3 = ground(spec, assets)
        marks.append(time.perf_counter())
        try:
            scratch = lay_out(spec, assets)
            marks.append(time.perf_counter())
            draw(spec, assets, scratch, image_HW3)
        except RenderError:
            dropped += 1
            continue
        marks.append(time.perf_counter())
        encode(image_HW3)
        marks.append(time.perf_counter())
        spec_to_json(spec)
        marks.append(time.perf_counter())
        glyphs += scratch.glyph_count
        for name, start, stop in zip(stages, marks, marks[1:], strict=False):
            stages[name] += stop - start
    return stages, glyphs, dropped


def _pillow_s(specs: Sequence[PageSpec], assets: Assets) -> float:
    """Pillow's time over ours for the same pages: it is given our lines and fonts opened before, we lay out as well."""
    fonts: dict[tuple[str, float], ImageFont.FreeTypeFont] = {}
    ours = pillows = 0.0
    for spec in specs:
        image_HW3 = ground(spec, assets)
        canvas = Image.fromarray(image_HW3.copy())
        try:
            start = time.perf_counter()
            lines = draw(spec, assets, lay_out(spec, assets), image_HW3)
            ours += time.perf_counter() - start
        except RenderError:
            continue
        pen = ImageDraw.Draw(canvas)
        for line in lines:
            if (line.face_id, line.size_px) not in fonts:
                face: FontFace = assets.fonts[line.face_id]
                fonts[line.face_id, line.size_px] = ImageFont.truetype(
                    face.path, line.size_px, index=face.face_index, layout_engine=ImageFont.Layout.BASIC
                )
        start = time.perf_counter()
        for line in lines:
            font = fonts[line.face_id, line.size_px]
            pen.text((line.quad_px[0], line.quad_px[7]), line.text, fill=line.ink_rgb, font=font, anchor="lb")
        pillows += time.perf_counter() - start
    return pillows / ours


def first_page(manifest_path: str) -> None:
    """Draw one page in this process; what `first_page_s` times."""
    faces = load_manifest(Path(manifest_path), verify=False).faces
    photos = NoisePhotos(1, 512)
    spec = sample_spec(np.random.default_rng(0), dense_pages(512), faces, BenchText(), photos.listed())
    assets = Assets(faces, photos)
    draw(spec, assets, lay_out(spec, assets), ground(spec, assets))


def _first_page_s(manifest_path: Path) -> float:
    code = "import sys; from render_engine.bench import first_page; first_page(sys.argv[1])"
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code, str(manifest_path)], check=True)
    return time.perf_counter() - start


def as_json(figures: RenderFigures) -> str:
    """One JSON object, figures rounded to three decimals."""
    return json.dumps(json.loads(json.dumps(asdict(figures)), parse_float=lambda text: round(float(text), 3)), indent=1)

"""PP-OCR on a GPU: the networks of `ppocr_torch` between rapidocr's own finding of boxes and our cutting of lines.

Legend: B lines or pictures, H W pixels, T steps, K classes.
"""

from collections.abc import Sequence
from typing import Literal

import cv2
import numpy as np
import torch

from datagen.lines import Image, Order, PageLine, Quad, Reading, as_quad, check_image, cut_line, order_by
from datagen.ppocr import MODEL_NAME, resize_line
from datagen.ppocr_torch import load_detector, load_recogniser, normalise, read_logits
from fonts_manifest.errors import BadInput

BATCH_PX = 32_768
"""Width of all lines of a batch together: its classes are 300 MB."""


class TorchReader:
    """PP-OCRv6 small in torch, on any device, for many pictures at once; reads what rapidocr's reader reads."""

    def __init__(self, device: str = "cpu") -> None:
        try:
            self._device = torch.device(device)
            self._recogniser = load_recogniser().to(self._device)
        except (RuntimeError, AssertionError) as error:
            raise BadInput(f"ocr: torch cannot use the device {device!r} ({str(error).splitlines()[0]})") from error
        self._detector = load_detector().to(self._device)
        self.name = f"torch {MODEL_NAME}"

    def read_lines(self, image_HW3: Image, quads: Sequence[Sequence[float]]) -> list[Reading]:
        """Lines of equal width in one batch."""
        check_image(image_HW3)
        return self._recognise([cut_line(image_HW3, quad) for quad in quads])

    def read_page(self, image_HW3: Image, order: Order = "mended") -> list[PageLine]:
        """One picture of `read_pages`."""
        return self.read_pages([image_HW3], order)[0]

    def read_pages(
        self,
        images: Sequence[Image],
        order: Order = "mended",
        resolution: Literal["native", "library"] = "library",
    ) -> list[list[PageLine]]:
        """Pictures of one size share the detector's batches, lines of one width those of the recogniser."""
        found = self.detect_pages(images, resolution, order)
        cuts = [cut_line(image, quad) for image, quads in zip(images, found, strict=True) for quad in quads]
        readings = iter(self._recognise(cuts))
        pages = []
        for quads in found:
            lines = [(next(readings), quad) for quad in quads]
            pages.append([PageLine(text=r.text, score=r.score, quad_px=q) for r, q in lines if r.text.strip()])
        return pages

    def detect(self, image_HW3: Image, resolution: Literal["native", "library"] = "native") -> list[Quad]:
        """One picture of `detect_pages`."""
        return self.detect_pages([image_HW3], resolution)[0]

    def detect_pages(
        self,
        images: Sequence[Image],
        resolution: Literal["native", "library"] = "native",
        order: Order = "mended",
    ) -> list[list[Quad]]:
        """Places of the lines of every picture."""
        from rapidocr.ch_ppocr_det.utils import DBPostProcess

        boxes = DBPostProcess(thresh=0.3, box_thresh=0.5, unclip_ratio=1.6, use_dilation=True)
        groups: dict[tuple[int, int], list[int]] = {}
        for index, image_HW3 in enumerate(images):
            check_image(image_HW3)
            groups.setdefault(_detector_size(image_HW3, resolution), []).append(index)
        found: list[list[Quad]] = [[] for _ in images]
        for (height, width), members in groups.items():
            resized = [cv2.resize(images[index], (width, height)) for index in members]
            with torch.inference_mode():
                probability_B1HW = torch.sigmoid(self._detector(self._to_device(resized))).cpu().numpy()
            for index, probability_1HW in zip(members, probability_B1HW, strict=True):
                corners_N42, _ = boxes(probability_1HW[None], images[index].shape[:2])
                quads = [as_quad(corners_42) for corners_42 in corners_N42]
                found[index] = [quads[place] for place in order_by(order, quads)]
        return found

    def _recognise(self, cuts: Sequence[Image | None]) -> list[Reading]:
        inputs = {index: resize_line(line_HW3) for index, line_HW3 in enumerate(cuts) if line_HW3 is not None}
        groups: dict[int, list[int]] = {}
        for index, line_HW3 in inputs.items():
            groups.setdefault(line_HW3.shape[1], []).append(index)
        readings = [Reading(text="", score=0.0)] * len(cuts)
        for width, members in groups.items():
            size = max(1, BATCH_PX // width)
            for start in range(0, len(members), size):
                batch = members[start : start + size]
                with torch.inference_mode():
                    read = read_logits(self._recogniser(self._to_device([inputs[index] for index in batch])))
                for index, (text, score) in zip(batch, read, strict=True):
                    readings[index] = Reading(text=text, score=score)
        return readings

    def _to_device(self, images: Sequence[Image]) -> torch.Tensor:
        batch_BHW3 = torch.from_numpy(np.stack(images)).to(self._device)
        return normalise(batch_BHW3.permute(0, 3, 1, 2).float() / 255)


def _detector_size(image_HW3: Image, resolution: Literal["native", "library"]) -> tuple[int, int]:
    """Height and width for the detector, multiples of 32, by rapidocr's rule."""
    height, width = image_HW3.shape[:2]
    if resolution == "library":
        factor = max(1.0, 736 / min(height, width))
        factor = min(factor, 4096 / max(height, width))  # a long thin strip would become a giant
    else:
        factor = min(1.0, 1536 / max(height, width))
    return tuple(max(32, round(int(side * factor) / 32) * 32) for side in (height, width))  # type: ignore[return-value]

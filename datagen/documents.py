"""PDF documents: their pages as pictures, or the reason why not. The one place that opens PDFs."""

from typing import Any

import numpy as np
import numpy.typing as npt

from datagen.decode import ImageProblem

POINTS_PER_INCH = 72


def is_pdf(head: bytes) -> bool:
    """Whether a file begins like a PDF: %PDF- within its first kilobyte (ISO 32000-1, 7.5.2 and annex H)."""
    return b"%PDF-" in head[:1024]


def count_pdf_pages(data: bytes) -> int:
    """Number of pages. Raises ImageProblem: "encrypted" when a password is needed, "damaged" when it is no PDF."""
    document = _open_pdf(data)
    try:
        if len(document) == 0:
            raise ImageProblem("damaged", "a document without pages")
        return len(document)
    finally:
        document.close()


def draw_pdf_page(data: bytes, page: int, dpi: int, max_pixels: int) -> npt.NDArray[np.uint8]:
    """Page `page` (from 0) of a PDF on white, uint8 sRGB (H, W, 3), annotations and filled forms included.

    Raises ImageProblem; a page whose size promises more than `max_pixels` is not drawn.
    """
    import pypdfium2

    document = _open_pdf(data)
    try:
        document.init_forms()
        pdf_page = document[page]
        width, height = (side * dpi / POINTS_PER_INCH for side in pdf_page.get_size())
        if width * height > max_pixels:
            raise ImageProblem("too_many_pixels", f"{width:.0f} x {height:.0f}, the limit is {max_pixels}")
        if width < 1 or height < 1:
            raise ImageProblem("damaged", f"a page of {width:.2f} x {height:.2f} px")
        bitmap = pdf_page.render(scale=dpi / POINTS_PER_INCH, rev_byteorder=True)
        image_HWC = bitmap.to_numpy()
        # Grey pages come with one channel, pages with transparency with four (already laid over white).
        if image_HWC.ndim == 2 or image_HWC.shape[2] == 1:
            return np.repeat(image_HWC.reshape(*image_HWC.shape[:2], 1), 3, axis=2)
        return np.array(image_HWC[:, :, :3], order="C")
    except pypdfium2.PdfiumError as error:
        raise ImageProblem("damaged", str(error)) from error
    finally:
        document.close()


def _open_pdf(data: bytes) -> Any:
    import pypdfium2

    try:
        return pypdfium2.PdfDocument(data)
    except pypdfium2.PdfiumError as error:
        if "password" in str(error).lower() or "security" in str(error).lower():
            raise ImageProblem("encrypted", str(error)) from error
        raise ImageProblem("damaged", str(error)) from error

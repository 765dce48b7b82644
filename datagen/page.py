"""One self-contained HTML page: the shell, figures, tables. Nothing is loaded from anywhere."""

import base64
import io
import os
from collections.abc import Sequence
from html import escape
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

_HERE = Path(__file__).parent
_MAX_SIDE_PX = 640


def write_page(path: Path, title: str, lead: str, sections: Sequence[tuple[str, str]]) -> None:
    """Write the page whole or not at all. `sections` are (heading, HTML); headings become the table of contents.

    A click enlarges a figure's picture, arrow keys then change to those beside it.
    """
    contents = "".join(f'<a href="#s{n}">{escape(heading)}</a>' for n, (heading, _) in enumerate(sections))
    body = "".join(f'<h2 id="s{n}">{escape(heading)}</h2>{html}' for n, (heading, html) in enumerate(sections))
    css, script = (_HERE / "page.css").read_text(encoding="utf-8"), (_HERE / "page.js").read_text(encoding="utf-8")
    document = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width">'
        f"<title>{escape(title)}</title><style>{css}</style></head><body><main>"
        f'<h1>{escape(title)}</h1><p class="lead">{escape(lead)}</p><nav>{contents}</nav>{body}</main>'
        f'<dialog><p></p><img alt="enlarged picture"></dialog><script>{script}</script></body></html>\n'
    )
    unfinished = path.with_name(path.name + ".part")
    unfinished.write_text(document, encoding="utf-8")
    os.replace(unfinished, path)


def figure(image_HW3: npt.NDArray[np.uint8], caption_html: str) -> str:
    """A picture that a click enlarges, as lossless WebP inside the page; pixel for pixel up to 640 px a side."""
    picture = Image.fromarray(image_HW3)
    picture.thumbnail((_MAX_SIDE_PX, _MAX_SIDE_PX))
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", lossless=True, quality=30, method=1)
    data = base64.b64encode(buffer.getvalue()).decode()
    size = f'width="{picture.width}" height="{picture.height}" style="height:auto"'
    tag = f'<img loading="lazy" {size} alt="" src="data:image/webp;base64,{data}">'
    return f"<figure>{tag}<figcaption>{caption_html}</figcaption></figure>"


def grid(figures: Sequence[str], *, wide: bool = False) -> str:
    """Figures or charts side by side, as many a line as fit."""
    return f'<div class="grid{" wide" if wide else ""}">{"".join(figures)}</div>'


def facts(pairs: Sequence[tuple[str, str]]) -> str:
    """Large figures with what they mean beneath: (figure, meaning)."""
    cells = "".join(
        f'<div class="fact"><b>{escape(number)}</b><span>{escape(meaning)}</span></div>' for number, meaning in pairs
    )
    return f'<div class="facts">{cells}</div>'


def table(header: Sequence[str], rows: Sequence[Sequence[str]], *, best_row: int | None = None) -> str:
    """A table of texts; the first column is the row's name."""
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    body = "".join(
        f"<tr{' class=best' if number == best_row else ''}>"
        + "".join(f"<td>{escape(cell)}</td>" for cell in row)
        + "</tr>"
        for number, row in enumerate(rows)
    )
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def heat_table(header: Sequence[str], rows: Sequence[tuple[str, Sequence[tuple[float, int] | None]]]) -> str:
    """A table of shares in [0, 1], each between red (0) and green (1), with its count; None leaves a gap."""
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    body = ""
    for name, cells in rows:
        body += f"<tr><td>{escape(name)}</td>"
        for cell in cells:
            if cell is None:
                body += "<td></td>"
                continue
            share, count = cell
            body += f'<td class="heat" style="--share:{100 * share:.0f}%">{share:.0%} <small>{count:,}</small></td>'
        body += "</tr>"
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def paragraph(text: str, *, note: bool = False) -> str:
    """Plain text as a paragraph."""
    return f"<p{' class=note' if note else ''}>{escape(text)}</p>"


def folded(summary: str, text: str) -> str:
    """Long preformatted text behind a line that opens it."""
    return f"<details><summary>{escape(summary)}</summary><pre>{escape(text)}</pre></details>"

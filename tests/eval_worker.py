"""A worker in place of `datagen.reading`, for the tests: what is read on a picture stands in its PNG text chunk `read`.

One line a text line; each 20 px below the last. `crash` ends the process by a signal, `stall` sleeps, `raise` raises.
Every reading is logged to the file that $EVAL_WORKER_LOG names.
"""

import dataclasses
import os
import signal
import time
from pathlib import Path

from PIL import Image

from datagen.lines import PageLine
from datagen.reading import PageReading
from fonts_manifest.apart import serve
from fonts_manifest.errors import BadInput


def open_reader(setup):
    if setup["models"] == "refused":
        raise BadInput("ocr: this reader has no models")
    if setup["models"] == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)

    def answer(paths):
        return [read(path) for path in paths]

    def read(path):
        with Image.open(path) as image:
            text = image.info.get("read", "")
        if log := os.environ.get("EVAL_WORKER_LOG"):
            with Path(log).open("a", errors="surrogateescape") as file:
                file.write(f"{Path(path).parent.name}/{Path(path).name}\n")
        if text == "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        if text == "raise":
            raise RuntimeError("a library gave up")
        if text == "stall":
            time.sleep(60)
        time.sleep(float(os.environ.get("EVAL_WORKER_SECONDS", "0")))
        print("chatter of a library")
        rows = [row for row in text.split("\n") if row]
        quads = [(0, 20 * n, 9, 20 * n, 9, 20 * n + 9, 0, 20 * n + 9) for n in range(len(rows))]
        lines = tuple(PageLine(text=row, score=1.0, quad_px=quad) for row, quad in zip(rows, quads, strict=True))
        return dataclasses.asdict(PageReading(reader=f"fake {setup['name']}", lines=lines))

    return answer


if __name__ == "__main__":
    serve(open_reader)

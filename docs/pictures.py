"""Make the README's pictures of a finished run's report:  python docs/pictures.py RUN_FOLDER

Opens RUN_FOLDER/report.html in headless Chromium and writes, beside this file, `report-wide.png` (1400 px, light),
`report-dark.png` (1400 px, dark), `report-phone.png` (390 px) and `report-print.png` (the first two pages of the PDF
that the page prints to). Needs Chromium and chromedriver on the path, and the `dev` extra (selenium,
pypdfium2, pillow).
"""

from __future__ import annotations

import argparse
import io
import sys
import tempfile
from pathlib import Path
from typing import Any

import pypdfium2
from PIL import Image

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests"))  # the browser is opened as the tests open it
from browsing import chromium, printed, show, whole  # noqa: E402

COLOURS = 128  # of the palette; the pages have few, so that a picture stays below MOST_BYTES
MOST_BYTES = 300_000
# The pictures end below these: the path of capability against refusal, the first figure.
WIDE_END, PHONE_END = "figure.wide", "#curves figure"


def main() -> None:
    """Write the four pictures, each told with its size; end with 1 where one is too large."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("run", type=Path, help="the folder of a finished run, with its report.html")
    parser.add_argument("--out", type=Path, default=HERE, help="the folder to write to (docs)")
    given = parser.parse_args()
    page = (given.run / "report.html").resolve()
    if not page.is_file():
        parser.error(f"{page} is not there: give the folder of a finished run")
    with tempfile.TemporaryDirectory() as profile, chromium(Path(profile)) as driver:
        made = {
            "wide": shot(driver, page, 1400, "light", WIDE_END),
            "dark": shot(driver, page, 1400, "dark", WIDE_END),
            "phone": shot(driver, page, 390, "light", PHONE_END),
            "print": paper(printed(show(driver, page, width=1400, scheme="light"))),
        }
    sizes = {name: save(picture, given.out / f"report-{name}.png") for name, picture in made.items()}
    sys.exit(max(sizes.values()) > MOST_BYTES)


def shot(driver: Any, page: Path, width: int, scheme: str, end: str) -> Image.Image:
    """Return the page down to the first thing that a selector finds, as a browser of this width shows it."""
    data = whole(show(driver, page, width=width, scheme=scheme))
    bottom = driver.execute_script(
        "return document.querySelector(arguments[0]).getBoundingClientRect().bottom + scrollY", end
    )
    picture = Image.open(io.BytesIO(data))
    return picture.crop((0, 0, picture.width, min(int(bottom) + 24, picture.height)))


def paper(pdf: bytes) -> Image.Image:
    """Return the first two pages of a PDF side by side, on grey, 600 pixels wide each."""
    document = pypdfium2.PdfDocument(pdf)
    pages = [document[n].render(scale=1.1).to_pil() for n in range(min(2, len(document)))]
    gap = 16
    sheet = Image.new("RGB", (sum(p.width + gap for p in pages) + gap, pages[0].height + 2 * gap), "#9a9a9a")
    for place, one in enumerate(pages):
        sheet.paste(one, (gap + place * (one.width + gap), gap))
    return sheet


def save(picture: Image.Image, path: Path) -> int:
    """Write a picture with a palette; tell and return its size in bytes."""
    picture.convert("RGB").quantize(COLOURS).save(path, optimize=True)
    size = path.stat().st_size
    print(f"{path.name}: {picture.width} × {picture.height}, {size:,} bytes", file=sys.stderr)
    return size


if __name__ == "__main__":
    main()

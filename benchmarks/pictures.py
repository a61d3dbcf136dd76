"""The README's pictures, from a report: `make pictures` (Chromium must be there).

    python -m benchmarks.pictures reports/demo

Writes docs/report-answer.png (first screen), docs/report-benefit.png (calibration and decision curve) and
docs/report-looking.png (what the networks look at), each of at most 300 kB.
"""

from __future__ import annotations

import argparse
import base64
import io
import tempfile
from pathlib import Path

from PIL import Image

from fracsurv.config import ROOT
from fracsurv.utils.files import atomic_path
from tests.browser import Page, browser

WIDTH, FIRST_SCREEN, MOST_BYTES = 1280, 1020, 300_000
SHOWN = {"benefit": ("calibration", "decision"), "looking": ("looking", "looking")}
"""Picture: ids of the first and the last section on it."""


def section_box(page: Page, first: str, last: str) -> tuple[float, float]:
    """Top and height, in CSS pixels of the whole page, from one section's heading to another's end."""
    script = """(() => {
      const of = id => document.getElementById(id).closest('section').getBoundingClientRect();
      return [of('%s').top + window.scrollY, of('%s').bottom + window.scrollY];
    })()"""
    top, bottom = page.run(script % (first, last))
    return top, bottom - top


def write(data: str, path: Path) -> None:
    """A screenshot in as few colours as keep it small."""
    image = Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")
    with atomic_path(path) as temporary:
        for colours in (256, 128, 64, 32):
            image.quantize(colours, dither=Image.Dither.NONE).save(temporary, format="PNG", optimize=True)
            if temporary.stat().st_size <= MOST_BYTES:
                break
        else:
            raise SystemExit(f"{path.name}: {temporary.stat().st_size:,} bytes even with 32 colours")
    print(f"{path}: {path.stat().st_size:,} bytes, {colours} colours")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("report", type=Path, help="folder of a run, with its index.html")
    report = parser.parse_args().report / "index.html"
    with tempfile.TemporaryDirectory() as folder, browser(Path(folder)) as page:
        page.open(report, WIDTH)
        write(page.picture(x=0, y=0, width=WIDTH, height=FIRST_SCREEN), ROOT / "docs" / "report-answer.png")
        for name, ends in SHOWN.items():
            top, height = section_box(page, *ends)
            write(page.picture(x=0, y=top, width=WIDTH, height=height), ROOT / "docs" / f"report-{name}.png")


if __name__ == "__main__":
    main()

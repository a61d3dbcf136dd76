"""What the repository shows of a report: `make pictures` (Chromium must be there).

    python -m benchmarks.pictures reports/demo

Writes docs/report.png, the first screen, of at most 300 kB, and reports/example/README.md with its figures: notebook
05 as Markdown, which hosts of repositories show.
"""

from __future__ import annotations

import argparse
import base64
import io
import shutil
import tempfile
from pathlib import Path

from nbconvert import MarkdownExporter
from PIL import Image
from traitlets.config import Config

from fracsurv.config import ROOT
from fracsurv.report.render import HIDDEN_TAGS
from fracsurv.utils.files import atomic_path
from tests.browser import browser

WIDTH, FIRST_SCREEN, MOST_BYTES = 1280, 900, 300_000


def write_small(picture: bytes, path: Path) -> None:
    """A picture in as few colours as keep it small."""
    image = Image.open(io.BytesIO(picture)).convert("RGB")
    with atomic_path(path) as temporary:
        for colours in (256, 128, 64, 32):
            image.quantize(colours, dither=Image.Dither.NONE).save(temporary, format="PNG", optimize=True)
            if temporary.stat().st_size <= MOST_BYTES:
                break
        else:
            raise SystemExit(f"{path.name}: {temporary.stat().st_size:,} bytes even with 32 colours")
    print(f"{path}: {path.stat().st_size:,} bytes, {colours} colours")


def write_example(notebook: Path, folder: Path) -> None:
    """A notebook's text and outputs as Markdown, its figures beside it."""
    hidden = {"enabled": True, "remove_cell_tags": HIDDEN_TAGS}
    exporter = MarkdownExporter(config=Config({"TagRemovePreprocessor": hidden}), exclude_input=True)
    text, resources = exporter.from_filename(str(notebook))
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, picture in resources["outputs"].items():
        write_small(picture, folder / name)
    lines = (line.rstrip() for line in text.splitlines())
    (folder / "README.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("report", type=Path, help="folder of a run, with its index.html")
    report = parser.parse_args().report
    with tempfile.TemporaryDirectory() as folder, browser(Path(folder)) as page:
        page.open(report / "index.html", WIDTH)
        clip = {"x": 0, "y": 0, "width": WIDTH, "height": FIRST_SCREEN, "scale": 1}
        first = page.ask("Page.captureScreenshot", format="png", clip=clip)
        write_small(base64.b64decode(first["data"]), ROOT / "docs" / "report.png")
    write_example(report / "notebooks" / "05_ablation_tables.ipynb", ROOT / "reports" / "example")


if __name__ == "__main__":
    main()

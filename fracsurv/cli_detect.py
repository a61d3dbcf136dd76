"""`fracsurv detect`: train a vertebra finder, use it on a cohort, evaluate it."""

from __future__ import annotations

import hashlib
import shutil
from itertools import count
from pathlib import Path
from typing import Annotated

import typer

from fracsurv.utils.errors import UserError
from fracsurv.utils.formatting import counted

app = typer.Typer(help="Find vertebrae in radiographs: boxes and keypoints.", no_args_is_help=True)

WeightsPath = Annotated[
    Path | None,
    typer.Option("--weights", help="A finder's weights, as `detect train` writes them; fracsurv's own if not given."),
]


@app.command()
def train(
    src: Annotated[
        list[Path], typer.Argument(help="YOLO folders or cohort folders with vertebrae.csv; several are one source.")
    ],
    out: Annotated[Path, typer.Option("--out", help="New weights file, .safetensors.")],
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the radiographs.")] = 30,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    detector: Annotated[
        Path | None,
        typer.Option("--detector", help="A finder whose detector is taken; only the keypoints are trained."),
    ] = None,
) -> None:
    """Train a finder from scratch on radiographs with boxes, and keypoints if the sources have them."""
    if out.suffix != ".safetensors":
        raise UserError(f"--out {out}: must end in .safetensors")
    from fracsurv.detection import DetectorRecipe, load_finder, read_all_labelled, save_finder, train_finder

    known = load_finder(detector) if detector else None
    found, provenance = read_all_labelled(src)
    finder = train_finder(found, provenance, DetectorRecipe(epochs=epochs, seed=seed), detector=known)
    save_finder(finder, out)
    typer.echo(f"{out}: {finder.summary()}")


@app.command()
def predict(
    cohort: Annotated[Path, typer.Argument(help="Cohort folder.")],
    weights: WeightsPath = None,
    replace: Annotated[
        bool,
        typer.Option(help="Overwrite vertebrae.csv; boxes that no finder wrote are kept beside it."),
    ] = False,
) -> None:
    """Write a cohort's vertebrae.csv: boxes with scores, and keypoints if the finder has them."""
    from fracsurv.cohort.annotations import written_by
    from fracsurv.cohort.cohort import read_cohort
    from fracsurv.images.plausibility import corrections_off_radiographs
    from fracsurv.utils.files import atomic_path, write_json

    checked = read_cohort(cohort)
    if faults := corrections_off_radiographs(checked):
        raise UserError(faults)
    path = cohort / "vertebrae.csv"
    if path.exists() and not replace:
        raise UserError(f"{path}: is there already; give --replace to overwrite it")
    from fracsurv.detection import find_vertebrae, load_finder
    from fracsurv.detection.locate import SHIPPED  # after what can be refused without torch

    finder = load_finder(weights or SHIPPED)
    table = find_vertebrae(finder, checked)
    if table.empty:
        raise UserError(
            f"{cohort}: the finder saw no vertebra in any radiograph ({finder.summary()}); nothing written"
        )
    if path.exists() and written_by(cohort) == path.name:  # boxes that no finder wrote may be somebody's work
        typer.echo(f"{_copy_beside(path)}: the boxes that were in vertebrae.csv")
    with atomic_path(path) as temporary:
        table.to_csv(temporary, index=False)
    write_json(
        cohort / "vertebrae.json",
        {"finder": finder.summary(), "sha256": hashlib.sha256(path.read_bytes()).hexdigest()},
    )
    per_patient = table.groupby("patient_id").size().reindex(checked.with_image().table["patient_id"], fill_value=0)
    typer.echo(f"finder: {finder.summary()}")
    if finder.about["provenance"] == "simulated" and checked.provenance != "simulated":
        typer.echo(
            "warning: this finder was trained on simulated radiographs; nothing shows that it works on real ones"
        )
    found, looked = counted(len(table), "vertebra", "vertebrae"), counted(len(per_patient), "radiograph")
    typer.echo(f"{path}: {found} in {looked}, {per_patient.median():g} typical")


def _copy_beside(path: Path) -> Path:
    names = (f"{path.stem}_before{'' if k == 1 else f'_{k}'}{path.suffix}" for k in count(1))
    kept = next(path.with_name(name) for name in names if not path.with_name(name).exists())
    shutil.copyfile(path, kept)
    return kept


@app.command()
def score(
    src: Annotated[Path, typer.Argument(help="YOLO folder, or cohort folder with vertebrae.csv.")],
    weights: WeightsPath = None,
) -> None:
    """Evaluate a finder on radiographs with boxes that it was not trained on."""
    from fracsurv.detection import load_finder, read_labelled, score_finder
    from fracsurv.detection.locate import SHIPPED

    found, provenance = read_labelled(src)
    typer.echo(f"{src}: {provenance}")
    for name, value in score_finder(load_finder(weights or SHIPPED), found).items():
        typer.echo(f"{name:<36} {value:,}" if isinstance(value, int) else f"{name:<36} {value:.3f}")

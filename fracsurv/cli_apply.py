"""`fracsurv validate`: a run's models held against the outcomes of other patients."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Overlap(StrEnum):
    """What to do with patients whose id is one of the training's."""

    refuse = "refuse"
    exclude = "exclude"
    keep = "keep"


def validate(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run; its training data are not needed.")],
    cohort: Annotated[
        Path, typer.Argument(help="Other patients with outcomes, as data/README.md describes a cohort.")
    ],
    out: Annotated[Path, typer.Option("--out", help="New folder for the page and its files.")],
    experiment: Annotated[
        list[str] | None, typer.Option(help="Row to validate, several if given more than once; all if none is.")
    ] = None,
    overlap: Annotated[
        Overlap,
        typer.Option(
            help="Patients met in training: refuse the cohort, exclude them, or keep those whose id alone is the "
            "same (other people, numbered alike)."
        ),
    ] = Overlap.refuse,
    draws: Annotated[int, typer.Option(help="Bootstrap samples of the patients.", min=50)] = 1000,
    seed: Annotated[int, typer.Option(help="Of the samples and the cross-fitting.", min=0)] = 0,
    workers: Annotated[int, typer.Option(help="Processes that read radiographs.", min=1)] = 1,
) -> None:
    """Does the model hold in another cohort: every metric, calibration, and what recalibration would make of it."""
    from fracsurv.validation_files import write_validation

    said = write_validation(
        run, cohort, out, experiment or [], overlap=overlap.value, n_draws=draws, seed=seed, workers=workers
    )
    for line in said:
        typer.echo(line)
    typer.echo(out / "index.html")

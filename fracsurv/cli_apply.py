"""`fracsurv predict` and `validate`: a run's models applied to other patients, and held against their outcomes."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from fracsurv.utils.errors import UserError


class Overlap(StrEnum):
    """What to do with patients whose id is one of the training's."""

    refuse = "refuse"
    exclude = "exclude"
    keep = "keep"


def predict(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run; its training data are not needed.")],
    cohort: Annotated[Path, typer.Argument(help="Patients, as data/README.md describes a cohort; without outcomes.")],
    out: Annotated[Path, typer.Option("--out", help="For predictions.csv, and warnings.txt if there are any.")],
    experiment: Annotated[str, typer.Option(help="Row to apply; if empty, that of the report's answer.")] = "",
    workers: Annotated[int, typer.Option(help="Processes that read radiographs.", min=1)] = 1,
) -> None:
    """Risk and probabilities of new patients by a run's fold models. Research only: no decision may rest on them."""
    from fracsurv.cohort.cohort import read_cohort
    from fracsurv.predict.predict import (
        default_experiment,
        fold_folders,
        model_summary,
        predict_cohort,
    )
    from fracsurv.predict.shift import shift_warnings
    from fracsurv.study.model_bundle import read_bundle
    from fracsurv.utils.files import atomic_path, check_outside, write_text
    from fracsurv.utils.formatting import counted

    check_outside(out, cohort)
    written = out / "predictions.csv"
    if written.exists():
        raise UserError(f"{written}: is there already; choose another --out, or delete it")
    patients = read_cohort(cohort, outcome=False)
    name = experiment or default_experiment(run)
    table = predict_cohort(run, patients, name, out / "prepared", workers=workers)
    bundles = [read_bundle(folder) for folder in fold_folders(run, name)]
    known = list(dict.fromkeys(line for bundle in bundles for line in bundle.caveats))
    for line in known + shift_warnings(run, patients, name, out / "prepared", named_rows=True):
        typer.echo(f"warning: {line}", err=True)
    (out / "warnings.txt").unlink(missing_ok=True)  # of predictions that were deleted
    # whoever is passed the predictions shall have them too
    if warned := known + shift_warnings(run, patients, name, out / "prepared", named_rows=False):
        write_text(out / "warnings.txt", "".join(f"{line}\n" for line in warned))
    with atomic_path(written) as temporary:
        table = table.assign(experiment=name, trained_on=bundles[0].about["provenance"])
        table.to_csv(temporary, index=False, float_format="%.6g")
    typer.echo(model_summary(run, name))
    typer.echo(f"{written}: {counted(len(table), 'patient')}")


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
            help="Patients met in training: refuse the cohort, exclude those who have a training patient's id, or "
            "keep all (other people, numbered alike)."
        ),
    ] = Overlap.refuse,
    draws: Annotated[int, typer.Option(help="Bootstrap samples of the patients.", min=50)] = 1000,
    seed: Annotated[int, typer.Option(help="Of the samples and the cross-fitting.", min=0)] = 0,
    workers: Annotated[int, typer.Option(help="Processes that read radiographs.", min=1)] = 1,
) -> None:
    """Does the model hold in another cohort: every metric, calibration, and what recalibration would make of it."""
    from fracsurv.report.validation_files import write_validation

    said = write_validation(
        run, cohort, out, experiment or [], overlap=overlap.value, n_draws=draws, seed=seed, workers=workers
    )
    for line in said:
        typer.echo(line)
    typer.echo(out / "index.html")

"""The command line: thin commands over the package. A user's mistake ends with exit code 2 and no traceback."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fracsurv.cli_apply import predict, validate
from fracsurv.cli_detect import app as detect
from fracsurv.utils.errors import UserError, run_command

# Imports stand inside the commands: torch and scikit-survival take seconds, `--help` and `check` should not.

app = typer.Typer(
    help="Does a spine radiograph add to clinical risk factors when predicting fractures?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

app.add_typer(detect, name="detect")
app.command()(predict)
app.command()(validate)

CohortPath = Annotated[Path, typer.Argument(help="Cohort folder, as data/README.md describes it.")]
OutPath = Annotated[Path, typer.Option("--out", help="Folder of the run's results.")]
ProfileName = Annotated[str, typer.Option("--profile", help="tiny, demo, paper, permuted, or a YAML file.")]


@app.command()
def check(
    cohort: CohortPath,
    workers: Annotated[int, typer.Option(help="Processes that read radiographs.", min=1)] = 1,
    summary: Annotated[
        bool, typer.Option(help="Faults and warnings are counted alone: no value of a single patient is printed.")
    ] = False,
    outcome: Annotated[
        bool, typer.Option("--outcome/--no-outcome", help="Whether outcomes are asked for; `predict` needs none.")
    ] = True,
) -> None:
    """Read a cohort whole, every radiograph too; list every fault, or summarise it and warn of what is odd."""
    from fracsurv.cohort.cohort import read_cohort
    from fracsurv.cohort.plausibility import implausible_values
    from fracsurv.cohort.summary import missing_summary, summary_table
    from fracsurv.images.plausibility import implausible_radiographs, unreadable
    from fracsurv.utils.formatting import counted

    try:
        try:
            checked = read_cohort(cohort, outcome=outcome)
        except UserError as error:  # the radiographs are read all the same
            faults = [*error.faults, *unreadable(cohort, workers=workers, progress=True)]
            raise UserError(list(dict.fromkeys(faults))) from None
        odd = implausible_values(checked, outcome=outcome) + implausible_radiographs(
            checked, workers=workers, progress=True
        )
    except UserError as error:
        if not summary:
            raise
        raise UserError(f"faults: {len(error.faults):,}; call without --summary to see them") from None
    typer.echo(summary_table(checked, outcome=outcome).to_string())
    if said := missing_summary(checked):
        typer.echo(f"\n{said}")
    images = "with radiographs" if checked.has_images else "without radiographs: only tabular experiments can run"
    if checked.has_images and not checked.has_image.all():
        images = f"{counted(int(checked.has_image.sum()), 'patient')} of {len(checked):,} with a radiograph"
    boxes = "none" if checked.vertebrae is None else f"{len(checked.vertebrae):,}"
    if checked.vertebrae is None and checked.has_images:
        boxes = "none, so `run` looks for vertebrae with the finder that ships with fracsurv"
    if checked.read_as:
        typer.echo(f"\n{checked.read_as}")
    warnings = counted(len(odd), "warning")
    typer.echo(f"\nno faults; {checked.provenance}; {images}; vertebra boxes: {boxes}; {warnings}")
    for line in odd if not summary else ():
        typer.echo(f"warning: {line}")


@app.command()
def simulate(
    out: Annotated[Path, typer.Argument(help="New cohort folder.")],
    patients: Annotated[int | None, typer.Option(help="Patients to train, validate and test on.", min=1)] = None,
    external: Annotated[int | None, typer.Option(help="Further patients, marked as external.", min=0)] = None,
    seed: Annotated[int | None, typer.Option(help="The same seed gives the same cohort.", min=0)] = None,
    image_format: Annotated[str, typer.Option("--format", help="png or dicom, 16 bit.")] = "png",
    resolution: Annotated[float, typer.Option(help="Pixels per pixel of the protocol's radiographs.")] = 0.25,
    boxes: Annotated[
        str, typer.Option(help="vertebrae.csv: none (a finder is asked), true (to train one on), or faulty.")
    ] = "none",
    competing_death: Annotated[
        bool, typer.Option("--competing-death", help="Some women die first: event 2, a competing event.")
    ] = False,
    profile: Annotated[str, typer.Option(help="Takes patients, external and seed from here if not given.")] = "demo",
    workers: Annotated[int, typer.Option(help="Processes that render.", min=1)] = 1,
) -> None:
    """Make a cohort with known true risk: clinical factors, radiographs, vertebra boxes, outcome."""
    from fracsurv.config import load_profile
    from fracsurv.simulate import DeathSettings, simulate_cohort
    from fracsurv.utils.formatting import counted

    given = {"patients": patients, "external": external, "seed": seed}
    size = {**load_profile(profile).simulate, **{k: v for k, v in given.items() if v is not None}}
    if "patients" not in size:
        raise UserError(f"--patients: not given, and profile {profile} has no cohort of its own")
    if patients is not None and external is None:
        size["external"] = 0
    simulate_cohort(
        out, **size, resolution=resolution, image_format=image_format, boxes=boxes,
        death=DeathSettings() if competing_death else None, workers=workers,
    )  # fmt: skip
    typer.echo(f"{out}: {counted(size['patients'] + size.get('external', 0), 'simulated patient')}")


@app.command("import-yolo")
def import_yolo_command(
    src: Annotated[Path, typer.Argument(help="Folder with images/ and labels/, or train/ and valid/ holding them.")],
    out: Annotated[Path, typer.Argument(help="New cohort folder.")],
    seed: Annotated[int, typer.Option(help="Of the simulated clinical variables and outcome.", min=0)] = 0,
) -> None:
    """Turn real radiographs with vertebra boxes (YOLO format) into a semi-synthetic cohort."""
    from fracsurv.importers.yolo import import_yolo

    import_yolo(src, out, seed=seed)
    typer.echo(f"{out}: semi-synthetic cohort; radiographs are real, clinical factors and outcome simulated")


@app.command("import-survival")
def import_survival_command(
    source: Annotated[str, typer.Argument(help="flchain, whas500, gbsg2, or an HDF5 file of DeepSurv's format.")],
    out: Annotated[Path, typer.Argument(help="New cohort folder.")],
) -> None:
    """Turn a public survival data set into a cohort without images."""
    from fracsurv.importers.survival import import_survival

    import_survival(source, out)
    typer.echo(f"{out}: cohort without radiographs")


@app.command()
def prepare(
    cohort: CohortPath,
    profile: ProfileName,
    out: OutPath,
    kind: Annotated[
        list[str] | None, typer.Option(help="crops or full: images to store for training; may be given twice.")
    ] = None,
    workers: Annotated[int, typer.Option(help="Processes that read radiographs.", min=1)] = 1,
) -> None:
    """Check a cohort, split it, find its vertebrae, decide their slots, and store the images that training reads."""
    from fracsurv.study.prepare import prepare as prepare_run

    run = prepare_run(cohort, out, profile, kinds=kind or (), workers=workers, progress=True)
    typer.echo(f"{run.out}: prepared")


@app.command()
def fit(
    cohort: CohortPath,
    profile: ProfileName,
    out: OutPath,
    experiment: Annotated[str, typer.Option(help="A row of configs/experiments.yaml, or true_risk.")],
    fold: Annotated[int, typer.Option(min=0)],
    alpha: Annotated[float | None, typer.Option(help="Weight of the clinical risk, for α-models.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; all if not given.")] = None,
) -> None:
    """Fit one experiment on one fold. What is done already is not done again; what was interrupted resumes."""
    import torch

    from fracsurv.study.experiments import fit_fold, open_fit
    from fracsurv.utils.devices import keep_freed_memory

    keep_freed_memory()
    if threads:
        torch.set_num_threads(threads)
    run = open_fit(cohort, profile, out, experiment, fold, alpha)
    fit_fold(run, experiment, fold, alpha)
    typer.echo(f"{run.folder(experiment, fold, alpha)}: fitted")


@app.command()
def run(
    cohort: CohortPath,
    profile: ProfileName = "demo",
    out: OutPath = Path("reports/run"),
    experiments: Annotated[
        str, typer.Option(help="Comma-separated names; all that the cohort allows if empty.")
    ] = "",
    cores: Annotated[
        int, typer.Option(min=1, help="Jobs at once; on a cluster, CPUs of a job that can use several.")
    ] = 2,
    per_fit: Annotated[bool, typer.Option(help="One job a fold and α, for clusters; the same results.")] = False,
    profile_dir: Annotated[
        Path | None, typer.Option(help="Snakemake profile that sends the jobs to a cluster, as configs/slurm does.")
    ] = None,
    anew: Annotated[
        bool, typer.Option("--anew", help="Replace fits of the cohort with other values, or under other settings.")
    ] = False,
) -> None:
    """Run the whole study on a cohort: every experiment, the notebooks, the report. Re-running does what is left."""
    from fracsurv.pipeline.pipeline import run_pipeline

    names = [name.strip() for name in experiments.split(",") if name.strip()]
    run_pipeline(cohort, profile, out, names, cores, per_fit, profile_dir, anew=anew)


@app.command()
def explain(
    cohort: CohortPath,
    profile: ProfileName,
    out: OutPath,
    experiments: Annotated[
        str, typer.Option(help="Comma-separated names; if empty, the clinical models and one row an encoder.")
    ] = "",
    patients: Annotated[
        int | None, typer.Option(min=1, help="Whose images are looked at, drawn at random; few if not given.")
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; all if not given.")] = None,
) -> None:
    """Find what fitted models look at: vertebrae, places in the picture, clinical factors. The report shows it."""
    import torch

    from fracsurv.study.explain import explain as explain_one
    from fracsurv.study.explanations import PATIENTS, explainable
    from fracsurv.study.results import finished
    from fracsurv.study.run import open_run
    from fracsurv.utils.devices import keep_freed_memory

    if threads:
        torch.set_num_threads(threads)
    keep_freed_memory()
    run = open_run(cohort, out, profile)
    names = [name.strip() for name in experiments.split(",") if name.strip()] or explainable(run)
    if not names and not finished(run):
        raise UserError(f"{out}: no experiment is finished; `fracsurv run` first")
    split = "external" if "external" in run.rows(0) else "test"
    for name in names:
        explain_one(run, name, split, patients or PATIENTS, progress=True)
        typer.echo(f"{name}: explained on {split}")


@app.command()
def report(
    cohort: CohortPath,
    profile: ProfileName,
    out: OutPath,
) -> None:
    """Write index.html and provenance.json from a run's results, and turn its notebooks into HTML."""
    from fracsurv.report.report import write_report
    from fracsurv.study.run import open_run

    typer.echo(write_report(open_run(cohort, out, profile)))


def main(called: typer.Typer = app) -> None:
    """Entry point of `fracsurv`."""
    run_command(called)


if __name__ == "__main__":
    main()

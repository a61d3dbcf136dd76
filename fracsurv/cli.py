"""The command line: thin commands over the package. A user's mistake ends with exit code 2 and no traceback."""

from __future__ import annotations

import os
import sys

# `python -m` looks for modules in the working directory first, where a random.py of the user's may lie
if __name__ == "__main__" and sys.path[0] == os.getcwd() != os.path.dirname(os.path.dirname(__file__)):
    del sys.path[0]

import hashlib
import shutil
from enum import StrEnum
from itertools import count
from pathlib import Path
from typing import Annotated

try:
    import typer
except ModuleNotFoundError:  # installed as a library alone
    print("error: the commands need more libraries: pip install 'fracsurv[study]'", file=sys.stderr)
    raise SystemExit(2) from None

from fracsurv import __version__
from fracsurv.utils.errors import UserError, run_command
from fracsurv.utils.formatting import counted

# Imports stand inside the commands: torch and scikit-survival take seconds, `--help` and `check` should not.

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)

detect = typer.Typer(
    help="Find vertebrae in radiographs: boxes, and keypoints where they can be learnt.", no_args_is_help=True
)
app.add_typer(detect, name="detect")

CohortPath = Annotated[Path, typer.Argument(help="Cohort folder, as data/README.md describes it.")]
OutPath = Annotated[Path, typer.Option("--out", help="Folder of the run's results.")]
ProfileName = Annotated[str, typer.Option("--profile", help="tiny, demo, paper, permuted, or a YAML file.")]
RunPath = Annotated[Path, typer.Argument(help="Folder of a finished run; its training data are not needed.")]
Workers = Annotated[int, typer.Option(help="Processes that read radiographs.", min=1)]
Threads = Annotated[int | None, typer.Option(min=1, help="CPU threads; all if not given.")]
WeightsPath = Annotated[
    Path | None,
    typer.Option("--weights", help="A finder's weights, as `detect train` writes them; fracsurv's own if not given."),
]
BeyondTraining = Annotated[
    bool,
    typer.Option(
        "--beyond-training", help="Go on where most values lie beyond the training's range: other patients."
    ),
]
Labelled = Annotated[Path, typer.Argument(help="YOLO folder, or cohort folder with vertebrae.csv.")]


class Overlap(StrEnum):
    """What to do with patients whose id is one of the training's."""

    refuse = "refuse"
    exclude = "exclude"
    keep = "keep"


def _print_version(asked: bool) -> None:
    if asked:
        print(f"fracsurv {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    """Does a spine radiograph add to clinical risk factors when predicting fractures?"""


def _listed(names: str) -> list[str]:
    return [name.strip() for name in names.split(",") if name.strip()]


@app.command()
def check(
    cohort: CohortPath,
    workers: Workers = 1,
    summary: Annotated[
        bool, typer.Option(help="Faults and warnings are counted alone: no value of a single patient is printed.")
    ] = False,
    outcome: Annotated[
        bool, typer.Option("--outcome/--no-outcome", help="Whether outcomes are asked for; `predict` needs none.")
    ] = True,
) -> None:
    """Read a cohort whole, every radiograph too; list every fault, or summarise it and warn of what is odd."""
    from fracsurv.cohort.cohort import read_cohort
    from fracsurv.cohort.plausibility import implausible_values, split_faults
    from fracsurv.cohort.summary import missing_summary, summary_table
    from fracsurv.images.plausibility import implausible_radiographs, unreadable

    try:
        try:
            checked = read_cohort(cohort, outcome=outcome)
        except UserError as error:  # the radiographs are read all the same
            faults = [*error.faults, *unreadable(cohort, workers=workers, progress=True)]
            raise UserError(list(dict.fromkeys(faults))) from None
        faults = split_faults(checked) if outcome else []
        try:
            odd = implausible_radiographs(checked, workers=workers, progress=True)
        except UserError as error:
            faults += error.faults
        if faults:
            raise UserError(faults)
        odd = implausible_values(checked, outcome=outcome) + odd
    except UserError as error:
        if not summary:
            raise
        raise UserError(f"faults: {len(error.faults):,}; call without --summary to see them") from None
    print(summary_table(checked, outcome=outcome).to_string())
    for line in filter(None, (missing_summary(checked), checked.read_as)):
        print(f"\n{line}")
    images = "none, so only tabular experiments can run"
    boxes = "none" if checked.vertebrae is None else f"{len(checked.vertebrae):,}"
    if checked.has_images:
        images = f"{int(checked.has_image.sum()):,} of {counted(len(checked), 'patient')}"
        boxes = "none, so `run` asks the finder of fracsurv" if checked.vertebrae is None else boxes
    facts = f"{checked.provenance}; radiographs: {images}; vertebra boxes: {boxes}; {counted(len(odd), 'warning')}"
    print(f"\nno faults; {facts}")
    for line in odd if not summary else ():
        print(f"warning: {line}")


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
    print(f"{out}: {counted(size['patients'] + size.get('external', 0), 'simulated patient')}")


imports = typer.Typer(help="Turn public data into a cohort folder.", no_args_is_help=True)
app.add_typer(imports, name="import")


@app.command("import-yolo", hidden=True)  # as it was called up to 0.2
@imports.command("yolo")
def import_yolo_command(
    src: Annotated[Path, typer.Argument(help="Folder with images/ and labels/, or train/ and valid/ holding them.")],
    out: Annotated[Path, typer.Argument(help="New cohort folder.")],
    seed: Annotated[int, typer.Option(help="Of the simulated clinical variables and outcome.", min=0)] = 0,
) -> None:
    """Turn real radiographs with vertebra boxes (YOLO format) into a semi-synthetic cohort."""
    from fracsurv.importers.yolo import import_yolo

    import_yolo(src, out, seed=seed)
    print(f"{out}: semi-synthetic cohort; radiographs are real, clinical factors and outcome simulated")


@app.command("import-survival", hidden=True)
@imports.command("survival")
def import_survival_command(
    source: Annotated[str, typer.Argument(help="flchain, whas500, gbsg2, or an HDF5 file of DeepSurv's format.")],
    out: Annotated[Path, typer.Argument(help="New cohort folder.")],
) -> None:
    """Turn a public survival data set into a cohort without images."""
    from fracsurv.importers.survival import import_survival

    import_survival(source, out)
    print(f"{out}: cohort without radiographs")


@imports.command("nhanes-vfa")
def import_nhanes_command(
    src: Annotated[Path, typer.Argument(help="Folder with people.csv.gz and vertebrae.csv.gz.")],
    out: Annotated[Path, typer.Argument(help="New cohort folder.")],
) -> None:
    """Turn NHANES's readings of lateral spine DXA into a cohort without pixels, whose event is death."""
    from fracsurv.importers.nhanes import import_nhanes

    import_nhanes(src, out)
    print(f"{out}: real readings without radiographs; the event is death from any cause")


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
    print(f"{run.out}: prepared")


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

    from fracsurv.study.experiments import fit_fold
    from fracsurv.study.run import open_run
    from fracsurv.utils.devices import keep_freed_memory

    keep_freed_memory()
    if threads:
        torch.set_num_threads(threads)
    run = open_run(cohort, out, profile)
    fit_fold(run, experiment, fold, alpha)
    print(f"{run.folder(experiment, fold, alpha)}: fitted")


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

    run_pipeline(cohort, profile, out, _listed(experiments), cores, per_fit, profile_dir, anew=anew)


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
    threads: Threads = None,
) -> None:
    """Find what fitted models look at: vertebrae, places in the picture, clinical factors. The report shows it."""
    import torch

    from fracsurv.study.explain import PATIENTS, explainable
    from fracsurv.study.explain import explain as explain_one
    from fracsurv.study.results import finished
    from fracsurv.study.run import open_run
    from fracsurv.utils.devices import keep_freed_memory

    if threads:
        torch.set_num_threads(threads)
    keep_freed_memory()
    run = open_run(cohort, out, profile)
    names = _listed(experiments) or explainable(run)
    if not names and not finished(run):
        raise UserError(f"{out}: no experiment is finished; `fracsurv run` first")
    split = "external" if "external" in run.rows(0) else "test"
    for name in names:
        explain_one(run, name, split, patients or PATIENTS, progress=True)
        print(f"{name}: explained on {split}")


@app.command()
def report(cohort: CohortPath, profile: ProfileName, out: OutPath) -> None:
    """Write index.html and provenance.json from a run's results, and turn its notebooks into HTML."""
    from fracsurv.report.report import write_report
    from fracsurv.study.run import open_run

    print(write_report(open_run(cohort, out, profile)))


@app.command()
def predict(
    run: RunPath,
    cohort: Annotated[Path, typer.Argument(help="Patients, as data/README.md describes a cohort; without outcomes.")],
    out: Annotated[Path, typer.Option("--out", help="For predictions.csv, and warnings.txt if there are any.")],
    experiment: Annotated[str, typer.Option(help="Row to apply; if empty, that of the report's answer.")] = "",
    workers: Workers = 1,
    beyond_training: BeyondTraining = False,
) -> None:
    """Risk and probabilities of new patients by a run's fold models. Research only: no decision may rest on them."""
    from fracsurv.cohort.cohort import read_cohort
    from fracsurv.predict.predict import (
        default_experiment,
        model_summary,
        predict_cohort,
        read_models,
        training_mismatches,
    )
    from fracsurv.predict.shift import other_units, shift_warnings
    from fracsurv.utils.files import atomic_path, check_outside, write_text

    check_outside(out, cohort)
    written = out / "predictions.csv"
    if written.exists():
        raise UserError(f"{written}: is there already; choose another --out, or delete it")
    patients = read_cohort(cohort, outcome=False)
    name = experiment or default_experiment(run)
    models = read_models(run, name)
    if not beyond_training and (odd := other_units(models, patients)):
        raise UserError(training_mismatches(models, patients) + odd)
    table = predict_cohort(models, patients, out / "prepared", workers=workers)
    known = list(dict.fromkeys(line for model in models for line in model.caveats))
    for line in known + shift_warnings(models, patients, out / "prepared", named_rows=True):
        print(f"warning: {line}", file=sys.stderr)
    (out / "warnings.txt").unlink(missing_ok=True)  # of predictions that were deleted
    # whoever is passed the predictions shall have them too
    if warned := known + shift_warnings(models, patients, out / "prepared", named_rows=False):
        write_text(out / "warnings.txt", "".join(f"{line}\n" for line in warned))
    with atomic_path(written) as temporary:
        table = table.assign(experiment=name, trained_on=models[0].about["provenance"])
        table.to_csv(temporary, index=False, float_format="%.6g")
    print(model_summary(models))
    print(f"{written}: {counted(len(table), 'patient')}")


@app.command()
def validate(
    run: RunPath,
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
    workers: Workers = 1,
    beyond_training: BeyondTraining = False,
) -> None:
    """Does the model hold in another cohort: every metric, calibration, and what recalibration would make of it."""
    from fracsurv.report.validation import write_validation

    lines = write_validation(
        run, cohort, out, experiment or [], overlap=overlap.value, n_draws=draws, seed=seed, workers=workers,
        beyond_training=beyond_training,
    )  # fmt: skip
    for line in lines:
        print(line)
    print(out / "index.html")


@detect.command("train")
def detect_train(
    src: Annotated[
        list[Path], typer.Argument(help="YOLO folders or cohort folders with vertebrae.csv; several are one source.")
    ],
    out: Annotated[Path, typer.Option("--out", help="New weights file, .safetensors.")],
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the radiographs.")] = 30,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    detector: Annotated[
        Path | None,
        typer.Option("--detector", help="A finder whose detector is taken; only the keypoints are learnt."),
    ] = None,
) -> None:
    """Train a finder from scratch on radiographs with boxes, and keypoints if the sources have them."""
    if out.suffix != ".safetensors":
        raise UserError(f"--out {out}: must end in .safetensors")
    from fracsurv.detection.finder import load_finder, save_finder, train_finder
    from fracsurv.detection.sources import read_all_labelled
    from fracsurv.detection.training import DetectorRecipe

    known = load_finder(detector) if detector else None
    found, provenance = read_all_labelled(src)
    finder = train_finder(found, provenance, DetectorRecipe(epochs=epochs, seed=seed), detector=known)
    save_finder(finder, out)
    print(f"{out}: {finder.summary()}")


@detect.command("predict")
def detect_predict(
    cohort: Annotated[Path, typer.Argument(help="Cohort folder.")],
    weights: WeightsPath = None,
    replace: Annotated[
        bool,
        typer.Option(help="Overwrite a vertebrae.csv that is there; boxes that no finder wrote are kept beside it."),
    ] = False,
) -> None:
    """Write a cohort's vertebrae.csv: boxes with scores, and keypoints if the finder knows them."""
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
    from fracsurv.detection.finder import load_finder  # after what can be refused without torch
    from fracsurv.detection.locate import SHIPPED, find_vertebrae

    finder = load_finder(weights or SHIPPED)
    table = find_vertebrae(finder, checked)
    if table.empty:
        raise UserError(
            f"{cohort}: the finder saw no vertebra in any radiograph ({finder.summary()}); nothing written"
        )
    if path.exists() and written_by(cohort) == path.name:  # boxes that no finder wrote may be somebody's work
        names = (f"vertebrae_before{'' if k == 1 else f'_{k}'}.csv" for k in count(1))
        kept = next(cohort / name for name in names if not (cohort / name).exists())
        shutil.copyfile(path, kept)
        print(f"{kept}: the boxes that were in vertebrae.csv")
    with atomic_path(path) as temporary:
        table.to_csv(temporary, index=False)
    write_json(
        cohort / "vertebrae.json",
        {"finder": finder.summary(), "sha256": hashlib.sha256(path.read_bytes()).hexdigest()},
    )
    per_patient = table.groupby("patient_id").size().reindex(checked.with_image().table["patient_id"], fill_value=0)
    print(f"finder: {finder.summary()}")
    if finder.about["provenance"] == "simulated" and checked.provenance != "simulated":
        print("warning: this finder was trained on simulated radiographs; nothing shows that it works on real ones")
    found, looked = counted(len(table), "vertebra", "vertebrae"), counted(len(per_patient), "radiograph")
    print(f"{path}: {found} in {looked}, {per_patient.median():g} typical")


@detect.command("score")
def detect_score(src: Labelled, weights: WeightsPath = None) -> None:
    """Evaluate a finder on radiographs with boxes that it was not trained on."""
    from fracsurv.detection.finder import load_finder, score_finder
    from fracsurv.detection.locate import SHIPPED
    from fracsurv.detection.sources import read_labelled

    found, provenance = read_labelled(src)
    print(f"{src}: {provenance}")
    for name, value in score_finder(load_finder(weights or SHIPPED), found).items():
        print(f"{name:<36} {value:,}" if isinstance(value, int) else f"{name:<36} {value:.3f}")


def main(called: typer.Typer = app) -> None:
    """Entry point of `fracsurv`."""
    run_command(called)


if __name__ == "__main__":
    main()

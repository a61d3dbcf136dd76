# The study as a pipeline. `fracsurv run COHORT` calls it with a --configfile: cohort, out, profile, experiments, per_fit,
# and cores: the CPUs of a job that can use several.
# By default one job an experiment: its notebook fits what is not fitted yet, which spares every further fit the
# seconds that importing torch takes. With per_fit=true one job an (experiment, fold, α), for clusters; notebooks
# then show what the jobs wrote. Either way re-running does only what is left, and gives the same.
import hashlib
import json
import shlex
import sys
from pathlib import Path

from fracsurv.cohort.tables import TABLES as COHORT_TABLES
from fracsurv.config import ROOT, TRUE_RISK, as_record
from fracsurv.images.store import INPUTS
from fracsurv.pipeline.progress import notebook_of
from fracsurv.study.run import EVALUATION_VERSION, FIT_VERSION, open_run

COHORT, OUT, PROFILE = config["cohort"], config["out"], config["profile"]
RUN = open_run(COHORT, OUT, PROFILE)
FOLDS = range(RUN.profile.n_folds)
PER_FIT = str(config.get("per_fit", "false")).lower() == "true"
CORES = int(config.get("cores", 1))
GPU = int(config.get("gpu", 1))  # that a network's job asks for
NOTEBOOKS = str(ROOT / "notebooks")
FRACSURV = shlex.join([sys.executable, "-m", "fracsurv.cli"])
EXECUTE = shlex.join([sys.executable, "-m", "fracsurv.pipeline.notebook_job"])
TABLES = [
    str(RUN.cohort.folder / file)
    for file in (*COHORT_TABLES, "cohort.yaml", "truth.parquet", "vertebrae.csv", "vertebrae_corrections.csv")
    if (RUN.cohort.folder / file).exists()
]
if RUN.cohort.vertebrae is not None and not (RUN.cohort.folder / "vertebrae.csv").exists():
    TABLES.append(f"{OUT}/prepared/vertebrae.csv")  # what the finder found, when the run was prepared


chosen = config.get("experiments")
NAMES = RUN.with_parts(chosen.split(",") if chosen else RUN.runnable())
SWEPT = [name for name in NAMES if RUN.alphas(name) != (None,)]
PLAIN = [name for name in NAMES if name not in SWEPT]
BASELINES = [name for name in RUN.tabular() if name in NAMES]
NETWORKS = [name for name in NAMES if name not in (TRUE_RISK, *BASELINES)]
KINDS = sorted({RUN.experiments[name].input for name in NETWORKS} & set(INPUTS))  # of images that they train on
SHOWN = (
    ["01_eda_kaplan_meier"]
    + (["02_crop_extraction"] if "crops" in KINDS else [])
    + (["03_baselines"] if BASELINES else [])
    + [f"04_fusion_training_{name}" for name in NETWORKS]
)


RADIOGRAPHS = RUN.cohort.image_fingerprint()
# of other content, a table need not be younger than what was made from the former: it may be copied with its date
CONTENT = [hashlib.sha256(Path(table).read_bytes()).hexdigest() for table in TABLES]


def settings(name, notebook=None):
    """What a job's results depend on besides its files; Snakemake runs the job again when it changes.

    A hash, since Snakemake would take braces in it for wildcards. Of a notebook only the cells' text counts: running
    it in JupyterLab changes no result.
    """
    row = RUN.experiments.get(name)
    seen = RADIOGRAPHS if name == "prepare" or row and row.needs_images else ""
    cells = json.loads((ROOT / "notebooks" / f"{notebook}.ipynb").read_text(encoding="utf-8"))["cells"] if notebook else []
    text = ["".join(cell["source"]) for cell in cells]
    slots = RUN.cohort.slot_index.tobytes() if row and row.morphometry else b""
    row = as_record(row) if row else name
    parts = (FIT_VERSION, EVALUATION_VERSION, as_record(RUN.profile), row, seen, slots, text, CONTENT)
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def one_of(names):
    return "|".join(names) or "(?!)"


def needs(name, fold):
    """What a fit reads: the cohort's tables, its store, and the predictions of the models it takes over."""
    if name == TRUE_RISK:
        return TABLES
    row = RUN.experiments[name]
    stores = [f"{OUT}/prepared/{row.input}.complete"] if row.needs_images else []
    if PER_FIT:
        parts = [stamp(other, fold) for other in row.pretrained.values()]
    else:
        parts = [notebook(other) for other in row.pretrained.values()]
    return TABLES + stores + parts


def notebook(name):
    """The notebook that fits, or shows, an experiment."""
    return f"{OUT}/{notebook_of(RUN, name)}"


def shown_after(name):
    """What a notebook waits for: its experiment's fits, or only what those need if it fits them itself.

    And the rows it is held against: a notebook that found them missing would fit them beside the job that does.
    """
    first = fitted(TRUE_RISK) if TRUE_RISK in NAMES else []
    if name in NETWORKS:
        first = first + [path for other in BASELINES for path in (fitted(other) if PER_FIT else [notebook(other)])]
    return first + (fitted(name) if PER_FIT else sorted({path for fold in FOLDS for path in needs(name, fold)}))


def stamp(name, fold, alpha=None):
    """An empty file that says that Snakemake has seen a fit done.

    Not one of the fit's own: Snakemake removes what a job writes before it does the job again, a changed table's date
    being enough. The job itself knows what is done.
    """
    folder = f"{OUT}/experiments/{name}" + ("" if alpha is None else f"/alpha-{alpha:g}")
    return f"{folder}/fold-{fold}/{'fit' if name in SWEPT else 'evaluation'}.complete"


def fitted(name):
    """The stamps of an experiment's fits."""
    return [stamp(name, fold, alpha) for alpha in RUN.alphas(name) for fold in FOLDS]


wildcard_constraints:
    fold=r"\d+",
    alpha=r"[\d.e-]+",


rule all:
    # all that a run leaves, not the report alone: what was deleted since is made again though the report stands
    input:
        f"{OUT}/index.html",
        f"{OUT}/ablation.csv",
        f"{OUT}/notebooks/05_ablation_tables.ipynb",
        f"{OUT}/explanations/complete",
        f"{OUT}/notebooks/06_explanations.ipynb",
        expand(f"{OUT}/notebooks/{{shown}}.ipynb", shown=SHOWN),
        [f"{OUT}/prepared/{kind}.complete" for kind in KINDS],
        [path for name in NAMES if name == TRUE_RISK or PER_FIT for path in fitted(name)],


rule prepare:
    input:
        TABLES,
    output:
        touch(f"{OUT}/prepared/{{kind}}.complete"),
    threads: CORES
    log:
        f"{OUT}/logs/prepare-{{kind}}.log",
    params:
        settings("prepare"),
    shell:
        "{FRACSURV} prepare {COHORT:q} --profile {PROFILE:q} --out {OUT:q} --kind {wildcards.kind}"
        " --workers {threads} > {log:q} 2>&1"


rule fit:
    input:
        lambda w: needs(w.name, w.fold),
    output:
        touch(f"{OUT}/experiments/{{name}}/fold-{{fold}}/evaluation.complete"),
    wildcard_constraints:
        name=one_of(PLAIN),
    log:
        f"{OUT}/logs/fit-{{name}}-fold-{{fold}}.log",
    params:
        lambda w: settings(w.name),
    resources:
        gpu=lambda w: GPU * (w.name in NETWORKS),
    shell:
        "{FRACSURV} fit {COHORT:q} --profile {PROFILE:q} --out {OUT:q} --experiment {wildcards.name}"
        " --fold {wildcards.fold} --threads {threads} > {log:q} 2>&1"


rule fit_alpha:
    input:
        lambda w: needs(w.name, w.fold),
    output:
        touch(f"{OUT}/experiments/{{name}}/alpha-{{alpha}}/fold-{{fold}}/fit.complete"),
    wildcard_constraints:
        name=one_of(SWEPT),
    log:
        f"{OUT}/logs/fit-{{name}}-alpha-{{alpha}}-fold-{{fold}}.log",
    params:
        lambda w: settings(w.name),
    resources:
        gpu=GPU,
    shell:
        "{FRACSURV} fit {COHORT:q} --profile {PROFILE:q} --out {OUT:q} --experiment {wildcards.name}"
        " --fold {wildcards.fold} --alpha {wildcards.alpha} --threads {threads} > {log:q} 2>&1"


rule cohort_notebook:
    input:
        TABLES,
        lambda w: f"{OUT}/prepared/crops.complete" if w.number == "02" else [],
    output:
        f"{OUT}/notebooks/{{number}}_{{title}}.ipynb",
    wildcard_constraints:
        number="01|02",
    log:
        f"{OUT}/logs/{{number}}_{{title}}.log",
    params:
        lambda w: settings("cohort", f"{w.number}_{w.title}"),
    shell:
        "{EXECUTE} {NOTEBOOKS:q}/{wildcards.number}_{wildcards.title}.ipynb {output:q}"
        " --cohort {COHORT:q} --profile {PROFILE:q} --out {OUT:q} > {log:q} 2>&1"


rule baselines_notebook:
    input:
        [path for name in BASELINES for path in shown_after(name)],
    output:
        f"{OUT}/notebooks/03_baselines.ipynb",
    log:
        f"{OUT}/logs/03_baselines.log",
    params:
        [settings(name, "03_baselines") for name in BASELINES],
    shell:
        "{EXECUTE} {NOTEBOOKS:q}/03_baselines.ipynb {output:q}"
        " --cohort {COHORT:q} --profile {PROFILE:q} --out {OUT:q} > {log:q} 2>&1"


def length(name):
    """About how long an experiment takes: sweeps, then full images, then the rest."""
    row = RUN.experiment(name)
    return row.epochs * len(RUN.alphas(name)) * (3 if row.input == "full" else 1) if not row.pretrained.get("image") else 0


# the longest first, so that the last ones to run are short
for rank, network in enumerate(sorted(NETWORKS, key=length)):

    rule:
        name:
            f"training_notebook_{network}"
        input:
            shown_after(network),
        output:
            notebook(network),
        params:
            experiment=network,
            settings=settings(network, "04_fusion_training"),
        log:
            f"{OUT}/logs/04_fusion_training_{network}.log",
        priority: rank
        resources:
            # the notebook evaluates the best α's models, on the kind of device that all others are evaluated on
            gpu=GPU * (not PER_FIT or network in SWEPT),
        shell:
            "{EXECUTE} {NOTEBOOKS:q}/04_fusion_training.ipynb {output:q} --experiment {params.experiment}"
            " --cohort {COHORT:q} --profile {PROFILE:q} --out {OUT:q} > {log:q} 2>&1"


rule ablation_notebook:
    input:
        [path for name in NAMES if name == TRUE_RISK for path in fitted(name)],
        expand(f"{OUT}/notebooks/{{shown}}.ipynb", shown=SHOWN),
    output:
        f"{OUT}/notebooks/05_ablation_tables.ipynb",
        f"{OUT}/ablation.csv",
    log:
        f"{OUT}/logs/05_ablation_tables.log",
    params:
        [settings(name, "05_ablation_tables") for name in NAMES],
    shell:
        "{EXECUTE} {NOTEBOOKS:q}/05_ablation_tables.ipynb {output[0]:q}"
        " --cohort {COHORT:q} --profile {PROFILE:q} --out {OUT:q} > {log:q} 2>&1"


rule explain:
    input:
        f"{OUT}/notebooks/05_ablation_tables.ipynb",
        f"{OUT}/ablation.csv",
    output:
        touch(f"{OUT}/explanations/complete"),
    threads: CORES
    log:
        f"{OUT}/logs/explain.log",
    params:
        [settings(name) for name in NAMES],
    resources:
        gpu=GPU * bool(NETWORKS),
    shell:
        "{FRACSURV} explain {COHORT:q} --profile {PROFILE:q} --out {OUT:q} --threads {threads} > {log:q} 2>&1"


rule explanations_notebook:
    input:
        f"{OUT}/explanations/complete",
    output:
        f"{OUT}/notebooks/06_explanations.ipynb",
    log:
        f"{OUT}/logs/06_explanations.log",
    params:
        settings("cohort", "06_explanations"),
    shell:
        "{EXECUTE} {NOTEBOOKS:q}/06_explanations.ipynb {output:q}"
        " --cohort {COHORT:q} --profile {PROFILE:q} --out {OUT:q} > {log:q} 2>&1"


rule report:
    input:
        f"{OUT}/notebooks/05_ablation_tables.ipynb",
        f"{OUT}/ablation.csv",
        f"{OUT}/notebooks/06_explanations.ipynb",
    output:
        f"{OUT}/index.html",
    log:
        f"{OUT}/logs/report.log",
    shell:
        "{FRACSURV} report {COHORT:q} --profile {PROFILE:q} --out {OUT:q} > {log:q} 2>&1"

"""The step before any fit: cohort checked whole, patients split, vertebrae found, slots decided, images stored."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from fracsurv.config import Profile, load_experiments
from fracsurv.detection.locate import locate_vertebrae
from fracsurv.images.plausibility import corrections_beside_faults, corrections_off_radiographs
from fracsurv.images.radiographs import with_slots
from fracsurv.images.store import INPUTS, build_store
from fracsurv.study.run import PROFILE, SPLITS, Run, check_folder, named_profile, read_inputs
from fracsurv.utils.errors import UserError
from fracsurv.utils.files import atomic_path, write_text


def prepare(
    cohort: str | Path,
    out: str | Path,
    profile: str | Profile,
    *,
    kinds: Iterable[str] = (),
    workers: int = 1,
    progress: bool = False,
) -> Run:
    """A run of which everything is there that its fits read; what is there already is not made again.

    Writes `splits.csv` and `profile.txt` and, in `prepared/`, the vertebrae that a finder finds in the radiographs of
    a cohort without boxes, `slots.parquet`, and image stores. Each file appears whole; several processes may prepare
    one folder at once.

    Parameters
    ----------
    kinds : iterable of 'crops' and 'full'
        The image stores to build.
    workers : int
        Processes that read radiographs for them.

    Raises
    ------
    UserError
        For every fault of the cohort, the profile or the experiments; for radiographs that cannot be read, and boxes
        beside them; where `out` holds the results of another cohort or profile.
    """
    out = Path(out)
    try:
        checked, profile, splits = read_inputs(cohort, profile)
    except UserError as error:
        raise UserError([*error.faults, *corrections_beside_faults(Path(cohort))]) from None
    if faults := corrections_off_radiographs(checked):
        raise UserError(faults)
    check_folder(checked, profile, splits, out)
    if not (out / SPLITS).exists():
        with atomic_path(out / SPLITS) as temporary:
            splits.to_csv(temporary, index=False)
    if named_profile(out) != profile.name:
        write_text(out / PROFILE, f"{profile.name}\n")
    located = locate_vertebrae(checked, out / "prepared", progress=progress)
    run = Run(with_slots(located, out / "prepared"), out, profile, load_experiments(own=profile.experiments), splits)
    if run.cohort.has_images:  # of stores that are there, what their files look like by now: a copy has other dates
        kinds = {*kinds, *(kind for kind in INPUTS if run.store_folder(kind).is_dir() and run.has_store(kind))}
    for kind in sorted(kinds):
        prepare_store(run, kind, workers=workers, progress=progress)
    return run


def prepare_store(run: Run, kind: str, *, workers: int = 1, progress: bool = False) -> Path:
    """Build the store of 'crops' or 'full' images under the run's folder, or find it there unchanged; its folder."""
    folder, scale = run.store_folder(kind), run.scale(kind)
    build_store(run.cohort, folder, scale=scale, inputs=(kind,), workers=workers, progress=progress)
    if not run.has_store(kind):
        raise UserError(f"{run.cohort.folder}: radiographs changed meanwhile; open the run again")
    return folder

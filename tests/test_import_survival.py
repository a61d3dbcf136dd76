"""Public survival data in the cohort format."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
from sksurv.datasets import load_flchain

from fracsurv.cohort.cohort import read_cohort
from fracsurv.importers.survival import import_survival
from fracsurv.study.prepare import prepare
from fracsurv.utils.errors import UserError


@pytest.mark.parametrize(
    # n and events: e.g. `x, y = load_whas500(); len(y), y["fstat"].sum()`
    ("name", "n", "events"),
    [("flchain", 7874, 2169), ("whas500", 500, 215), ("gbsg2", 686, 299)],
)
def test_scikit_survivals_sets(tmp_path, name, n, events):
    import_survival(name, tmp_path / name)
    cohort = read_cohort(tmp_path / name)
    assert (len(cohort), cohort.table["event"].sum(), cohort.provenance) == (n, events, "real")
    assert cohort.outcome_includes_death  # death, or recurrence or death


def test_flchain_without_the_cause_of_death(tmp_path):
    import_survival("flchain", tmp_path / "flchain")
    cohort = read_cohort(tmp_path / "flchain")
    assert not any("chapter" in name for name in cohort.covariates)
    age = load_flchain()[0]["age"].to_numpy(float)
    np.testing.assert_array_equal(cohort.table["age"], age)
    creatinine = load_flchain()[0]["creatinine"].to_numpy(float)  # nobody's is made up from those who are judged
    np.testing.assert_array_equal(cohort.table["creatinine"], creatinine)
    assert cohort.indicators == ["creatinine_missing"]


def test_deepsurvs_files(tmp_path):
    path = tmp_path / "linear_made_up.h5"
    rng = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        for split, n in (("train", 40), ("test", 20)):
            group = file.create_group(split)
            group["x"], group["t"] = rng.normal(size=(n, 3)), rng.exponential(size=n)
            group["e"] = np.arange(n) % 2
    import_survival(str(path), tmp_path / "out")
    cohort = read_cohort(tmp_path / "out")
    assert cohort.covariates == {"x1": "continuous", "x2": "continuous", "x3": "continuous"}
    assert (cohort.provenance, len(cohort.horizons)) == ("simulated", 3)
    run = prepare(tmp_path / "out", tmp_path / "run", "tiny")
    assert run.splits["split"].tolist() == ["train"] * 40 + ["test"] * 20


def hdf5(path, change):
    """A file like DeepSurv's, with one array of its test group changed in place."""
    rng = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        for split in ("train", "test"):
            arrays = {"x": rng.normal(size=(20, 2)), "t": rng.exponential(size=20) + 1, "e": np.arange(20.0) % 2}
            if split == "test":
                change(arrays)
            for name, values in arrays.items():
                file[f"{split}/{name}"] = values
    return str(path)


def test_times_and_events_that_are_none_are_all_refused(tmp_path):
    def change(arrays):
        arrays["t"][[3, 5, 6, 7]] = [-5, np.nan, np.inf, -5]
        arrays["e"][[0, 1]] = [2, 0.5]
        arrays["x"][4, 1] = -np.inf

    with pytest.raises(UserError) as caught:
        import_survival(hdf5(tmp_path / "f.h5", change), tmp_path / "out")
    assert caught.value.faults == [
        "f.h5, test/t rows 3, 7, -5; must be a time, 0 or above",
        "f.h5, test/t row 5, nan; must be a time, 0 or above",
        "f.h5, test/t row 6, inf; must be a time, 0 or above",
        "f.h5, test/e row 0, 2; must be 1 (the event) or 0 (censored)",
        "f.h5, test/e row 1, 0.5; must be 1 (the event) or 0 (censored)",
        "f.h5, test/x, column 1 row 4, -inf; must be a number",
    ]
    assert not (tmp_path / "out").exists()


def test_a_time_of_zero_is_half_the_least_above_it(tmp_path):
    def change(arrays):
        arrays["t"][:3] = [0.0, 0.5, 0.25]

    import_survival(hdf5(tmp_path / "f.h5", change), tmp_path / "out")
    assert read_cohort(tmp_path / "out").table["time"][20:23].tolist() == [0.125, 0.5, 0.25]


@pytest.mark.parametrize("name", ["t", "e", "x"])
def test_arrays_of_other_lengths_are_refused(tmp_path, name):
    def change(arrays):
        arrays[name] = arrays[name][:-1]

    with pytest.raises(UserError, match="not an HDF5 file with groups train and test"):
        import_survival(hdf5(tmp_path / "f.h5", change), tmp_path / "out")


def test_what_is_no_data_set(tmp_path):
    with pytest.raises(UserError, match="neither an HDF5 file nor one of flchain, whas500, gbsg2"):
        import_survival("aids", tmp_path / "out")
    (tmp_path / "broken.h5").write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"broken\.h5: not an HDF5 file"):
        import_survival(str(tmp_path / "broken.h5"), tmp_path / "out")
    assert not (tmp_path / "out").exists()

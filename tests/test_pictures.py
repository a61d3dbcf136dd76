"""The radiographs and crops that a report shows."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.patches import Rectangle

from fracsurv.cohort.boxes import BOX_COLUMNS
from fracsurv.images.radiographs import read_radiograph
from fracsurv.plots import as_svg
from fracsurv.report import findings
from fracsurv.report.findings import pictures


def boxes_drawn(axes):
    found = [(p.get_x(), p.get_y(), p.get_x() + p.get_width(), p.get_y() + p.get_height()) for p in axes.patches
             if isinstance(p, Rectangle) and p.get_linestyle() in ("-", "solid")]  # fmt: skip
    return np.array(found)


@pytest.mark.parametrize("highest", [600, 50])
def test_radiographs_are_the_patients_with_their_boxes_at_a_size_for_a_page(tiny_run, monkeypatch, highest):
    monkeypatch.setattr(pictures, "HIGHEST", highest)
    found = findings.radiographs(tiny_run)
    assert len(found.figure.axes) == 3
    shown = tiny_run.cohort.table.iloc[pictures._drawn(tiny_run)]
    vertebrae = tiny_run.cohort.vertebrae
    for axes, patient, name in zip(found.figure.axes, shown["patient_id"], shown["image"], strict=True):
        image = read_radiograph(tiny_run.cohort.folder / name)
        picture = axes.images[0].get_array()
        scale = picture.shape[0] / image.shape[0]
        assert picture.shape[0] <= highest
        tallest = max(read_radiograph(tiny_run.cohort.folder / each).shape[0] for each in shown["image"])
        assert picture.shape[0] == round(min(1, highest / tallest) * image.shape[0])
        if scale == 1:
            np.testing.assert_array_equal(picture, image)
        theirs = vertebrae.loc[vertebrae["patient_id"] == patient, BOX_COLUMNS].to_numpy()
        np.testing.assert_allclose(boxes_drawn(axes), theirs * scale, atol=1.5)


def test_crops_are_of_the_same_patients(tiny_run):
    found = findings.crops(tiny_run)
    panels = np.array(found.figure.axes).reshape(3, 13)
    stored = tiny_run.store("crops").crops
    for row, patient in enumerate(pictures._drawn(tiny_run)):
        for slot, axes in enumerate(panels[row]):
            if axes.images:
                np.testing.assert_array_equal(axes.images[0].get_array(), stored[patient, slot])
            else:
                assert not stored[patient, slot].any()


def test_nobodys_id_stands_over_a_picture(tiny_run):
    for found in (findings.radiographs(tiny_run), findings.crops(tiny_run)):
        text = as_svg(found.figure).decode() + found.said + found.alt
        ids = tiny_run.cohort.table["patient_id"].iloc[pictures._drawn(tiny_run)]
        assert not [patient for patient in ids if str(patient) in text]

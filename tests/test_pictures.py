"""The radiographs and crops that a report shows."""

from __future__ import annotations

import numpy as np
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


def test_radiographs_are_the_patients_with_their_boxes_at_a_size_for_a_page(tiny_run, monkeypatch):
    shown, vertebrae = tiny_run.cohort.table.iloc[pictures._drawn(tiny_run)], tiny_run.cohort.vertebrae
    images = [read_radiograph(tiny_run.cohort.folder / name) for name in shown["image"]]
    tallest = max(len(image) for image in images)
    for highest in (600, 50):
        monkeypatch.setattr(pictures, "HIGHEST", highest)
        found = findings.radiographs(tiny_run)
        for axes, patient, image in zip(found.figure.axes, shown["patient_id"], images, strict=True):
            picture = axes.images[0].get_array()
            assert picture.shape[0] == round(min(1, highest / tallest) * image.shape[0]) <= highest
            scale = picture.shape[0] / image.shape[0]
            if scale == 1:
                np.testing.assert_array_equal(picture, image)
            theirs = vertebrae.loc[vertebrae["patient_id"] == patient, BOX_COLUMNS].to_numpy()
            np.testing.assert_allclose(boxes_drawn(axes), theirs * scale, atol=1.5)


def test_crops_are_of_the_same_patients_and_no_id_stands_over_a_picture(tiny_run):
    found = findings.crops(tiny_run)
    panels = np.array(found.figure.axes).reshape(3, 13)
    stored, drawn = tiny_run.store("crops").crops, pictures._drawn(tiny_run)
    for row, patient in enumerate(drawn):
        for slot, axes in enumerate(panels[row]):
            crop = axes.images[0].get_array() if axes.images else np.zeros_like(stored[patient, slot])
            np.testing.assert_array_equal(crop, stored[patient, slot])
    for each in (findings.radiographs(tiny_run), found):
        text = as_svg(each.figure).decode() + each.said + each.alt
        assert not [name for name in tiny_run.cohort.table["patient_id"].iloc[drawn] if str(name) in text]

"""YOLO folders to semi-synthetic cohorts: what is measured, what is refused, and 1,188 real radiographs."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from fracsurv.cohort.cohort import read_cohort
from fracsurv.importers.yolo import FEATURES, import_yolo, rank_normal, read_yolo, relative_box
from fracsurv.utils.errors import UserError, fold

SHARED = Path(os.environ.get("FRACSURV_SHARED_DATA", Path(__file__).parents[2] / "shared" / "data"))
REAL = SHARED / "spine-region"
WIDTH, HEIGHT = 80, 400


def write_patient(place, stem, *, rng, n=14, bright=180, suffix="png"):
    """A dark picture with n bright boxes down the middle, and its label file."""
    for part in ("images", "labels"):
        (place / part).mkdir(parents=True, exist_ok=True)
    pixels = rng.integers(40, 60, (HEIGHT, WIDTH)).astype(np.uint8)
    lines = []
    for k in range(n):
        top, height = 10 + 27 * k, int(rng.integers(17, 23))
        pixels[top : top + height, 24:56] = rng.integers(bright - 20, bright + 20, (height, 32))
        pixels[top : top + 3, 24:56] = pixels[top + height - 3 : top + height, 24:56] = 100
        lines.append(f"0 {40 / WIDTH} {(top + height / 2) / HEIGHT} {32 / WIDTH} {height / HEIGHT}")
    Image.fromarray(pixels).save(place / "images" / f"{stem}.{suffix}")
    (place / "labels" / f"{stem}.txt").write_text("\n".join(lines) + "\n")
    return pixels


@pytest.fixture
def source(tmp_path):
    rng = np.random.default_rng(0)
    src = tmp_path / "src"
    for i in range(24):
        write_patient(src / ("train" if i % 3 else "valid"), f"s{i:02d}", rng=rng, bright=120 + 4 * i)
    return src


def test_a_cohort_comes_out_that_reads_back(source, tmp_path):
    out = tmp_path / "out"
    import_yolo(source, out, seed=1)
    cohort = read_cohort(out)
    assert cohort.provenance == "semi-synthetic"
    assert cohort.table["patient_id"].tolist() == [f"s{i:02d}" for i in range(24)]
    assert (cohort.table["split"] == "").all()
    for i, part in ((0, "valid"), (1, "train")):
        copied = out / cohort.table["image"][i]
        assert copied.read_bytes() == (source / part / "images" / f"s{i:02d}.png").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "src"]
    boxes = cohort.vertebrae
    assert len(boxes) == 24 * 14
    assert (boxes["score"] == 1).all()
    assert boxes.loc[0, ["x_min", "y_min", "x_max"]].tolist() == [24.0, 10.0, 56.0]  # pixels
    # all boxes are 32 wide and at most 22 high: the width decides
    assert (boxes["y_max"] - boxes["y_min"]).max() <= 22
    assert cohort.resolution == pytest.approx(32 / 272, abs=1e-4)


def test_measures_equal_a_direct_computation(tmp_path):
    rng = np.random.default_rng(5)
    src = tmp_path / "src"
    pictures = [write_patient(src, f"s{i}", rng=rng, n=13, bright=120 + 20 * i) for i in range(5)]
    import_yolo(src, tmp_path / "out")
    cohort = read_cohort(tmp_path / "out")
    truth = cohort.truth()
    for i, picture in enumerate(pictures):
        rows = cohort.vertebrae[cohort.vertebrae["patient_id"] == f"s{i}"]
        tops, bottoms = rows["y_min"].round().astype(int), rows["y_max"].round().astype(int)
        crops = [picture[a:b, 24:56].astype(float) for a, b in zip(tops, bottoms, strict=True)]
        inside = np.concatenate([crop.ravel() for crop in crops])
        assert truth["brightness"].iloc[i] == pytest.approx((inside.mean() - picture.mean()) / picture.std())
        heights = (bottoms - tops).to_numpy()
        assert truth["height_width_ratio"].iloc[i] == pytest.approx((heights / 32).mean())
        loss = max(1 - 2 * heights[k] / (heights[k - 1] + heights[k + 1]) for k in range(1, 12))
        assert truth["height_loss"].iloc[i] == pytest.approx(loss)
        steps = []
        for crop in crops:
            n = len(crop)
            ends = np.concatenate([crop[: n // 6], crop[n - n // 6 :]])
            steps.append(crop[n // 4 : n - n // 4].mean() - ends.mean())
        assert truth["contrast"].iloc[i] == pytest.approx(np.mean(steps) / inside.std())


def test_the_hazard_is_what_was_measured(source, tmp_path):
    import_yolo(source, tmp_path / "out", seed=1)
    cohort = read_cohort(tmp_path / "out")
    truth = cohort.truth()
    shown = truth[["brightness", "contrast", "height_width_ratio"]]
    total = ((shown - shown.mean()) / shown.std(ddof=0)).sum(axis=1)
    assert total.rank().tolist() == truth["bone_quality"].rank().tolist()
    assert truth["height_loss"].rank().tolist() == truth["burden"].rank().tolist()
    table = cohort.table.set_index("patient_id")
    # coefficients of the simulator, written out: what remains of the log hazard is the image's part
    effects = {
        "age": 0.04, "bmi": -0.01, "t_score": -0.13, "prior_fracture": 0.38, "parental_hip_fracture": 0.18,
        "smoker": 0.20, "secondary_osteoporosis": 0.12, "glucocorticoids": 0.35, "rheumatoid_arthritis": 0.20,
        "alcohol": 0.35,
    }  # fmt: skip
    image = truth["log_hazard"] - sum(effect * table[name] for name, effect in effects.items())
    design = np.column_stack([np.ones(24), truth["bone_quality"], truth["burden"]])
    coefficients, *_ = np.linalg.lstsq(design, image.to_numpy(), rcond=None)
    np.testing.assert_allclose(design @ coefficients, image, atol=1e-9)
    assert coefficients[1] < 0 < coefficients[2]  # good bone protects, lost height does harm
    assert coefficients[1] / coefficients[2] == pytest.approx(-2.0)  # √0.8 to √0.2


def test_the_seed_decides_the_outcome_and_nothing_measured(source, tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        import_yolo(source, tmp_path / name, seed=seed)
    a, b, c = (pd.read_csv(tmp_path / name / "cohort.csv") for name in "abc")
    pd.testing.assert_frame_equal(a, b)
    assert (a["time_days"] != c["time_days"]).any()
    a, c = (pd.read_parquet(tmp_path / name / "truth.parquet") for name in "ac")
    pd.testing.assert_frame_equal(a[list(FEATURES)], c[list(FEATURES)])


def test_flat_folders_and_polygons(tmp_path):
    rng = np.random.default_rng(0)
    src = tmp_path / "src"
    for i in range(6):
        write_patient(src, f"s{i}", rng=rng)
    label = src / "labels" / "s0.txt"
    rest = label.read_text().splitlines()[1:]
    label.write_text("\n".join(["3 0.3 0.05 0.7 0.03 0.6 0.08 0.35 0.09", *rest]))
    with pytest.raises(UserError, match=r"label rows of 9 numbers may be .* Put `task: segment`"):
        import_yolo(src, tmp_path / "out")
    (src / "data.yaml").write_text("task: segment")
    import_yolo(src, tmp_path / "out")
    first = read_cohort(tmp_path / "out").vertebrae.iloc[0]
    assert first[["x_min", "y_min", "x_max", "y_max"]].tolist() == pytest.approx([24, 12, 56, 36])


@pytest.mark.parametrize(
    ("line", "box"),
    [
        ("0 0.5 0.5 0.2 0.4", (0.4, 0.3, 0.6, 0.7)),
        ("7 0.1 0.1 0.2 0.2005", (0.0, 0.0, 0.2, 0.20025)),  # the exporter's rounding is cut off
        ("0 0.1 0.2 0.3 0.1 0.2 0.4", (0.1, 0.1, 0.3, 0.4)),  # a polygon
        ("0 0.5 0.5 0.2", "4 numbers"),
        ("0 0.5 0.5 0.2 0.2 0.3", "6 numbers"),
        ("0 0.5 0.5 0.2 0.2 0.3 0.3 0.3", "8 numbers"),
        ("0 a 0.5 0.2 0.2", "0 a 0.5"),
        ("0 0.5 nan 0.2 0.2", "finite"),
        ("0.5 0.5 0.5 0.2 0.2", "class number"),
        ("0 40 50 20 10", "leaves the image"),
        ("0 0.95 0.5 0.2 0.2", "leaves the image"),
        ("0 0.5 0.5 0 0.2", "width or height"),
        ("0 0.5 0.5 0.2 -0.2", "width or height"),
    ],
)
def test_label_rows(line, box):
    if isinstance(box, tuple):
        assert relative_box(line) == pytest.approx(box)
    else:
        with pytest.raises(ValueError, match=box):
            relative_box(line)


def corners(xc, yc, w, h):
    """The corners of boxes, clockwise from the upper left one: x and y in turn, (n, 8)."""
    left, right, top, bottom = xc - w / 2, xc + w / 2, yc - h / 2, yc + h / 2
    return np.column_stack([left, top, right, top, right, bottom, left, bottom])


def hexagon(xc, yc, w, h):
    """Six corners that a box of this size encloses, (n, 12)."""
    a = corners(xc, yc, w, h)
    return np.column_stack([a[:, :2], xc, a[:, 1], a[:, 2:6], xc, a[:, 5], a[:, 6:]])


def points(box, *shares, visible=None):
    """Boxes and then keypoints at these shares of their sizes from the centre, with `visible` if given."""
    xc, yc, w, h = box
    found = [np.column_stack(box)]
    for k, (across, down) in enumerate(shares):
        found += [xc + across * w, yc + down * h] + ([np.full(len(xc), visible[k])] if visible else [])
    return np.column_stack(found)


FOUR = ((-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5))
ROWS = {  # from centres and sizes (n,) each: what stands behind the class
    "box": lambda *box: np.column_stack(box),
    "oriented box": corners,
    "polygon": hexagon,
    "polygon that ends where it began": lambda *box: np.column_stack([corners(*box), corners(*box)[:, :2]]),
    "one keypoint": lambda *box: points(box, (0.1, 0.2)),
    "two keypoints": lambda *box: points(box, (0, -0.5), (0, 0.5)),
    "four keypoints": lambda *box: points(box, *FOUR),
    "one keypoint, visible": lambda *box: points(box, (0.1, 0.2), visible=(2,)),
    "two keypoints, one visible": lambda *box: points(box, (0, -0.5), (0, 0.5), visible=(1, 0)),
    "four keypoints, all visible": lambda *box: points(box, *FOUR, visible=(1, 1, 1, 1)),
    "box with confidence": lambda *box: np.column_stack([*box, np.full(len(box[0]), 0.87)]),
    "box with angle": lambda *box: np.column_stack([*box, np.full(len(box[0]), -0.1)]),
    "box with confidence and track": lambda *box: np.column_stack(
        [*box, np.full(len(box[0]), 0.87), np.ones(len(box[0]))]),
    "polygon with confidence": lambda *box: np.column_stack([hexagon(*box), np.full(len(box[0]), 0.87)]),
    "polygon with confidence and track": lambda *box: np.column_stack(
        [hexagon(*box), np.full(len(box[0]), 0.87), np.ones(len(box[0]))]),
    "two corners": lambda *box: corners(*box)[:, [0, 1, 4, 5]],
}  # fmt: skip


def rewrite(src, how):
    """Write every label row of a source anew, by the class and the numbers that `ROWS` gives for its box."""
    for label in src.rglob("labels/*.txt"):
        table = np.loadtxt(label, ndmin=2)
        rows = np.column_stack([table[:, 0], ROWS[how](*table[:, 1:].T)])
        label.write_text("\n".join(" ".join(f"{value:.7g}" for value in row) for row in rows) + "\n")


@pytest.mark.parametrize(
    ("how", "data", "says"),
    [
        ("oriented box", "", "label rows of 9 numbers may be"),
        ("oriented box", "task: obb", ""),
        ("polygon", "", "label rows of 13 numbers may be"),
        ("polygon", "names: [vertebra]\nnc: 1\n", "Put `task: segment` (or obb), or `task: pose` with `kpt_shape"),
        ("polygon", "task: segment", ""),
        ("polygon that ends where it began", "", "label rows of 11 numbers may be"),
        ("polygon that ends where it began", "task: segment", ""),
        ("one keypoint", "kpt_shape: [1, 2]", ""),
        ("two keypoints", "kpt_shape: [2, 2]", ""),
        ("four keypoints, all visible", "kpt_shape: [4, 3]\nflip_idx: [1, 0, 3, 2]\n", ""),
        ("one keypoint, visible", "task: pose\nkpt_shape: [1, 3]", ""),
        ("box", "kpt_shape: [4, 3]", ""),
        ("one keypoint", "", "label rows of 7 numbers may be polygons, boxes with keypoints"),
        ("two keypoints", "", "label rows of 9 numbers may be"),
        ("four keypoints", "names: [vertebra]", "label rows of 13 numbers may be"),
        ("two keypoints, one visible", "", "label rows of 11 numbers may be"),
        ("four keypoints, all visible", "", "label rows of 17 numbers may be"),
        ("box with confidence and track", "", "label rows of 7 numbers may be"),
        ("polygon with confidence and track", "", "label rows of 15 numbers may be"),
        ("two corners", "", "box leaves the image; expected class, centre and size (not two corners)"),
        ("four keypoints", "task: detect", "13 numbers; expected 5 (box)"),
        ("four keypoints", "kpt_shape: [4, 3]", "13 numbers; with data.yaml's `kpt_shape` expected 5 or 17"),
        ("one keypoint, visible", "", "label rows of 8 numbers may be"),
        ("box with confidence", "", "label rows of 6 numbers may be"),
        ("box with angle", "", "label rows of 6 numbers may be"),
        ("polygon with confidence", "", "label rows of 14 numbers may be"),
        ("one keypoint, visible", "task: detect", "8 numbers; expected 5 (box)"),
        ("polygon", "task: obb", "13 numbers; with data.yaml's `task: obb` expected 5 or 9"),
        ("box with confidence", "task: segment", "6 numbers; expected 5 (box)"),
        ("polygon with confidence", "task: segment", "14 numbers; expected 5 (box)"),
        ("box", "task: classify", "data.yaml, task: classify; such labels hold no boxes"),
        ("four keypoints", "kpt_shape: 4", "data.yaml, kpt_shape: 4; must be [number of keypoints, 2 or 3]"),
        ("four keypoints", "task: pose", "data.yaml, kpt_shape: None; must be"),
        ("box", "nc: 1\nnc: 2", "data.yaml, 'nc': given twice"),
    ],
)
def test_labels_of_every_kind_give_their_boxes_or_are_refused(source, tmp_path, how, data, says):
    plain, _ = read_yolo(source)
    rewrite(source, how)
    if data:
        (source / "data.yaml").write_text(data)
    found, faults = read_yolo(source)
    if not says:
        assert faults == []
        for mine, theirs in zip(found, plain, strict=True):
            np.testing.assert_allclose(mine.boxes, theirs.boxes, atol=0.002)
    else:
        assert len(fold(faults)) == 1
        assert says in faults[0]


@pytest.mark.parametrize(
    ("how", "data", "says"),
    [
        ("polygon that ends where it began", "", ""),
        ("polygon that ends where it began", "task: detect", "11 numbers; expected 5 (box)"),
        ("polygon", "", "label rows of 13 numbers may be"),
        ("polygon", "task: segment", ""),
        ("two keypoints, one visible", "", "label rows of 11 numbers may be"),
        ("box with confidence", "", "label rows of 6 numbers may be"),
    ],
)
def test_one_longer_row_among_boxes_is_a_polygon_where_it_ends_as_it_began(source, how, data, says):
    plain, _ = read_yolo(source)
    label = source / "train" / "labels" / "s01.txt"
    lines = label.read_text().splitlines()
    box = np.array(lines[3].split()[1:], dtype=float)[:, None]
    label.write_text("\n".join([*lines[:3], "0 " + " ".join(map(str, ROWS[how](*box)[0])), *lines[4:]]))
    (source / "data.yaml").write_text(data)
    found, faults = read_yolo(source)
    if says:
        assert len(faults) == 1
        assert says in faults[0]
    else:
        assert faults == []
        for mine, theirs in zip(found, plain, strict=True):
            np.testing.assert_allclose(mine.boxes, theirs.boxes, atol=0.002)


@pytest.mark.parametrize("how", ["box", "two keypoints", "box with confidence and track"])
def test_rows_that_touch_the_top_edge_are_not_taken_for_others(source, how):
    """Each box as high as it lies deep: its size goes along with its place, as one corner does with the next."""
    for label in source.rglob("labels/*.txt"):
        table = np.loadtxt(label, ndmin=2)
        table = np.column_stack([table[:, :2], table[:, [4, 3, 4]] / [2, 1, 1]])
        table[:, 2], table[:, 4] = np.linspace(0.05, 0.4, len(table)), np.linspace(0.1, 0.8, len(table))
        np.savetxt(label, table)
    rewrite(source, how)
    found, faults = read_yolo(source)
    if how == "box":
        assert faults == []
        assert all((each.boxes[:, 1] == 0).all() for each in found)
    else:
        (fault,) = faults
        assert "may be polygons, boxes with keypoints" in fault


def moved(src, out, move):
    """A copy of a source with every file at another path, by `move(part, folder, name)`."""
    for path in src.rglob("*.*"):
        target = out / move(*path.relative_to(src).parts)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    return out


LAYOUTS = {
    "Ultralytics": lambda part, folder, name: f"{folder}/{part}/{name}",
    "COCO's parts": lambda part, folder, name: f"{folder}/{part}2017/{name}",
    "other parts": lambda part, folder, name: f"fold {part}/{folder}/{name}",
    "capitals": lambda part, folder, name: f"{part}/{folder.title()}/{name}",
    "labelImg": lambda part, folder, name: name,
    "CVAT": lambda part, folder, name: f"obj_{part}_data/{name}",
    "labels among images": lambda part, folder, name: f"images/{name}",
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_of_the_usual_programs_hold_the_same(source, tmp_path, layout):
    plain, _ = read_yolo(source)
    other = moved(source, tmp_path / "other", LAYOUTS[layout])
    (other / "data.yaml").write_text("path: .\ntrain: images/train\nval: images/valid\nnames: {0: vertebra}\n")
    (other / "train.txt").write_text("images/train/s01.png\n")
    for place in {path.parent for path in other.rglob("*.txt")}:
        (place / "classes.txt").write_text("vertebra\n")
    found, faults = read_yolo(other)
    assert faults == []
    assert [each.path.stem for each in found] == [each.path.stem for each in plain]
    for mine, theirs in zip(found, plain, strict=True):
        np.testing.assert_array_equal(mine.boxes, theirs.boxes)


def test_what_systems_and_programs_leave_behind_is_left_aside(source, tmp_path):
    plain, _ = read_yolo(source)
    for place in (path for path in source.rglob("*") if path.is_dir()):
        for name in (".DS_Store", "Thumbs.db", "desktop.ini", "._s01.png", "._s01.txt", "._stray.txt", "train.cache"):
            (place / name).write_bytes(b"\0\1")
    for name in ("README.roboflow.txt", "README.dataset.txt", "classes.txt", "notes.json"):
        (source / name).write_text("")
    (source / "train" / "labels" / "classes.txt").write_text("vertebra\n")
    (source / "train" / "labels.cache").write_bytes(b"\0")
    (source / "train" / "images" / "s01.npy").write_bytes(b"\0")
    (source / "__MACOSX" / "images").mkdir(parents=True)
    (source / "__MACOSX" / "images" / "s01.png").write_bytes(b"\0")
    label = source / "train" / "labels" / "s01.txt"
    label.write_bytes(b"\xef\xbb\xbf" + label.read_bytes().replace(b"\n", b"\r\n"))
    label.rename(label.with_suffix(".TXT"))
    found, faults = read_yolo(source)
    assert faults == []
    assert [each.path for each in found] == [each.path for each in plain]
    for mine, theirs in zip(found, plain, strict=True):
        np.testing.assert_array_equal(mine.boxes, theirs.boxes)


def test_a_stray_label_is_none_of_the_lists_and_stems_that_look_alike_are_one(source):
    (source / "train" / "labels" / "test_07.txt").write_text("")
    write_patient(source / "train", "S01", rng=np.random.default_rng(0))
    twin, stray = read_yolo(source)[1]
    assert "same stem as train/images/S01.png, or nearly" in twin
    assert stray == "train/labels/test_07.txt: no image of that name"


def test_pictures_without_any_label_and_a_file_for_a_folder_are_told_in_a_line(tmp_path):
    for name in ("train/healthy/a.png", "train/fractured/b.png"):  # a classification's folders
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_bytes(b"")
    (fault,) = read_yolo(tmp_path)[1]
    assert "2 images, but no label file for any (train/fractured/b.txt, say)" in fault
    (tmp_path / "data.yaml").write_text("nc: 1")
    (fault,) = read_yolo(tmp_path / "data.yaml")[1]
    assert fault.endswith("data.yaml: is a file; give the folder that holds it")


def test_every_fault_at_once_and_nothing_written(source, tmp_path):
    rng = np.random.default_rng(1)
    train = source / "train"
    write_patient(train, "s00", rng=rng)  # also in valid
    (train / "labels" / "s01.txt").unlink()
    (train / "labels" / "stray.txt").write_text("")
    (train / "labels" / "s02.txt").write_text("0 0.5 0.5 0.1 0.1\n\n0 2 2 1 1\n0 1 1\n")
    (train / "labels" / "s04.txt").write_text("0 0.5 0.5 0.1 0.1\n0 0.5 0.2 0.1 0.1\n")
    (train / "images" / "s05.png").write_bytes(b"broken")
    (train / "images" / "notes.doc").write_text("")
    secret = tmp_path / "secret.png"
    (train / "images" / "s07.png").rename(secret)
    (train / "images" / "s07.png").symlink_to(secret)
    (train / "images" / ".hidden").write_text("")
    with pytest.raises(UserError) as caught:
        import_yolo(source, tmp_path / "out")
    expected = [
        ("images/s00.png", "same stem"),
        ("train/images/notes.doc", "radiograph file"),
        ("train/images/s01.png", "train/labels/s01.txt"),
        ("train/images/s05.png", "cannot be read"),
        ("train/images/s07.png", "link"),
        ("train/labels/s02.txt line 3", "leaves the image"),
        ("train/labels/s02.txt line 4", "3 numbers"),
        ("train/labels/s04.txt", "2 boxes"),
        ("train/labels/stray.txt", "no image"),
    ]
    faults = caught.value.faults
    assert len(faults) == len(expected)
    for file, reason in expected:
        assert any(file in fault and reason in fault for fault in faults), (file, reason)
    assert not (tmp_path / "out").exists()


def test_wrong_folders(tmp_path):
    def refused(src, out, match):
        with pytest.raises(UserError, match=match):
            import_yolo(tmp_path / src, tmp_path / out)

    refused("none", "out", "none: no such folder")
    (tmp_path / "src").mkdir()
    refused("src", "out", "images/")
    (tmp_path / "src" / "images").mkdir()
    refused("src", "out", "empty")
    refused("src", "src", "not empty")


def test_rank_normal_is_standard_normal_and_keeps_the_order():
    values = np.random.default_rng(0).exponential(size=2_000)
    scores = rank_normal(values)
    assert scores.mean() == pytest.approx(0, abs=1e-9)
    assert scores.std() == pytest.approx(1, abs=0.01)
    assert (np.argsort(values) == np.argsort(scores)).all()


@pytest.mark.skipif(not REAL.is_dir(), reason="no ../shared/data/spine-region (or $FRACSURV_SHARED_DATA)")
def test_real_radiographs(tmp_path):
    # Some thirty of the 1,188 real radiographs, linked into one place: the whole set takes half a minute.
    src = tmp_path / "src"
    for part in ("images", "labels"):
        (src / part).mkdir(parents=True)
    for image in sorted((REAL / "valid" / "images").iterdir())[::9]:
        label = REAL / "valid" / "labels" / f"{image.stem}.txt"
        (src / "images" / image.name).write_bytes(image.read_bytes())
        (src / "labels" / label.name).write_bytes(label.read_bytes())
    import_yolo(src, tmp_path / "out")
    cohort = read_cohort(tmp_path / "out")
    assert len(cohort) == 30
    assert cohort.truth()[list(FEATURES)].nunique().min() > 20
    widths = cohort.vertebrae["x_max"] - cohort.vertebrae["x_min"]
    assert (widths <= 272 * cohort.resolution + 0.1).mean() >= 0.99

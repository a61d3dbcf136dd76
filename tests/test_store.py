"""The image store: equal to direct computation, memory-mapped, rebuilt when and only when something changed."""

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest
from PIL import Image

from fracsurv.cohort.cohort import Cohort
from fracsurv.images import store as store_module
from fracsurv.images.crops import crop_stack
from fracsurv.images.radiographs import read_radiograph, resize, with_slots
from fracsurv.images.store import ImageStore, build_store
from fracsurv.utils import files
from fracsurv.utils.errors import UserError
from fracsurv.utils.workers import mapped
from fracsurv.vertebrae.slots import slots
from tests.killing import left_by_the_dead
from tests.test_radiographs import write_dicom

RESOLUTION = 0.25
SCALE = 0.2
CROP = (46, 54)  # round(230 · 0.2), round(272 · 0.2)
FULL = (205, 102)  # round(1024 · 0.2), round(512 · 0.2)


def make_cohort(folder, *, n=5, depths=(np.uint16,), seed=0):
    rng = np.random.default_rng(seed)
    (folder / "images").mkdir(parents=True)
    rows, boxes = [], []
    for i in range(n):
        dtype = depths[i % len(depths)]
        pixels = rng.integers(1000 if dtype == np.uint16 else 10, np.iinfo(dtype).max, (330 + i, 150), dtype=dtype)
        Image.fromarray(pixels).save(folder / "images" / f"P{i}.png")
        rows.append({"patient_id": f"P{i}", "time": 10.0 + i, "event": i % 2 == 0, "image": f"images/P{i}.png"})
        tops = [5 + 23 * k for k in range(14)]
        if i == 1:
            tops.pop(6), tops.pop(0)
        if i < 4:  # P4 has no box at all
            boxes += [[f"P{i}", "", 40.5, top, 90.2, top + 18.3, 1.0] for top in tops]
        if i == 2:
            boxes.append(["P2", "", 30, 20, 100, 100, 0.3])
    columns = ["patient_id", "level", "x_min", "y_min", "x_max", "y_max", "score"]
    return Cohort(
        folder=folder,
        table=pd.DataFrame(rows),
        covariates={},
        provenance="simulated",
        resolution=RESOLUTION,
        vertebrae=pd.DataFrame(boxes, columns=columns),
    )


@pytest.fixture
def cohort(tmp_path):
    return make_cohort(tmp_path / "cohort")


def build(cohort, folder, **options):
    return ImageStore.open(build_store(with_slots(cohort), folder, **{"scale": SCALE, "progress": False} | options))


def test_store_equals_direct_computation(cohort, tmp_path):
    store = build(cohort, tmp_path / "store")
    assert store.patient_ids == cohort.table["patient_id"].tolist()
    assert (store.crops.shape, store.crops.dtype) == ((5, 13, *CROP), np.uint16)
    assert (store.full.shape, store.full.dtype) == ((5, *FULL), np.uint16)
    for row, patient in enumerate(store.patient_ids):
        image = read_radiograph(cohort.folder / "images" / f"{patient}.png")
        rows = cohort.vertebrae[cohort.vertebrae["patient_id"] == patient]
        boxes = rows[["x_min", "y_min", "x_max", "y_max"]].to_numpy(float)
        found = slots(boxes, max_height=230 * RESOLUTION, image_height=image.shape[0])
        cut = crop_stack(image, boxes, found.index, scale_factor=SCALE / RESOLUTION, frame=CROP)
        np.testing.assert_array_equal(store.crops[row], cut.stack)
        np.testing.assert_array_equal(store.crop_sizes[row], cut.sizes)
        np.testing.assert_array_equal(store.full[row], resize(image, FULL))
        ranges = store.ranges.loc[patient]
        assert ranges["full_min"] == store.full[row].min()
        assert ranges["full_max"] == store.full[row].max()
        if len(boxes):
            # these pictures have no pixel at 0, so what is not 0 is inside a crop
            assert ranges["crops_min"] == cut.stack[cut.stack > 0].min()
            assert ranges["crops_max"] == cut.stack.max()
        else:
            assert ranges[["crops_min", "crops_max"]].isna().all()


def test_arrays_are_memory_mapped_and_read_only(cohort, tmp_path):
    store = build(cohort, tmp_path / "store")
    for array in (store.crops, store.full):
        assert isinstance(array, np.memmap)
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


@pytest.mark.parametrize("workers", [2])
def test_workers_give_the_same_store(cohort, tmp_path, workers, monkeypatch):
    monkeypatch.setattr(store_module, "_CHUNK", 2)
    one, two = build(cohort, tmp_path / "a"), build(cohort, tmp_path / "b", workers=workers)
    np.testing.assert_array_equal(one.crops, two.crops)
    np.testing.assert_array_equal(one.full, two.full)
    pd.testing.assert_frame_equal(one.ranges, two.ranges)
    assert one.meta == two.meta


def shown(folder):
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(".lock"))


def stamps(folder):
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}


def test_an_unchanged_cohort_keeps_its_store_and_reads_only_touched_radiographs(cohort, tmp_path, monkeypatch):
    folder = tmp_path / "store"
    build(cohort, folder)
    before, read, digest = stamps(folder), [], store_module.hashlib.file_digest
    monkeypatch.setattr(store_module, "_write", lambda *_, **__: pytest.fail("built again"))
    monkeypatch.setattr(
        store_module.hashlib, "file_digest", lambda file, how: read.append(Path(file.name).name) or digest(file, how)
    )
    build(replace(cohort, table=cohort.table.assign(time=1.0)), folder)
    assert (read, stamps(folder)) == ([], before)
    (cohort.folder / "images" / "P1.png").touch()  # of the same content
    for _ in range(2):
        build(cohort, folder)
    assert read == ["P1.png"]
    assert {name for name, when in stamps(folder).items() if before[name] != when} == {"patients.parquet"}


def test_a_store_keeps_no_file_name(cohort, tmp_path):
    build(cohort, tmp_path / "store")
    text = pd.read_parquet(tmp_path / "store" / "patients.parquet").to_csv()
    assert "P1" in text  # the patient's id
    assert "P1.png" not in text
    assert not [path for path in (tmp_path / "store").iterdir() if b"P1.png" in path.read_bytes()]


def test_damaged_files_are_refused_or_made_again(cohort, tmp_path):
    folder = tmp_path / "store"
    wanted = build(cohort, folder).ranges
    (folder / "patients.parquet").write_bytes(b"PAR1 and no more")
    pd.testing.assert_frame_equal(build(cohort, folder).ranges, wanted)
    with open(folder / "crops.npy", "r+b") as file:
        file.truncate(1000)
    with pytest.raises(UserError, match=r"crops\.npy"):
        ImageStore.open(folder)


def test_a_worker_that_the_system_ends_is_told():
    with pytest.raises(UserError, match="one of 2 worker processes was ended by the system"):
        list(mapped(2, os._exit, [3, 3]))


def test_a_moved_box_changes_the_crops_alone(cohort, tmp_path):
    moved = replace(cohort, vertebrae=cohort.vertebrae.assign(y_max=cohort.vertebrae["y_max"] - 1))
    for kind, same in (("crops", False), ("full", True)):
        was = build(cohort, tmp_path / kind, inputs=(kind,))
        assert getattr(was, kind) is not None
        assert was.ranges[f"{'full' if kind == 'crops' else 'crops'}_min"].isna().all()
        assert (build(moved, tmp_path / kind, inputs=(kind,)).meta["fingerprint"] == was.meta["fingerprint"]) == same


def moved_box(cohort):
    vertebrae = cohort.vertebrae.copy()
    vertebrae.loc[3, "x_max"] += 2
    return replace(cohort, vertebrae=vertebrae), {}


def other_pixel(cohort):
    path = cohort.folder / "images" / "P0.png"
    pixels = np.array(Image.open(path))
    pixels[:60] = 65535
    Image.fromarray(pixels).save(path)
    return cohort, {}


def other_name(cohort):
    (cohort.folder / "images" / "P0.png").rename(cohort.folder / "images" / "Q0.png")
    return replace(cohort, table=cohort.table.replace("images/P0.png", "images/Q0.png")), {}


@pytest.mark.parametrize(
    "change",
    [
        moved_box,
        other_name,
        other_pixel,
        lambda cohort: (cohort, {"scale": 0.1}),
        lambda cohort: (replace(cohort, resolution=0.3), {}),
        lambda cohort: (replace(cohort, table=cohort.table[::-1].reset_index(drop=True)), {}),
        lambda cohort: (replace(cohort, provenance="real"), {}),
        lambda cohort: (cohort, {"inputs": ("crops",)}),
    ],
    ids=["box", "name", "pixel", "scale", "resolution", "order", "provenance", "inputs"],
)
def test_any_change_rebuilds(cohort, tmp_path, change):
    before = build(cohort, tmp_path / "store").meta["fingerprint"]
    changed, options = change(cohort)
    store = build(changed, tmp_path / "store", **options)
    assert store.meta["fingerprint"] != before
    fresh = build(changed, tmp_path / "fresh", **options)
    np.testing.assert_array_equal(store.crops, fresh.crops)
    assert store.meta == fresh.meta
    assert shown(tmp_path) == ["cohort", "fresh", "store"]  # nothing left over


@pytest.mark.parametrize(
    ("depths", "dtype"),
    [((np.uint8,), np.uint8), ((np.uint16,), np.uint16), ((np.uint8, np.uint16), np.uint16)],
    ids=["8", "16", "mixed"],
)
def test_bit_depth_is_the_sources(tmp_path, depths, dtype):
    cohort = make_cohort(tmp_path / "cohort", n=2, depths=depths)
    store = build(cohort, tmp_path / "store")
    assert store.full.dtype == store.crops.dtype == dtype
    assert store.meta["bit_depth"] == np.dtype(dtype).itemsize * 8
    if depths == (np.uint8, np.uint16):
        image = read_radiograph(cohort.folder / "images" / "P0.png").astype(np.uint16) * 257
        np.testing.assert_array_equal(store.full[0], resize(image, FULL))


@pytest.mark.parametrize("suffix", ["tif", "png"])
def test_pictures_that_lie_on_their_side_stand_upright_in_the_store(tmp_path, suffix):
    upright = make_cohort(tmp_path / "upright")
    lying = make_cohort(tmp_path / "lying")
    exif = Image.Exif()
    exif[274] = 6  # the first row is the right side
    names = {}
    for name in lying.table["image"]:
        pixels = np.rot90(np.array(Image.open(lying.folder / name)))
        (lying.folder / name).unlink()
        names[name] = name.replace("png", suffix)
        extra = {"tiffinfo": {274: 6}} if suffix == "tif" else {"exif": exif}
        Image.fromarray(np.ascontiguousarray(pixels)).save(lying.folder / names[name], **extra)
    lying = replace(lying, table=lying.table.replace({"image": names}))
    wanted, found = build(upright, tmp_path / "a"), build(lying, tmp_path / "b")
    np.testing.assert_array_equal(found.crops, wanted.crops)
    np.testing.assert_array_equal(found.full, wanted.full)


def test_dicom_of_more_bits_than_its_header_says_does_not_wrap_in_the_store(tmp_path):
    cohort = make_cohort(tmp_path / "cohort", n=2)
    wanted = build(cohort, tmp_path / "a")
    names = {}
    for name in cohort.table["image"]:
        names[name] = name.replace("png", "dcm")
        write_dicom(cohort.folder / names[name], np.array(Image.open(cohort.folder / name)), stored=8)
    found = build(replace(cohort, table=cohort.table.replace({"image": names})), tmp_path / "b")
    assert found.full.dtype == np.uint16
    np.testing.assert_array_equal(found.crops, wanted.crops)


def test_without_boxes_the_full_image_alone(cohort, tmp_path):
    bare = replace(cohort, vertebrae=None)
    store = build(bare, tmp_path / "store")
    assert store.crops is None
    assert store.crop_sizes is None
    assert store.n_shrunk is None
    assert store.full.shape == (5, *FULL)
    with pytest.raises(UserError, match=r"no vertebrae\.csv"):
        build(bare, tmp_path / "other", inputs=("crops",))


def test_every_bad_file_is_told_at_once_and_nothing_is_left(cohort, tmp_path):
    cohort = with_slots(cohort)
    (cohort.folder / "images" / "P0.png").write_bytes(b"broken")
    data = (cohort.folder / "images" / "P3.png").read_bytes()
    (cohort.folder / "images" / "P3.png").write_bytes(data[:2000])
    cohort.vertebrae.loc[cohort.vertebrae["patient_id"] == "P2", ["x_min", "x_max"]] += 500
    with pytest.raises(UserError) as caught:
        build_store(cohort, tmp_path / "store", scale=SCALE, progress=False)
    starts = ["images/P0.png: cannot", "boxes of patient P2: less than half of ", "images/P3.png: cannot"]
    assert len(caught.value.faults) == 3
    assert all(fault.startswith(start) for fault, start in zip(caught.value.faults, starts, strict=True))
    assert shown(tmp_path) == ["cohort"]


def test_an_interrupted_build_keeps_the_old_store(cohort, tmp_path, monkeypatch):
    before = build(cohort, tmp_path / "store")
    fingerprint = before.meta["fingerprint"]

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(store_module, "_write_row", interrupt)
    with pytest.raises(KeyboardInterrupt):
        build(cohort, tmp_path / "store", scale=0.1)
    assert ImageStore.open(tmp_path / "store").meta["fingerprint"] == fingerprint
    assert shown(tmp_path) == ["cohort", "store"]


def test_several_that_ask_at_once_build_it_once(cohort, tmp_path, monkeypatch):
    written, whole = [], store_module._write

    def counted(*arguments, **options):
        written.append(1)
        whole(*arguments, **options)

    monkeypatch.setattr(store_module, "_write", counted)
    with ThreadPoolExecutor(4) as pool:
        stores = list(pool.map(lambda _: build(cohort, tmp_path / "store"), range(4)))
    assert len(written) == 1
    for store in stores:
        np.testing.assert_array_equal(store.crops, stores[0].crops)


def test_what_a_killed_builder_left_behind_goes_with_the_next(cohort, tmp_path):
    mine = files._temporary(tmp_path / "store", "store", "")
    for left in (left_by_the_dead(tmp_path / "store", ""), mine):
        left.mkdir()
        (left / "crops.npy").write_bytes(b"half")
    build(cohort, tmp_path / "store")
    assert shown(tmp_path) == [mine.name, "cohort", "store"]


def test_a_workers_process_ends_with_whoever_asked_for_it():
    program = '''
import os, subprocess, sys
child = """import os, time; from fracsurv.utils.workers import _end_with
_end_with(os.getppid()); print(flush=True); time.sleep(60)"""
process = subprocess.Popen([sys.executable, "-c", child], stdout=subprocess.PIPE)
process.stdout.readline()
print(process.pid, flush=True)
os._exit(9)
'''
    done = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    orphan, until = psutil.Process(int(done.stdout)), time.monotonic() + 10
    while orphan.is_running() and orphan.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < until
        time.sleep(0.1)


def test_foreign_folders_and_wrong_arguments_are_refused(cohort, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.txt").write_text("dear")
    with pytest.raises(UserError, match="something other than an image store"):
        build(cohort, other)
    assert (other / "thesis.txt").read_text() == "dear"
    with pytest.raises(UserError, match="no image store"):
        ImageStore.open(other)
    with pytest.raises(UserError, match="input 'boxes'"):
        build(cohort, tmp_path / "store", inputs=("boxes",))
    with pytest.raises(UserError, match="no inputs"):
        build(cohort, tmp_path / "store", inputs=())
    with pytest.raises(UserError, match="scale must be above 0"):
        build(cohort, tmp_path / "store", scale=0)
    with pytest.raises(UserError, match="no radiographs"):
        build(replace(cohort, table=cohort.table.drop(columns="image")), tmp_path / "store")


def test_an_older_format_is_not_read(cohort, tmp_path, monkeypatch):
    version = build(cohort, tmp_path / "store").meta["version"]
    monkeypatch.setattr(store_module, "VERSION", 99)
    with pytest.raises(UserError, match=f"version {version}, not 99"):
        ImageStore.open(tmp_path / "store")
    assert build(cohort, tmp_path / "store").meta["version"] == 99

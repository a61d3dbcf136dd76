"""The image store: equal to direct computation, memory-mapped, rebuilt when and only when something changed."""

import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest
from PIL import Image

from fracsurv.cohort.cohort import Cohort
from fracsurv.images import store as store_module
from fracsurv.images import store_files, store_rows
from fracsurv.images.crops import crop_stack
from fracsurv.images.radiographs import read_radiograph, resize
from fracsurv.images.store import ImageStore, build_store
from fracsurv.utils import files
from fracsurv.utils.errors import UserError
from fracsurv.utils.workers import mapped
from fracsurv.vertebrae.slots import slots
from tests.killing import left_by_the_dead

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
    return ImageStore.open(build_store(cohort, folder, **{"scale": SCALE, "progress": False} | options))


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


def test_slot_counts_are_kept(cohort, tmp_path):
    store = build(cohort, tmp_path / "store")
    expected = pd.DataFrame(
        {
            "n_boxes": [14, 12, 15, 14, 0],
            "discarded_tall": [0, 0, 1, 0, 0],
            "dropped_top": [1, 0, 1, 1, 0],
            "inserted_gap": [0, 1, 0, 0, 0],
            "filled_top": [0, 0, 0, 0, 13],
            "filled_bottom": [0, 0, 0, 0, 0],
            "n_shrunk": [0, 0, 0, 0, 0],
        },
        index=pd.Index([f"P{i}" for i in range(5)], name="patient_id"),
    )
    pd.testing.assert_frame_equal(store.slots, expected)


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
    pd.testing.assert_frame_equal(one.slots, two.slots)
    assert one.meta == two.meta


def shown(folder):
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(".lock"))


def stamps(folder):
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}


def test_an_unchanged_cohort_keeps_its_store(cohort, tmp_path, monkeypatch):
    folder = build_store(cohort, tmp_path / "store", scale=SCALE, progress=False)
    before = stamps(folder)
    monkeypatch.setattr(store_module, "_write", lambda *_, **__: pytest.fail("built again"))
    assert build_store(cohort, folder, scale=SCALE, progress=False) == folder
    assert stamps(folder) == before


def test_radiographs_that_the_store_knows_are_not_read_again(cohort, tmp_path, monkeypatch):
    folder = build_store(cohort, tmp_path / "store", scale=SCALE, progress=False)
    read, digest = [], store_module.hashlib.file_digest
    monkeypatch.setattr(
        store_module.hashlib, "file_digest", lambda file, how: read.append(file.name) or digest(file, how)
    )
    build_store(cohort, folder, scale=SCALE, progress=False)
    assert read == []
    (cohort.folder / "images" / "P1.png").touch()  # of the same content: read, and the store kept
    before = stamps(folder)
    build_store(cohort, folder, scale=SCALE, progress=False)
    build_store(cohort, folder, scale=SCALE, progress=False)
    assert [Path(name).name for name in read] == ["P1.png"]  # once
    assert {name for name, when in stamps(folder).items() if before[name] != when} == {"patients.parquet"}


def test_a_store_that_kept_names_loses_them_when_it_is_opened(cohort, tmp_path):
    folder = build_store(cohort, tmp_path / "store", scale=SCALE, progress=False)
    path, wanted = folder / "patients.parquet", (folder / "patients.parquet").read_bytes()
    there = pd.read_parquet(path)
    there.drop(columns="state").assign(image="images/P1.png", size=1, changed_ns=2).to_parquet(path, index=False)
    build_store(cohort, folder, scale=SCALE, progress=False)
    assert path.read_bytes() == wanted


def test_what_another_process_builds_meanwhile_is_not_overwritten(cohort, tmp_path, monkeypatch):
    """One finds its store current, if with other dates, and waits for the lock; then the store is another one."""
    folder = build_store(cohort, tmp_path / "store", scale=SCALE, progress=False)
    (cohort.folder / "images" / "P1.png").touch()
    boxes = cohort.vertebrae.assign(y_max=cohort.vertebrae["y_max"] - 1)
    other, path = replace(cohort, vertebrae=boxes), folder / "patients.parquet"
    real, built = store_files.locked, []

    @contextmanager
    def waited(lock):
        if not built:
            built.append(lock)
            build_store(other, folder, scale=SCALE, progress=False)
            built.append(path.read_bytes())
        with real(lock):
            yield

    monkeypatch.setattr(store_files, "locked", waited)
    build_store(cohort, folder, scale=SCALE, progress=False)
    assert len(built) == 2
    assert path.read_bytes() == built[1]


def test_a_damaged_table_of_patients_is_no_reason_to_stop(cohort, tmp_path):
    folder = build_store(cohort, tmp_path / "store", scale=SCALE, progress=False)
    (folder / "patients.parquet").write_bytes(b"PAR1 and no more")
    assert build_store(cohort, folder, scale=SCALE, progress=False) == folder


def test_a_store_keeps_no_file_name(cohort, tmp_path):
    folder = build_store(cohort, tmp_path / "store", scale=SCALE, progress=False)
    kept = [path.read_bytes() for path in folder.iterdir()] + [
        pd.read_parquet(folder / "patients.parquet").to_csv().encode()
    ]
    assert any(b"P1" in content for content in kept)  # the patient's id
    assert not [content for content in kept if b"P1.png" in content]


def test_a_store_cut_short_is_told(cohort, tmp_path):
    folder = build_store(cohort, tmp_path / "store", scale=SCALE, progress=False)
    with open(folder / "crops.npy", "r+b") as file:
        file.truncate(1000)
    with pytest.raises(UserError, match=r"crops\.npy: shorter than it says; delete"):
        ImageStore.open(folder)


def test_a_worker_that_the_system_ends_is_told():
    with pytest.raises(UserError, match="one of 2 worker processes was ended by the system"):
        list(mapped(2, os._exit, [3, 3]))


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


def test_the_other_columns_of_the_cohort_do_not_matter(cohort, tmp_path):
    folder = build_store(cohort, tmp_path / "store", scale=SCALE, progress=False)
    before = stamps(folder)
    build_store(replace(cohort, table=cohort.table.assign(time=1.0)), folder, scale=SCALE, progress=False)
    assert stamps(folder) == before


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


def test_without_boxes_the_full_image_alone(cohort, tmp_path):
    bare = replace(cohort, vertebrae=None)
    store = build(bare, tmp_path / "store")
    assert store.crops is None
    assert store.crop_sizes is None
    assert store.slots.empty
    assert store.full.shape == (5, *FULL)
    with pytest.raises(UserError, match=r"no vertebrae\.csv"):
        build(bare, tmp_path / "other", inputs=("crops",))


def test_a_moved_box_rebuilds_the_crops_and_not_the_full_images(cohort, tmp_path):
    moved = replace(cohort, vertebrae=cohort.vertebrae.assign(y_max=cohort.vertebrae["y_max"] - 1))
    for kind in ("crops", "full"):
        was, now = (
            build(each, tmp_path / f"{kind}-{i}", inputs=(kind,)).meta["fingerprint"]
            for i, each in enumerate((cohort, moved))
        )
        assert (was == now) == (kind == "full")


def test_crops_alone(cohort, tmp_path):
    store = build(cohort, tmp_path / "store", inputs=("crops",))
    assert store.full is None
    assert store.ranges["full_min"].isna().all()


def test_every_bad_file_is_told_at_once_and_nothing_is_left(cohort, tmp_path):
    (cohort.folder / "images" / "P0.png").write_bytes(b"broken")
    data = (cohort.folder / "images" / "P3.png").read_bytes()
    (cohort.folder / "images" / "P3.png").write_bytes(data[:2000])
    cohort.vertebrae.loc[cohort.vertebrae["patient_id"] == "P2", ["x_min", "x_max"]] += 500
    with pytest.raises(UserError) as caught:
        build(cohort, tmp_path / "store")
    starts = ["images/P0.png: cannot", "boxes of patient P2: less than half of ", "images/P3.png: cannot"]
    assert len(caught.value.faults) == 3
    assert all(fault.startswith(start) for fault, start in zip(caught.value.faults, starts, strict=True))
    assert shown(tmp_path) == ["cohort"]


def test_an_interrupted_build_keeps_the_old_store(cohort, tmp_path, monkeypatch):
    before = build(cohort, tmp_path / "store")
    fingerprint = before.meta["fingerprint"]

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(store_rows, "_write_row", interrupt)
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


def test_an_open_store_keeps_to_itself_when_it_is_replaced(cohort, tmp_path):
    """Sizes, ranges and pixels stay those of the store that was opened, mapped or read."""
    store = build(cohort, tmp_path / "store")
    before = {name: np.array(file.mapped) for name, file in store.files.items()}
    turned = replace(cohort, table=cohort.table.iloc[::-1].reset_index(drop=True))
    after = build(turned, tmp_path / "store")
    rows = np.arange(len(store))
    for name, file in store.files.items():
        np.testing.assert_array_equal(file.mapped, before[name])
        np.testing.assert_array_equal(file.read(rows[::-1]), before[name][::-1])
        np.testing.assert_array_equal(after.files[name].read(rows), before[name][::-1])
    assert store.patient_ids == after.patient_ids[::-1]


def test_opening_while_it_is_replaced_never_mixes_two(cohort, tmp_path):
    turned = replace(cohort, table=cohort.table.iloc[::-1].reset_index(drop=True))
    expected = {}
    for each in (cohort, turned):
        store = build(each, tmp_path / "store")
        expected[tuple(store.patient_ids)] = store.crop_sizes.copy()
    stop = threading.Event()

    def replace_it():
        while not stop.is_set():
            for each in (cohort, turned):
                build_store(each, tmp_path / "store", scale=SCALE, progress=False)

    thread = threading.Thread(target=replace_it)
    thread.start()
    try:
        for _ in range(150):
            store = ImageStore.open(tmp_path / "store")
            np.testing.assert_array_equal(store.crop_sizes, expected[tuple(store.patient_ids)])
    finally:
        stop.set()
        thread.join()


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
    build(cohort, tmp_path / "store")
    monkeypatch.setattr(store_module, "VERSION", 99)
    with pytest.raises(UserError, match="version 2, not 99"):
        ImageStore.open(tmp_path / "store")
    assert build(cohort, tmp_path / "store").meta["version"] == 99

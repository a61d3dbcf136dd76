"""The vertebra finder on real and on simulated radiographs that it was not trained on, as they are and changed.

    python -m benchmarks.detection real [--data FOLDER]
    python -m benchmarks.detection simulated

`real` trains on `spine-region/train` of FOLDER (default $FRACSURV_SHARED_DATA, else `shared/data` beside the
repository) and scores `spine-region/valid`, once. `simulated` trains on one seed of the simulator and scores another.
Prints tables and writes `benchmarks/results/detection_*.json`.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from tqdm import tqdm

from benchmarks.perturbations import CHANGES
from fracsurv.cohort import read_cohort
from fracsurv.detection import (
    Detections,
    DetectorRecipe,
    Finder,
    Labelled,
    find,
    read_labelled,
    save_finder,
    train_finder,
)
from fracsurv.detection.inference import detect
from fracsurv.detection.keypoints import CHI2_90
from fracsurv.detection.scores import matches, scores
from fracsurv.files import write_json
from fracsurv.morphometry import grade_probabilities, morphometry
from fracsurv.radiographs import read_radiograph
from fracsurv.simulate import simulate_cohort
from fracsurv.simulate.settings import DEFAULT, LEVELS
from fracsurv.training import precision_of
from fracsurv.vertebrae import slots

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
SHOWN = ("ap50", "ap50_95", "sensitivity_at_half", "recall", "precision", "exact_count")
N_TRAIN, N_HELD_OUT, TRAIN_SEED, HELD_OUT_SEED = 700, 300, 101, 202


def judged(finder: Finder, found: list[Labelled]) -> dict[str, dict[str, float]]:
    """Detection scores under every change."""
    dtype = precision_of(torch.device("cpu"), "auto")
    result = {}
    for name, change in CHANGES.items():
        truth = []

        def images(name=name, change=change, truth=truth):
            for each in tqdm(found, desc=name, leave=False, disable=None):
                image, boxes, _ = change((read_radiograph(each.path), each.boxes, each.keypoints))
                truth.append(boxes)
                yield image

        start = time.perf_counter()
        seen = list(detect(finder.detector, images(), dtype=dtype))
        result[name] = scores(seen, truth, finder.threshold)
        result[name]["images_per_s"] = len(found) / (time.perf_counter() - start)
        print(f"{name:<28}" + "".join(f"{result[name][key]:>9.3f}" for key in SHOWN), flush=True)
    return result


def trained(found: list[Labelled], provenance: str, recipe: DetectorRecipe, weights: Path) -> tuple[Finder, dict]:
    """A finder, saved, and what it cost."""
    start = time.perf_counter()
    finder = train_finder(found, provenance, recipe)
    seconds = time.perf_counter() - start
    save_finder(finder, weights)
    cost = {"train_s": seconds, "weights_mb": weights.stat().st_size / 1e6, "n_images": len(found)}
    print(f"trained in {seconds:.0f} s on {len(found)} radiographs; {cost['weights_mb']:.1f} MB; {finder.summary()}")
    print(f"{'':<28}" + "".join(f"{key[:8]:>9}" for key in SHOWN))
    return finder, cost


def real(data: Path, weights: Path, recipe: DetectorRecipe) -> None:
    """Train on the real radiographs' training part, score their validation part."""
    found, provenance = read_labelled(data / "spine-region" / "train")
    finder, cost = trained(found, provenance, recipe, weights)
    held_out, _ = read_labelled(data / "spine-region" / "valid")
    write_json(RESULTS / "detection_real.json", cost | {"scores": judged(finder, held_out)})


def simulated(weights: Path, recipe: DetectorRecipe) -> None:
    """Train on one simulated cohort, score another; keypoints and grades too."""
    with tempfile.TemporaryDirectory() as folder:
        # faults of a detector are for cohorts that stand for one; what teaches has none
        clean = replace(DEFAULT, box_faults=0.0, neck_boxes=0.0)
        for name, n, seed in (("train", N_TRAIN, TRAIN_SEED), ("held_out", N_HELD_OUT, HELD_OUT_SEED)):
            simulate_cohort(f"{folder}/{name}", patients=n, seed=seed, settings=clean, workers=2)
        finder, cost = trained(*read_labelled(f"{folder}/train"), recipe, weights)
        held_out, _ = read_labelled(f"{folder}/held_out")
        result = cost | {"scores": judged(finder, held_out), "vertebrae": graded(finder, Path(folder) / "held_out")}
    for name, value in result["vertebrae"].items():
        print(f"{name:<36}{value:.4g}")
    write_json(RESULTS / "detection_simulated.json", result)


def graded(finder: Finder, folder: Path) -> dict[str, float]:
    """Slots, keypoints and grades against the simulator's truth."""
    cohort = read_cohort(folder)
    truth = cohort.truth()
    rows = {patient: table.reset_index(drop=True) for patient, table in cohort.vertebrae.groupby("patient_id")}
    right, errors, relative, distances, fractured, chance = [], [], [], [], [], []
    for patient, name in tqdm(
        list(zip(cohort.table["patient_id"], cohort.table["image"], strict=True)), disable=None
    ):
        image = read_radiograph(cohort.folder / name)
        (found,) = find(finder, [image])
        table = rows[patient]
        boxes = table[["x_min", "y_min", "x_max", "y_max"]].to_numpy()
        known = table[[f"{axis}{k}" for k in range(1, 7) for axis in "xy"]].to_numpy().reshape(-1, 6, 2)
        nearest = np.array([_best(box, boxes) for box in found.boxes], int)
        level = np.array([table["level"][i] if i >= 0 else "" for i in nearest])
        chosen = slots(found.boxes, max_height=230 * cohort.resolution, image_height=image.shape[0]).index
        given = [level[i] if i >= 0 else "" for i in chosen]
        right.append(all(have == want or (have == "" and want not in set(table["level"]))
                         for have, want in zip(given, LEVELS, strict=True)))  # fmt: skip
        hit = nearest >= 0
        mean, scale, wanted = found.keypoints[hit], found.scale[hit], known[nearest[hit]]
        error = np.linalg.norm(mean - wanted, axis=2)
        height = np.linalg.norm(wanted[:, :3] - wanted[:, 3:], axis=2).mean(axis=1, keepdims=True)
        errors.append(error)
        relative.append(error / height)
        distances.append((((mean - wanted) / scale) ** 2).sum(axis=2))
        grades = np.array([truth.loc[patient, f"grade_{name}"] if name in LEVELS else -1 for name in level[hit]])
        probability = grade_probabilities(torch.from_numpy(mean), torch.from_numpy(scale)).numpy()
        hard = morphometry(mean).grade.numpy()
        fractured.append(np.stack([grades, hard], axis=1))
        chance.append(probability)
    error, share, distance = (
        np.concatenate([part.ravel() for part in parts]) for parts in (errors, relative, distances)
    )
    finite = np.isfinite(error)
    pair, chance_of = np.concatenate(fractured), np.concatenate(chance)
    usable = (pair[:, 0] >= 0) & np.isfinite(chance_of).all(axis=1)
    pair, chance_of = pair[usable], chance_of[usable]
    if not finite.any() or not len(pair):
        raise SystemExit("the finder found no vertebra whose keypoints and grade are known; train it for longer")
    result = {
        "patients_with_13_right_slots": float(np.mean(right)),
        "keypoint_error_px_median": float(np.median(error[finite])),
        "keypoint_error_px_mean": float(error[finite].mean()),
        "keypoint_error_share_of_height": float(share[finite].mean()),
        "coverage_of_90_percent_ellipses": float((distance[finite] <= CHI2_90).mean()),
        "n_vertebrae": len(pair),
    }
    for name, least in (("any_fracture", 1), ("grade_2_or_more", 2)):
        is_so, called = pair[:, 0] >= least, pair[:, 1] >= least
        result |= {
            f"{name}_n": int(is_so.sum()),
            f"{name}_sensitivity": float(called[is_so].mean()),
            f"{name}_specificity": float((~called[~is_so]).mean()),
            f"{name}_auc": float(roc_auc_score(is_so, chance_of[:, least:].sum(axis=1))),
        }
    return result


def _best(box: np.ndarray, boxes: np.ndarray) -> int:
    """The true box that a found one hits (IoU 0.5), −1 for none."""
    hits = [matches(Detections(box[None], np.ones(1)), each[None], 0.5)[0] for each in boxes]
    return int(np.argmax(hits)) if any(hits) else -1


def main() -> None:
    default = Path(os.environ.get("FRACSURV_SHARED_DATA", ROOT.parent / "shared" / "data"))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("which", choices=["real", "simulated"])
    parser.add_argument("--data", type=Path, default=default, help="folder with spine-region/")
    parser.add_argument("--weights", type=Path, help="where to keep the weights")
    parser.add_argument("--epochs", type=int, default=DetectorRecipe().epochs)
    arguments = parser.parse_args()
    recipe = DetectorRecipe(epochs=arguments.epochs)
    with tempfile.TemporaryDirectory() as folder:
        weights = arguments.weights or Path(folder) / "finder.safetensors"
        if arguments.which == "real":
            if not (arguments.data / "spine-region").is_dir():
                parser.error(f"--data: {arguments.data} has no folder spine-region")
            real(arguments.data, weights, recipe)
        else:
            simulated(weights, recipe)


if __name__ == "__main__":
    main()

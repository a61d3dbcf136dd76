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
from pathlib import Path

import torch
from tqdm import tqdm

from benchmarks.perturbations import CHANGES
from fracsurv.cohort import read_cohort
from fracsurv.detection import (
    DetectorRecipe,
    Finder,
    Labelled,
    find_vertebrae,
    read_labelled,
    save_finder,
    train_finder,
)
from fracsurv.detection.evaluation import compare
from fracsurv.detection.inference import detect
from fracsurv.detection.scores import scores
from fracsurv.files import write_json
from fracsurv.radiographs import read_radiograph
from fracsurv.simulate import simulate_cohort
from fracsurv.training import precision_of

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
    """Train on one simulated cohort, score another; slots, keypoints and grades too."""
    with tempfile.TemporaryDirectory() as folder:
        for name, n, seed in (("train", N_TRAIN, TRAIN_SEED), ("held_out", N_HELD_OUT, HELD_OUT_SEED)):
            simulate_cohort(f"{folder}/{name}", patients=n, seed=seed, boxes="true", workers=2)
        finder, cost = trained(*read_labelled(f"{folder}/train"), recipe, weights)
        held_out, _ = read_labelled(f"{folder}/held_out")
        cohort = read_cohort(f"{folder}/held_out")
        start = time.perf_counter()
        found = cohort.with_boxes(find_vertebrae(finder, cohort), "finder")
        cost["whole_images_per_s"] = len(cohort) / (time.perf_counter() - start)
        result = cost | {
            "scores": judged(finder, held_out),
            "vertebrae": compare(found, cohort.true_vertebrae(), cohort.truth()).summary(),
        }
    for name, value in result["vertebrae"].items():
        print(f"{name:<44}{value:.4g}")
    write_json(RESULTS / "detection_simulated.json", result)


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

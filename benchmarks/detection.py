"""The vertebra finder on real and on simulated radiographs that it was not trained on, as they are and changed.

    python -m benchmarks.detection real [--data FOLDER]
    python -m benchmarks.detection simulated

`real` trains on `spine-region/train` of FOLDER (default $FRACSURV_SHARED_DATA, else `shared/data` beside the
repository) and scores `spine-region/valid`, once. `simulated` makes the finder that ships, as
detection/weights/README.md has it, and scores another seed's radiographs.
Prints tables and writes `benchmarks/results/detection_*.json`.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

from tqdm import tqdm

from benchmarks.perturbations import CHANGES
from fracsurv.cohort.cohort import read_cohort
from fracsurv.detection.finder import Finder, load_finder, save_finder, train_finder
from fracsurv.detection.inference import detect
from fracsurv.detection.locate import find_vertebrae
from fracsurv.detection.scores import compare, detection_scores
from fracsurv.detection.sources import Labelled, read_all_labelled, read_labelled
from fracsurv.detection.training import DetectorRecipe
from fracsurv.images.radiographs import with_slots
from fracsurv.simulate import simulate_cohort
from fracsurv.utils.files import write_json

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
SHOWN = ("ap50", "ap50_95", "sensitivity_at_half", "recall", "precision", "exact_count")
DETECTOR_TEACHING = ((0.5, 700, 101),)
KEYPOINT_TEACHING = ((0.5, 700, 102), (0.25, 350, 103), (0.125, 150, 104))
"""Resolution, patients and seed of the simulated radiographs that teach."""
RESOLUTIONS = {0.125: 100, 0.5: 100, 1.0: 50}
"""Of further radiographs that judge, and how many (besides 0.25)."""
N_HELD_OUT, HELD_OUT_SEED = 300, 202


def judged(finder: Finder, found: list[Labelled]) -> dict[str, dict[str, float]]:
    """Detection scores under every change."""
    result = {}
    for name, change in CHANGES.items():
        truth = []

        def images(name=name, change=change, truth=truth):
            for each in tqdm(found, desc=name, leave=False, disable=None):
                image, boxes, _ = change((each.read(), each.boxes, each.keypoints))
                truth.append(boxes)
                yield image

        start = time.perf_counter()
        seen = list(detect(finder.detector, images()))
        result[name] = detection_scores(seen, truth, finder.threshold)
        result[name]["images_per_s"] = len(found) / (time.perf_counter() - start)
        print(f"{name:<28}" + "".join(f"{result[name][key]:>9.3f}" for key in SHOWN), flush=True)
    return result


def trained(
    found: list[Labelled], provenance: str, recipe: DetectorRecipe, weights: Path, detector: Finder | None = None
) -> tuple[Finder, float]:
    """A finder, saved at `weights`, and the seconds it took."""
    start = time.perf_counter()
    finder = train_finder(found, provenance, recipe, detector=detector)
    seconds = time.perf_counter() - start
    save_finder(finder, weights)
    print(f"trained in {seconds:.0f} s on {len(found)} radiographs")
    return finder, seconds


def about(finder: Finder, weights: Path) -> dict[str, float]:
    """Size of the weights; prints the head of the table of scores."""
    size = weights.stat().st_size / 1e6
    print(f"{size:.1f} MB; {finder.summary()}")
    print(f"{'':<28}" + "".join(f"{key[:8]:>9}" for key in SHOWN))
    return {"weights_mb": size}


def real(data: Path, weights: Path, recipe: DetectorRecipe | None) -> None:
    """Train on the real radiographs' training part (or take `weights`), score their validation part."""
    cost = {}
    if recipe is None:
        finder = load_finder(weights)
    else:
        found, provenance = read_labelled(data / "spine-region" / "train")
        finder, cost["train_s"] = trained(found, provenance, recipe, weights)
    cost |= about(finder, weights)
    held_out, _ = read_labelled(data / "spine-region" / "valid")
    write_json(RESULTS / "detection_real.json", cost | {"scores": judged(finder, held_out)})


def simulated(weights: Path, recipe: DetectorRecipe | None) -> None:
    """Make the finder that ships (or take `weights`); score another seed's radiographs, slots and grades too."""
    with tempfile.TemporaryDirectory() as folder:
        cost = {}
        if recipe is not None:
            _, cost["train_s"] = trained(*_teaching(folder, DETECTOR_TEACHING), recipe, weights)
            keypoints = _teaching(folder, KEYPOINT_TEACHING)
            _, cost["keypoints_train_s"] = trained(*keypoints, recipe, weights, load_finder(weights))
        finder = load_finder(weights)  # what is judged, and taught on, is what is kept: in half precision
        held_out = f"{folder}/held-out"
        simulate_cohort(held_out, patients=N_HELD_OUT, seed=HELD_OUT_SEED, boxes="true", workers=2)
        result = cost | about(finder, weights) | {"scores": judged(finder, read_labelled(held_out)[0])}
        result["vertebrae"] = against_truth(finder, held_out)
        for name, value in result["vertebrae"].items():
            print(f"{name:<44}{value:.4g}")
        result["resolutions"] = {}
        for resolution, n in RESOLUTIONS.items():
            other = f"{folder}/at-{resolution}"
            simulate_cohort(other, patients=n, seed=HELD_OUT_SEED, resolution=resolution, workers=2)
            found = result["resolutions"][str(resolution)] = against_truth(finder, other)
            shown = ("patients", "patients_with_13_right_slots", "keypoint_error_share_of_height_mean",
                     "coverage_of_90_percent_ellipses", "vertebra_any_fracture_auc")  # fmt: skip
            print(
                f"resolution {resolution:g}: " + ", ".join(f"{name} {found[name]:.4g}" for name in shown), flush=True
            )
    write_json(RESULTS / "detection_simulated.json", result)


def _teaching(folder: str, parts: tuple[tuple[float, int, int], ...]) -> tuple[list[Labelled], str]:
    paths = [f"{folder}/teach-{seed}" for _, _, seed in parts]
    for path, (resolution, n, seed) in zip(paths, parts, strict=True):
        simulate_cohort(path, patients=n, seed=seed, resolution=resolution, boxes="true", workers=2)
    return read_all_labelled(paths)


def against_truth(finder: Finder, folder: str) -> dict[str, float]:
    """Slots, keypoints and grades against what the simulator drew, and radiographs a second, reading included."""
    cohort = read_cohort(folder)
    start = time.perf_counter()
    found = find_vertebrae(finder, cohort)
    per_second = len(cohort) / (time.perf_counter() - start)
    truth = cohort.true_vertebrae()
    found = with_slots(cohort.with_boxes(found, "finder"))
    return compare(found, truth, cohort.truth()).summary() | {"images_per_s": per_second}


def main() -> None:
    default = Path(os.environ.get("FRACSURV_SHARED_DATA", ROOT.parent / "shared" / "data"))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("which", choices=["real", "simulated"])
    parser.add_argument("--data", type=Path, default=default, help="folder with spine-region/")
    parser.add_argument("--weights", type=Path, help="where to keep the weights")
    parser.add_argument("--trained", type=Path, help="judge these weights in the place of training new ones")
    parser.add_argument("--epochs", type=int, default=DetectorRecipe().epochs)
    arguments = parser.parse_args()
    recipe = None if arguments.trained else DetectorRecipe(epochs=arguments.epochs)
    with tempfile.TemporaryDirectory() as folder:
        weights = arguments.trained or arguments.weights or Path(folder) / "finder.safetensors"
        if arguments.which == "real":
            if not (arguments.data / "spine-region").is_dir():
                parser.error(f"--data: {arguments.data} has no folder spine-region")
            real(arguments.data, weights, recipe)
        else:
            simulated(weights, recipe)


if __name__ == "__main__":
    main()

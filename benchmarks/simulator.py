"""The simulated cohort against the protocol: `python -m benchmarks.simulator` (about two minutes).

Prints every marginal of 3,028 simulated women beside the protocol's with its sampling error, the concordance
of Cox's model and of the true risk, how visible bone quality is, and radiographs a second; writes them to
benchmarks/results/simulator.json.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from time import perf_counter

import numpy as np
import pandas as pd
from scipy.ndimage import map_coordinates
from sksurv.linear_model import CoxPHSurvivalAnalysis
from sksurv.metrics import concordance_index_censored
from sksurv.util import Surv

from fracsurv.cohort.boxes import LEVELS
from fracsurv.cohort.covariates import PROTOCOL_COVARIATES
from fracsurv.simulate import DEFAULT, simulate_tables
from fracsurv.simulate.anatomy import (
    FIRST,
    LAST,
    PICTURE_WIDTH,
    Spine,
    simulate_spine,
)
from fracsurv.simulate.render import render
from fracsurv.simulate.settings import stream
from fracsurv.utils.files import write_json

RESULTS = Path(__file__).parent / "results" / "simulator.json"
N = 3_028

# The protocol's table of the cohort: mean and SD, or share.
MEANS = {"age": (77.8, 1.6), "bmi": (26.3, 4.4), "t_score": (-1.6, 0.9), "time_days": (2317.0, 991.8)}
SHARES = DEFAULT.prevalence | {"event": 0.358}
SAMPLES = np.linspace(-1.0, 1.0, 25)


def marginals(table: pd.DataFrame) -> pd.DataFrame:
    """Protocol, simulated, standard error and z of every marginal."""
    n, rows = len(table), []
    for name, (mean, sd) in MEANS.items():
        x = table[name].to_numpy(dtype=float)
        kurtosis = np.mean((x - x.mean()) ** 4) / x.var() ** 2
        rows.append((f"{name}, mean", mean, x.mean(), sd / np.sqrt(n)))
        rows.append((f"{name}, SD", sd, x.std(ddof=1), sd * np.sqrt((kurtosis - 1) / (4 * n))))
    for name, share in SHARES.items():
        rows.append((f"{name}, share", share, table[name].mean(), np.sqrt(share * (1 - share) / n)))
    frame = pd.DataFrame(rows, columns=["marginal", "protocol", "simulated", "sampling_error"])
    return frame.assign(z=(frame["simulated"] - frame["protocol"]) / frame["sampling_error"])


def concordance(table: pd.DataFrame, truth: pd.DataFrame, train: int) -> dict[str, float]:
    """Harrell's C on the women after the first `train`, on whom Cox's models are fitted."""
    event, time = table["event"].to_numpy(bool), table["time_days"].to_numpy(float)
    clinical = table[list(PROTOCOL_COVARIATES)].to_numpy(float)
    burden = np.log1p(truth[["grade_sum"]].to_numpy(float))
    quality = truth[["bone_quality"]].to_numpy()

    def c_index(risk: np.ndarray) -> float:
        return float(concordance_index_censored(event[train:], time[train:], risk[train:])[0])

    def cox(inputs: np.ndarray) -> float:
        x = (inputs - inputs[:train].mean(axis=0)) / inputs[:train].std(axis=0)
        model = CoxPHSurvivalAnalysis(ties="efron").fit(x[:train], Surv.from_arrays(event[:train], time[:train]))
        return c_index(model.predict(x))

    return {
        "cox_clinical": cox(clinical),
        "cox_clinical_and_burden": cox(np.hstack([clinical, burden])),
        "cox_clinical_and_bone_quality": cox(np.hstack([clinical, quality])),
        "true_risk": c_index(truth["log_hazard"].to_numpy()),
    }


def spines(truth: pd.DataFrame, seed: int, count: int) -> list[Spine]:
    """The first women's spines."""
    grades = truth[[f"grade_{level}" for level in LEVELS]].to_numpy()
    types = truth[[f"type_{level}" for level in LEVELS]].to_numpy()
    return [simulate_spine(stream(seed, i, "anatomy"), grades[i], types[i], DEFAULT) for i in range(count)]


def images_per_second(table: pd.DataFrame, truth: pd.DataFrame, seed: int, resolution: float, count: int) -> float:
    """Radiographs a second on one core, anatomy included, without writing the file; the best of three."""
    best = np.inf
    for _ in range(3):
        start = perf_counter()
        for i, spine in enumerate(spines(truth, seed, count)):
            render(spine, truth["bone_quality"][i], table["t_score"][i], seed, i, resolution)
        best = min(best, perf_counter() - start)
    return count / best


def trabecular_contrast(image: np.ndarray, keypoints: np.ndarray) -> float:
    """Texture of the vertebrae's interior against the brightness of their endplates, as a logarithm.

    The median over vertebrae of the SD of the interior's grey values about their best plane, over the median
    of the endplates' brightness above the interior. A ratio of differences of grey values: exposure (gain
    and offset) has no effect. Higher = more texture; NaN where the endplates are not the brighter ones.

    Parameters
    ----------
    image : array (height, width)
    keypoints : float array (vertebrae, 6, 2)
        In pixels of `image` (pixel i covers i to i + 1), in the order of vertebrae.csv, all inside.
    """
    texture, contrast = np.median([_texture_and_contrast(image, points) for points in keypoints], axis=0)
    return float(np.log(texture / contrast)) if contrast > 0 else float("nan")


def _texture_and_contrast(image: np.ndarray, points: np.ndarray) -> tuple[float, float]:
    """Interior's SD and endplates' contrast of one vertebra, grey values."""
    patch = _straightened(image, points)
    u, v = np.meshgrid(SAMPLES, SAMPLES)
    inner = (np.abs(u) < 0.7) & (np.abs(v) < 0.6)
    columns = np.abs(SAMPLES) < 0.7
    # Just inside the endplates: at the very edge a small picture's pixels are half disc.
    rows = (np.abs(SAMPLES) > 0.8) & (np.abs(SAMPLES) < 0.95)
    plates = patch[rows][:, columns].mean()
    plane = np.stack([np.ones(inner.sum()), u[inner], v[inner]], axis=1)
    residual = patch[inner] - plane @ np.linalg.lstsq(plane, patch[inner], rcond=None)[0]
    return float(residual.std()), float(plates - patch[inner].mean())


def _straightened(image: np.ndarray, points: np.ndarray) -> np.ndarray:
    """The vertebra's grey values on a square: columns anterior to posterior, rows top to bottom."""
    u = SAMPLES[:, None]

    def endplate(a: np.ndarray, m: np.ndarray, p: np.ndarray) -> np.ndarray:
        return m + u * ((p - a) / 2 + u * ((p + a) / 2 - m))

    top, bottom = endplate(*points[:3]), endplate(*points[3:])
    part = (1 + SAMPLES)[:, None, None] / 2
    xy = top * (1 - part) + bottom * part
    return map_coordinates(image.astype(np.float64), (xy[..., 1] - 0.5, xy[..., 0] - 0.5), order=1, mode="nearest")


def visibility(table: pd.DataFrame, truth: pd.DataFrame, seed: int, count: int) -> float:
    """Correlation of bone quality with a hand-made statistic of the pictures at resolution 0.25."""
    values = []
    for i, spine in enumerate(spines(truth, seed, count)):
        picture = render(spine, truth["bone_quality"][i], table["t_score"][i], seed, i, 0.25)
        points = spine.keypoints()[FIRST : LAST + 1]
        inside = (points >= 0).all((1, 2)) & (points <= [PICTURE_WIDTH, spine.height]).all((1, 2))
        values.append(trabecular_contrast(picture, points[inside] * 0.25))
    known = np.isfinite(values)
    return float(np.corrcoef(np.array(values)[known], truth["bone_quality"][:count][known])[0, 1])


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--large", type=int, default=60_000, help="women for the concordances")
    arguments = parser.parse_args()
    table, truth = simulate_tables(N, arguments.seed)
    shown = marginals(table)
    print(shown.round(3).to_string(index=False))

    big, big_truth = simulate_tables(arguments.large, arguments.seed + 1)
    train = arguments.large // 4
    result = {
        "seed": arguments.seed,
        "n": N,
        "marginals": shown.to_dict("records"),
        "large_n": arguments.large,
        "large_marginals": marginals(big).drop(columns=["sampling_error", "z"]).to_dict("records"),
        "concordance": concordance(big, big_truth, train),
        "concordance_evaluated_on": arguments.large - train,
        "concordance_of_the_small_cohort": concordance(table, truth, N // 2),
        "vertebral_fracture_prevalence": float((big_truth["grade_sum"] > 0).mean()),
        "visibility_correlation": visibility(table, truth, arguments.seed, 400),
        "images_per_second": {
            "0.25": images_per_second(table, truth, arguments.seed, 0.25, 60),
            "1.0": images_per_second(table, truth, arguments.seed, 1.0, 8),
        },
    }
    for name in result.keys() - {"marginals", "large_marginals"}:
        print(f"{name}: {result[name]}")
    write_json(RESULTS, result)
    print(f"written to {RESULTS.relative_to(Path.cwd()) if RESULTS.is_relative_to(Path.cwd()) else RESULTS}")


if __name__ == "__main__":
    main()

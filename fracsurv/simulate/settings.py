"""Every number of the simulated cohort: marginals, correlations, hazards, follow-up, detection; its random streams.

The marginals are the protocol's (SUPERB, 3,028 women). The coefficients were chosen by hand so that the
protocol's concordances come out (Cox on the ten covariates about 0.64, true risk about 0.76); they are not
estimates from any data. `docs/simulator.md` says how they were calibrated.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from fracsurv.cohort.covariates import PROTOCOL_COVARIATES

BINARY = tuple(name for name, kind in PROTOCOL_COVARIATES.items() if kind == "binary")
CONTINUOUS = ("age", "bmi", "t_score")


def _prevalence() -> dict[str, float]:
    return {
        "prior_fracture": 0.369,
        "parental_hip_fracture": 0.176,
        "smoker": 0.052,
        "glucocorticoids": 0.034,
        "rheumatoid_arthritis": 0.040,
        "alcohol": 0.006,
        "secondary_osteoporosis": 0.260,
    }


def _correlation() -> dict[tuple[str, str], float]:
    return {
        ("q", "t_score"): 0.30,
        ("q", "prior_fracture"): -0.15,
        ("q", "age"): -0.10,
        ("q", "glucocorticoids"): -0.10,
        ("t_score", "bmi"): 0.35,
        ("t_score", "prior_fracture"): -0.20,
        ("age", "prior_fracture"): 0.08,
        ("glucocorticoids", "rheumatoid_arthritis"): 0.35,
        ("secondary_osteoporosis", "rheumatoid_arthritis"): 0.25,
        ("secondary_osteoporosis", "glucocorticoids"): 0.15,
        ("smoker", "alcohol"): 0.20,
        ("smoker", "bmi"): -0.10,
    }


def _log_hazard() -> dict[str, float]:
    return {
        "age": 0.04,
        "bmi": -0.01,
        "t_score": -0.13,
        "prior_fracture": 0.38,
        "parental_hip_fracture": 0.18,
        "smoker": 0.20,
        "secondary_osteoporosis": 0.12,
        "glucocorticoids": 0.35,
        "rheumatoid_arthritis": 0.20,
        "alcohol": 0.35,
    }


@dataclass(frozen=True)
class SimulationSettings:
    """Coefficients of the simulated cohort; the defaults give the protocol's marginals and concordances.

    Correlations are those of the Gaussian copula's latent normals, `q` being the bone quality (SD 1, higher
    = stronger bone). Log hazard ratios are per year, per kg/m², per unit of T-score, or yes against no.
    """

    # Marginals. Age is uniform over the recruited years (75.0 to 80.6 has just the protocol's SD), BMI
    # log-normal, T-score normal.
    age_mean: float = 77.8
    age_sd: float = 1.6
    bmi_mean: float = 26.3
    bmi_sd: float = 4.4
    t_score_mean: float = -1.6
    t_score_sd: float = 0.9
    prevalence: dict[str, float] = field(default_factory=_prevalence)
    correlation: dict[tuple[str, str], float] = field(default_factory=_correlation)

    # Prevalent vertebral fractures: each level breaks with probability 1 - exp(-weight exp(propensity)).
    vertebral_intercept: float = -2.13
    vertebral_per_bone_quality: float = -0.60
    vertebral_per_year: float = 0.06
    vertebral_per_prior_fracture: float = 0.70
    vertebral_frailty_sd: float = 0.70
    #: Correlation of a broken vertebra's severity with the woman's standardised propensity.
    severity_correlation: float = 0.35
    #: Cumulative shares of grade 1 and of grades 1 and 2 among broken vertebrae of average propensity.
    severity_thresholds: tuple[float, float] = (0.55, 0.87)

    # Hazard.
    log_hazard: dict[str, float] = field(default_factory=_log_hazard)
    #: SD of the image's part of the log hazard.
    image_strength: float = 0.99
    #: Share of the image signal that is bone quality; the rest is vertebral fracture burden.
    #: 1 = bone quality only, 0 = fractures only; the SD of the sum stays `image_strength`.
    image_balance: float = 0.8
    #: Mean and SD of the burden log(1 + sum of grades), and its correlation with -q, under the defaults.
    burden_mean: float = 0.206
    burden_sd: float = 0.449
    burden_correlation: float = 0.28

    # Follow-up, days.
    weibull_shape: float = 1.15
    weibull_scale: float = 8_600.0
    administrative_censoring: tuple[float, float] = (2_870.0, 3_136.0)
    drop_out_mean: float = 48_906.0

    # Detection's faults in vertebrae.csv, as shares of patients.
    #: One missing box in this share of patients, and one tall box over several vertebrae in as many.
    box_faults: float = 0.02
    #: Patients in whom boxes above T4 ("neck") are listed too, where the picture shows them.
    neck_boxes: float = 0.15
    #: Patients whose picture ends too high, so that L4 is cut or missing.
    low_field_of_view: float = 0.015


DEFAULT = SimulationSettings()

# A stage's number is part of the stream: never renumber, or every simulated cohort changes.
STAGES = {
    "clinical": 0,
    "fractures": 1,
    "outcome": 2,
    "anatomy": 3,
    "texture": 4,
    "background": 5,
    "noise": 6,
    "boxes": 7,
    "death": 8,
}


def stream(seed: int, patient: int, stage: str) -> np.random.Generator:
    """The generator of one patient (0-based number) for one stage; independent of those of other patients and stages.

    So nothing depends on the order, the number of workers or the number of patients.
    """
    key = np.random.SeedSequence(entropy=seed, spawn_key=(patient, STAGES[stage]))
    return np.random.Generator(np.random.PCG64(key))


def draw_rows(seed: int, n: int, stage: str, draw: str, columns: int) -> np.ndarray:
    """`columns` draws (`draw`: a Generator method without arguments, such as "random") for each of the
    first `n` patients; float64 (n, columns). Row i does not depend on n."""
    values = np.empty((n, columns))
    for patient in range(n):
        values[patient] = getattr(stream(seed, patient, stage), draw)(columns)
    return values

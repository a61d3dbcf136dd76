"""One random stream per patient and purpose, so that nothing depends on order, workers or totals."""

from __future__ import annotations

import numpy as np

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
    """The generator of one patient (0-based number) for one stage of the simulation.

    Streams of different patients and stages are independent; the same three arguments always give the same
    draws (`numpy.random.SeedSequence` with the patient and stage as spawn key).
    """
    key = np.random.SeedSequence(entropy=seed, spawn_key=(patient, STAGES[stage]))
    return np.random.Generator(np.random.PCG64(key))


def rows(seed: int, n: int, stage: str, draw: str, columns: int) -> np.ndarray:
    """`columns` draws (`draw`: a Generator method without arguments, such as "random") for each of the
    first `n` patients; float64 (n, columns). Row i does not depend on n."""
    values = np.empty((n, columns))
    for patient in range(n):
        values[patient] = getattr(stream(seed, patient, stage), draw)(columns)
    return values

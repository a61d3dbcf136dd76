"""What every metric refuses, said once: unequal lengths, values that are not finite, negative times."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def check_survival(event: ArrayLike, time: ArrayLike, suffix: str = "") -> tuple[NDArray, NDArray]:
    """Event as bool, time as float64; a day-0 time is accepted, a negative one is not."""
    event, time = np.asarray(event), check_finite(time, f"time{suffix}")
    if time.ndim != 1 or event.shape != time.shape or len(time) == 0:
        raise ValueError(
            f"event{suffix} and time{suffix} must hold one value a patient, for at least one patient; "
            f"got shapes {event.shape} and {time.shape}"
        )
    if event.dtype != np.bool_:
        wrong = np.flatnonzero((event != 0) & (event != 1))
        if len(wrong):
            raise ValueError(f"event{suffix} must be bool or 0/1, got event{suffix}[{wrong[0]}] = {event[wrong[0]]}")
        event = event.astype(bool)
    if (time < 0).any():
        index = np.flatnonzero(time < 0)[0]
        raise ValueError(f"time{suffix} must be >= 0, got time{suffix}[{index}] = {time[index]}")
    return event, time


def check_risk(risk: ArrayLike, n: int, name: str = "risk") -> NDArray:
    """Risk as float64, one value a patient."""
    risk = check_finite(risk, name)
    if risk.shape != (n,):
        raise ValueError(f"{name} must have one value a patient: shape ({n},) wanted, got {risk.shape}")
    return risk


def check_times(times: ArrayLike, name: str = "times") -> NDArray:
    """Times as a float64 vector, strictly increasing, so that columns and times cannot be confused."""
    times = np.atleast_1d(check_finite(times, name))
    if times.ndim != 1 or len(times) == 0 or (np.diff(times) <= 0).any():
        raise ValueError(f"{name} must be at least one time, strictly increasing; got {times}")
    return times


def check_finite(values: ArrayLike, name: str) -> NDArray:
    """Values as float64; NaN and infinity are refused by name and first index."""
    values = np.asarray(values, dtype=np.float64)
    finite = np.isfinite(values)
    if not finite.all():
        index = tuple(int(i) for i in np.argwhere(~finite)[0])
        where = "" if not index else f"[{', '.join(map(str, index))}]"
        raise ValueError(f"{name} must be finite, got {name}{where} = {values[index]}")
    return values

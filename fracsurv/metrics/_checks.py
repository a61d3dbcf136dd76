"""What every metric refuses, each with a ValueError that names the argument and the value; numbers become float64."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

ROUNDING = 1e-6  # by which a probability may lie outside of 0 to 1: sums and products in float32 give 1.0000001


def survival(event: ArrayLike, time: ArrayLike, suffix: str = "") -> tuple[NDArray, NDArray]:
    """Event as bool, and time; a time of 0 is accepted, a negative one is not."""
    event, time = outcome(event, time, suffix, (0, 1))
    return event.astype(bool), time


def outcome(
    event: ArrayLike, time: ArrayLike, suffix: str = "", codes: tuple[int, ...] = (0, 1, 2)
) -> tuple[NDArray, NDArray]:
    """As `survival`, event as int8: 0 censored, 1 the event, 2 a competing event."""
    event, time = _flat(_plain(event, f"event{suffix}")), _flat(finite(time, f"time{suffix}"))
    if time.ndim != 1 or event.shape != time.shape or len(time) == 0:
        raise ValueError(
            f"event{suffix} and time{suffix} must hold one value a patient, for at least one patient; "
            f"got shapes {event.shape} and {time.shape}"
        )
    if event.dtype != np.bool_:
        if event.dtype == object:  # say, pandas' nullable booleans
            event = finite(event, f"event{suffix}")
        _refuse(~np.isin(event, codes), event, f"event{suffix}", f"bool or {'/'.join(map(str, codes))}")
    _refuse(time < 0, time, f"time{suffix}", ">= 0")
    return event.astype(np.int8), time


def risk(risk: ArrayLike, n: int, name: str = "risk") -> NDArray:
    """Finite values, one a patient: (n,), or (n, 1) as a network gives them."""
    risk = _flat(finite(risk, name))
    if risk.shape != (n,):
        raise ValueError(f"{name} must have one value a patient: shape ({n},) wanted, got {risk.shape}")
    return risk


def risk_by_time(values: ArrayLike, n: int, n_times: int) -> NDArray:
    """As `risk`, or one value a patient and time; there a column may be NaN."""
    values = _numbers(values, "risk")
    if values.ndim != 2 or values.shape == (n, 1) != (n, n_times):
        return risk(values, n)
    if values.shape != (n, n_times):
        raise ValueError(f"risk must have shape ({n},) or ({n}, {n_times}), got {values.shape}")
    finite(np.where(np.isnan(values).all(axis=0), 0.0, values), "risk")
    return values


def probability(values: ArrayLike, n: int) -> NDArray:
    """One value in [0, 1] a patient."""
    values = without_noise(risk(values, n, "probability"), 1.0)
    _refuse((values < 0) | (values > 1), values, "probability", "in [0, 1]")
    return values


def surv(surv: ArrayLike, n: int, usable: NDArray, name: str = "surv") -> NDArray:
    """Probabilities (n, n_times); columns that are not `usable` (n_times,) are not checked."""
    surv = without_noise(_numbers(surv, name), 1.0)
    if surv.ndim == 1 and len(usable) == 1:
        surv = surv[:, None]
    if surv.shape != (n, len(usable)):
        raise ValueError(
            f"{name} must have a row a patient, a column a time: shape ({n}, {len(usable)}) wanted, got {surv.shape}"
        )
    _refuse(usable & ~((surv >= 0) & (surv <= 1)), surv, name, "in [0, 1]")
    return surv


def without_noise(values: NDArray, high: float = np.inf) -> NDArray:
    """`values` clipped to [0, high] where they lie outside by rounding errors."""
    return np.where((values >= -ROUNDING) & (values <= high + ROUNDING), values.clip(0, high), values)


def times(times: ArrayLike, name: str = "times") -> NDArray:
    """A vector, strictly increasing, so that columns and times cannot be confused."""
    times = np.atleast_1d(finite(times, name))
    if times.ndim != 1 or len(times) == 0 or (np.diff(times) <= 0).any():
        raise ValueError(f"{name} must be at least one time, strictly increasing; got {times}")
    return times


def time(value: float, name: str, *, above: float = -np.inf) -> float:
    """One finite number, above `above`."""
    number = _plain(value, name)
    if number.ndim or number.dtype == object or not (np.isfinite(number) and number > above):
        raise ValueError(f"{name} must be one finite time{' above 0' if above == 0 else ''}, got {value}")
    return float(number)


def whole(value: int, name: str, minimum: int) -> int:
    """One whole number, at least `minimum`."""
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | np.integer) or value < minimum:
        raise ValueError(f"{name} must be a whole number, at least {minimum}, got {value!r}")
    return int(value)


def finite(values: ArrayLike, name: str) -> NDArray:
    """Numbers of any shape; NaN, infinity and what is no number are refused."""
    values = _numbers(values, name)
    _refuse(~np.isfinite(values), values, name, "finite")
    return values


def _numbers(values: ArrayLike, name: str) -> NDArray:
    values = _plain(values, name)
    try:
        return values.astype(np.float64, copy=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must be numbers: {error}") from None


def _flat(values: NDArray) -> NDArray:
    """One column, (n, 1), as (n,)."""
    return values[:, 0] if values.ndim == 2 and values.shape[1] == 1 else values


def _plain(values: ArrayLike, name: str) -> NDArray:
    """An array of plain numbers: durations would be taken as nanoseconds, dates as those since 1970."""
    try:
        values = np.asarray(values)
    except (TypeError, ValueError, RuntimeError) as error:  # say, a tensor in bfloat16, or one that has a gradient
        raise ValueError(f"{name} must be numbers that NumPy can read: {error}") from None
    if values.dtype.kind not in "biufO":
        what = "dates or durations" if values.dtype.kind in "mM" else str(values.dtype)
        raise ValueError(f"{name} must be plain numbers, got {what}")
    return values


def _refuse(wrong: NDArray, values: NDArray, name: str, rule: str) -> None:
    """Name the first of the values that are `wrong`, if any is."""
    if wrong.any():
        index = tuple(int(i) for i in np.argwhere(wrong)[0])
        where = "" if not index else f"[{', '.join(map(str, index))}]"
        raise ValueError(f"{name} must be {rule}, got {name}{where} = {values[index]}")

"""Definitions written out as loops over patients and pairs: slow, and simple enough to be read as correct."""

from __future__ import annotations

import math

import numpy as np


def cox_nll(event, time, risk, *, ties="efron", strata=None, weights=None):
    """Negative log partial likelihood (sum), by its definition for each distinct event time of each stratum."""
    n = len(time)
    strata = np.zeros(n) if strata is None else strata
    weights = np.ones(n) if weights is None else weights
    total = 0.0
    for s in set(strata):
        for t in {time[i] for i in range(n) if event[i] and strata[i] == s}:
            tied = [i for i in range(n) if event[i] and time[i] == t and strata[i] == s and weights[i] > 0]
            at_risk = sum(weights[j] * math.exp(risk[j]) for j in range(n) if time[j] >= t and strata[j] == s)
            sum_tied = sum(weights[i] * math.exp(risk[i]) for i in tied)
            mean_weight = sum(weights[i] for i in tied) / max(len(tied), 1)
            for turn, i in enumerate(tied):
                share = turn / len(tied) if ties == "efron" else 0.0
                total += mean_weight * math.log(at_risk - share * sum_tied) - weights[i] * risk[i]
    return total


def concordance(event, time, risk, weight=None):
    """(concordant, discordant, tied in risk, tied in time, index); `weight` is that of the earlier event."""
    n = len(time)
    weight = np.ones(n) if weight is None else weight
    concordant = discordant = tied_risk = tied_time = 0
    numerator = denominator = 0.0
    for i in range(n):
        for j in range(n):
            later = time[j] > time[i] or (time[j] == time[i] and not event[j])
            if not event[i] or not later:
                continue
            tied_time += time[j] == time[i]
            concordant += risk[i] > risk[j]
            discordant += risk[i] < risk[j]
            tied_risk += risk[i] == risk[j]
            numerator += weight[i] * (1.0 if risk[i] > risk[j] else 0.5 if risk[i] == risk[j] else 0.0)
            denominator += weight[i]
    index = numerator / denominator if denominator > 0 else math.nan
    return concordant, discordant, tied_risk, tied_time, index


def kaplan_meier(event, time, at, *, censoring=False):
    """P(T > at); for the censoring time, the events at a time leave before its censorings."""
    survival = 1.0
    for t in sorted(set(time)):
        if t > at:
            break
        n_events = sum(e and u == t for e, u in zip(event, time, strict=True))
        n_all = sum(u == t for u in time)
        at_risk = sum(u >= t for u in time)
        if censoring:
            at_risk, n_leaving = at_risk - n_events, n_all - n_events
        else:
            n_leaving = n_events
        if n_leaving:
            survival *= 1 - n_leaving / at_risk
    return survival


def censoring_weight(event_train, time_train, at):
    """1 / G(at), 0 where G is 0 or unknown."""
    g = 0.0 if at > max(time_train) else kaplan_meier(event_train, time_train, at, censoring=True)
    return 1 / g if g > 0 else 0.0


def auc(event, time, risk, at, weight=None):
    """AUC at a time; `weight` is that of the cases."""
    n = len(time)
    weight = np.ones(n) if weight is None else weight
    numerator = denominator = 0.0
    for i in range(n):
        for j in range(n):
            if event[i] and time[i] <= at < time[j]:
                numerator += weight[i] * (1.0 if risk[i] > risk[j] else 0.5 if risk[i] == risk[j] else 0.0)
                denominator += weight[i]
    return numerator / denominator if denominator > 0 else math.nan


def brier(event_train, time_train, event, time, surv, at):
    """Brier score at a time."""
    total = 0.0
    for e, t, s in zip(event, time, surv, strict=True):
        if e and t <= at:
            total += s**2 * censoring_weight(event_train, time_train, t)
        elif t > at:
            total += (1 - s) ** 2 * censoring_weight(event_train, time_train, at)
    return total / len(time)


def breslow(event, time, risk, new_risk, at):
    """Survival probability at a time by Breslow's baseline."""
    hazard = 0.0
    for e, t in zip(event, time, strict=True):
        if e and t <= at:
            hazard += 1 / sum(math.exp(r) for u, r in zip(time, risk, strict=True) if u >= t)
    return math.exp(-hazard * math.exp(new_risk))


def cumulative_incidence(event, time, at, cause=1):
    """Aalen-Johansen: at each time, the share still free of both events times that of those at risk who have it."""
    free, total = 1.0, 0.0
    for t in sorted({u for u in time if u <= at}):
        at_risk = sum(u >= t for u in time)
        n_cause = sum(e == cause and u == t for e, u in zip(event, time, strict=True))
        n_any = sum(e != 0 and u == t for e, u in zip(event, time, strict=True))
        total += free * n_cause / at_risk
        free *= 1 - n_any / at_risk
    return total


def competing_auc(event_train, time_train, event, time, risk, at):
    """AUC at a time; controls are all of whom it is known that they had no event of cause 1 by then."""
    n = len(time)
    known = [event[i] != 0 or time[i] > at for i in range(n)]
    weight = [censoring_weight(np.array(event_train) != 0, time_train, min(time[i], at)) for i in range(n)]
    numerator = denominator = 0.0
    for i in range(n):
        for j in range(n):
            if event[i] == 1 and time[i] <= at and known[j] and not (event[j] == 1 and time[j] <= at):
                both = weight[i] * weight[j]
                numerator += both * (1.0 if risk[i] > risk[j] else 0.5 if risk[i] == risk[j] else 0.0)
                denominator += both
    return numerator / denominator if denominator > 0 else math.nan


def competing_brier(event_train, time_train, event, time, incidence, at):
    """Brier score at a time of the probability of cause 1 by then."""
    total = 0.0
    for e, t, p in zip(event, time, incidence, strict=True):
        if e != 0 or t > at:
            weight = censoring_weight(np.array(event_train) != 0, time_train, min(t, at))
            total += weight * ((e == 1 and t <= at) - p) ** 2
    return total / len(time)


def wolbers(event_train, time_train, event, time, risk, tau=math.inf):
    """Weighted concordance of the events of cause 1 before tau with who is later, or had another event before."""
    weight = [censoring_weight(np.array(event_train) != 0, time_train, t) for t in time]
    numerator = denominator = 0.0
    for i in range(len(time)):
        if event[i] != 1 or time[i] >= tau:
            continue
        for j in range(len(time)):
            if time[j] > time[i] or (time[j] == time[i] and event[j] == 0):
                pair = weight[i] ** 2
            elif event[j] == 2:
                pair = weight[i] * weight[j]
            else:
                continue
            numerator += pair * (1.0 if risk[i] > risk[j] else 0.5 if risk[i] == risk[j] else 0.0)
            denominator += pair
    return numerator / denominator if denominator > 0 else math.nan


def absolute_risk(event, time, risk, other_risk, new_risk, new_other, at):
    """Probability of event 1 by a time from two Breslow hazards, whose ratio is constant within each step."""
    total, free = 0.0, 1.0
    for t in sorted({u for e, u in zip(event, time, strict=True) if e and u <= at}):
        steps = []
        for cause, known, new in ((1, risk, new_risk), (2, other_risk, new_other)):
            n_events = sum(e == cause and u == t for e, u in zip(event, time, strict=True))
            at_risk = sum(math.exp(r) for u, r in zip(time, known, strict=True) if u >= t)
            steps.append(math.exp(new) * n_events / at_risk)
        total += free * (1 - math.exp(-sum(steps))) * steps[0] / sum(steps)
        free *= math.exp(-sum(steps))
    return total

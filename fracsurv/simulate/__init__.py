"""The simulated cohort: clinical variables, spine anatomy, radiographs, outcome with its true risk."""

from fracsurv.simulate.outcome import (
    DeathSettings,
    calibrated_scale,
    clinical_log_hazard,
    death_times,
    image_log_hazard,
    simulate_outcome,
)
from fracsurv.simulate.patients import simulate_clinical
from fracsurv.simulate.settings import DEFAULT, SimulationSettings
from fracsurv.simulate.writer import simulate_cohort, simulate_tables

__all__ = [
    "DEFAULT",
    "DeathSettings",
    "SimulationSettings",
    "calibrated_scale",
    "clinical_log_hazard",
    "death_times",
    "image_log_hazard",
    "simulate_clinical",
    "simulate_cohort",
    "simulate_outcome",
    "simulate_tables",
]

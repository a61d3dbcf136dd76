"""The simulated cohort: clinical variables, spine anatomy, radiographs, outcome with its true risk."""

from fracsurv.cohort.boxes import LEVELS

from .clinical import simulate_clinical
from .death import DeathSettings, death_times, with_death
from .fractures import simulate_fractures
from .outcome import calibrated_scale, clinical_log_hazard, image_log_hazard, simulate_outcome
from .settings import COVARIATES, DEFAULT, SimulationSettings
from .writer import simulate_cohort, simulate_tables

__all__ = [
    "COVARIATES",
    "DEFAULT",
    "LEVELS",
    "DeathSettings",
    "SimulationSettings",
    "calibrated_scale",
    "clinical_log_hazard",
    "death_times",
    "image_log_hazard",
    "simulate_clinical",
    "simulate_cohort",
    "simulate_fractures",
    "simulate_outcome",
    "simulate_tables",
    "with_death",
]

"""Figures from plain arrays and tables. Every function returns a matplotlib Figure and writes nothing.

Shared arguments: `event` (n,) bool, True = event, or 0, 1 and 2 (a competing event); `time` (n,) in `time_unit`, > 0;
`labels`, from the keys of experiments, models, groups or columns to their names, in the order to draw; `outcome`,
what the event is called.

Each takes `provenance`, a few words such as 'simulated cohort', which it stamps small above the axes, so that a
figure that leaves its page still says what its numbers were made from.
"""

from fracsurv.cohort.boxes import LEVELS
from fracsurv.plots.ablation import forest, subgroups
from fracsurv.plots.calibration import CalibrationPanel, calibration, decision_curve
from fracsurv.plots.covariates import coefficient_forest, exact_band
from fracsurv.plots.explanation import contributions, heat_maps
from fracsurv.plots.images import (
    augmentation_samples,
    corrections,
    crop_montage,
    grade_matrix,
    keypoints,
    radiograph_with_slots,
)
from fracsurv.plots.style import COLOURS, as_png, as_svg, name_rows, new_figure, set_style, time_axis

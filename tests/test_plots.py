"""Figures: what they draw against hand counts, units on every axis, labels that do not overlap."""

from itertools import combinations

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from lifelines import KaplanMeierFitter
from matplotlib.backends.backend_agg import FigureCanvasAgg

from fracsurv import metrics, plots
from fracsurv.plots.ablation import FAINT, ratio_ticks
from fracsurv.plots.images import STATES, shortened
from fracsurv.study.time_dependent import event_share, risk_tertiles

YEAR = 365.25


@pytest.fixture(autouse=True)
def _style():
    before = dict(mpl.rcParams)
    plots.set_style()
    yield
    mpl.rcParams.update(before)


def texts(axes):
    return [text.get_text() for text in axes.texts]


def stamped(figure, words):
    return words in [text.get_text() for text in figure.texts]


def ticks(axis):
    return [tick.get_text() for tick in axis.get_ticklabels()]


def legend(of):
    return [text.get_text() for text in of.get_texts()]


def boxes_of(figure, artists):
    """Where they are drawn, in pixels."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return [artist.get_window_extent(canvas.get_renderer()) for artist in artists]


def small_cohort(n=60, seed=3):
    rng = np.random.default_rng(seed)
    group = rng.integers(0, 2, n)
    time = rng.exponential(np.where(group == 1, 1500, 4000)) + 10
    event = rng.random(n) < 0.7
    return event, np.minimum(time, 3000), group


def test_coefficient_forest_draws_ratios_and_intervals_by_fold():
    rows = [("age", 0, 2.0, 1.5, 3.0), ("bmi", 0, 0.9, np.nan, np.nan), ("age", 1, 8.0, 0.01, 90.0)]
    table = pd.DataFrame(rows, columns=["covariate", "fold", "ratio", "low", "high"])
    axes = plots.coefficient_forest(table, {"age": "Age (per SD)", "bmi": "BMI (per SD)"}).axes[0]
    points = {
        line.get_label(): line.get_xdata().tolist() for line in axes.lines if line.get_label().startswith("fold")
    }
    assert points == {"fold 1": [2.0, 0.9], "fold 2": [8.0]}  # bmi was left out of the second fold
    drawn = [[each[:, 0].tolist() for each in lines.get_segments() if len(each)] for lines in axes.collections]
    assert drawn[0][0] == [1.5, 3.0]
    assert drawn[1] == [[0.05, 20.0]]  # cut at the edges of the axis
    assert "Hazard ratio" in axes.get_xlabel()


def test_coefficient_forest_marks_ratios_beyond_its_edges():
    rows = [("rare", 0, 1e9, 0.1, np.inf), ("never", 0, 1e-4, np.nan, np.nan), ("age", 0, 1.2, 1.0, 1.4)]
    table = pd.DataFrame(rows, columns=["covariate", "fold", "ratio", "low", "high"])
    axes = plots.coefficient_forest(table, {"rare": "Rare", "never": "Never", "age": "Age"}).axes[0]
    drawn = {line.get_marker(): line.get_xydata().tolist() for line in axes.lines if line.get_marker() in "<>"}
    assert drawn == {"<": [[0.05, 1.0]], ">": [[20.0, 0.0]]}


def test_radiograph_draws_a_box_for_each_state():
    boxes = np.array([[10, y, 30, y + 8] for y in range(0, 140, 10)] + [[5, 0, 40, 60]], float)
    index = np.array([*range(1, 7), -1, *range(8, 14)])
    figure = plots.radiograph_with_slots([np.full((160, 60), 9)], [boxes], [index], 20.0, ["P1"])
    colours = [mpl.colors.to_hex(patch.get_edgecolor()) for patch in figure.axes[0].patches]
    # 14 boxes: 12 in slots, 1 taller than 20; boxes 0 and 7 in no slot; slot 6 (T10) is empty
    wanted = {"used": 12, "too tall": 1, "topmost, dropped": 2, "empty slot": 1}
    assert {name: colours.count(colour) for name, colour in STATES.items()} == wanted
    assert texts(figure.axes[0])[-1].strip() == "T10"


def test_long_ids_are_shortened_in_the_middle():
    assert shortened("P00017") == "P00017"
    assert shortened("12_jpg.rf.37ddaa041791c4bb20f98a283b7ca083") == "12_jpg.rf.…83b7ca083"
    assert len(shortened("x" * 40)) == 20


def test_crop_montage_names_slots_and_says_empty():
    crops = np.ones((2, 13, 6, 8), np.uint8)
    crops[1, 4] = 0
    figure = plots.crop_montage(crops, ["P1", "P2"])
    assert [axes.get_title() for axes in figure.axes[:13]] == list(plots.LEVELS)
    assert [i for i, axes in enumerate(figure.axes) if "empty" in texts(axes)] == [13 + 4]


def ablation_rows():
    rows = []
    for split, shift in (("validation", 0.0), ("test", 0.02), ("external", 0.01)):
        for name, kind, mean in (("cox_ph", "none", 0.6), ("cds_crops_if", "crops", 0.65)):
            rows.append((name, kind, split, "c_index", mean + shift, mean - 0.05, mean + 0.07, 100))
    columns = ["experiment", "input", "split", "metric", "mean", "ci_low", "ci_high", "n_patients"]
    return pd.DataFrame(rows, columns=columns)


def test_forest_draws_means_intervals_the_reference_and_what_chance_makes():
    labels = {"cox_ph": "Cox PH", "cds_crops_if": "C-DS, crops"}
    figure = plots.forest(ablation_rows(), labels, ["external", "test"], chance={"test": (0.4, 0.6)})
    axes, second = figure.axes
    assert axes.get_title(loc="left") == "external (n = 100)"
    assert [line.get_xdata()[0] for line in axes.lines] == pytest.approx([0.61, 0.61, 0.66])
    np.testing.assert_allclose(axes.collections[1].get_segments()[0][:, 0], [0.60, 0.72])
    assert ticks(axes.yaxis) == list(labels.values())
    assert len(axes.patches) == 0
    band = second.patches[0]
    assert (band.get_x(), band.get_width()) == (pytest.approx(0.4), pytest.approx(0.2))


def test_calibration_shows_its_groups_and_bounds():
    # Low group: nobody has an event by day 100, of whom three are followed to it, one is censored before.
    # High group: everybody has one, the last two on day 100 itself.
    probability = np.array([0.1, 0.1, 0.1, 0.1, 0.9, 0.9, 0.9, 0.9])
    time = np.array([60.0, 100, 200, 300, 20, 40, 100, 100])
    event = np.array([False, False, True, False, True, True, True, True])
    groups = metrics.calibration(event, time, probability, 100, n_groups=2)
    line = np.linspace(0.1, 0.9, 5)
    axes = plots.calibration({"model": plots.CalibrationPanel(groups, line, line**2, "slope 1.00")}, 100).axes[0]
    np.testing.assert_array_equal(axes.lines[1].get_ydata(), line**2)
    assert texts(axes) == ["slope 1.00"]
    np.testing.assert_allclose(np.asarray(axes.containers[0][0].get_ydata(), float), [0, 1])
    bars = axes.containers[0][2][0].get_segments()
    np.testing.assert_allclose([bar[:, 1] for bar in bars], [[0, 0.7075982261787133], [0.3976353643835254, 1]])
    assert axes.get_ylim() == (0, 1)
    assert not axes.containers[0][0].get_clip_on()  # else half of a point at 0 or 1 is cut off


def test_decision_curve_draws_per_thousand_with_both_defaults():
    curves = {"cox_ph": np.array([0.1, 0.05, np.nan]), "true_risk": np.array([0.12, 0.08, 0.02])}
    labels, everyone = {"cox_ph": "Cox PH", "true_risk": "True"}, np.array([0.1, 0.0, -0.1])
    figure = plots.decision_curve(np.array([0.1, 0.2, 0.3]), curves, everyone, labels, provenance="made up")
    axes = figure.axes[0]
    np.testing.assert_allclose(axes.lines[0].get_ydata(), [100, 50, np.nan])
    np.testing.assert_allclose(axes.lines[2].get_ydata(), [100, 0, -100])
    np.testing.assert_allclose(axes.lines[0].get_xdata(), [10, 20, 30])
    assert legend(axes.get_legend()) == ["Cox PH", "True", "acting on everyone", "acting on nobody"]
    assert "1,000 patients" in axes.get_ylabel()
    assert stamped(figure, "made up")


def test_subgroups_draws_small_groups_in_grey():
    rows = [
        {"label": label, "small": small, "experiment": name, "c_index": c, "ci_low": c - 0.1, "ci_high": c + 0.1,
         "ratio": 1.1, "ratio_low": 0.9, "ratio_high": 1.3}
        for label, small in (("All", False), ("few", True)) for name, c in (("a", 0.6), ("b", 0.7))
    ]  # fmt: skip
    drawn = pd.DataFrame(rows)
    figure = plots.subgroups(drawn, {"a": "A", "b": "B"}, "O/E at 5 years", small="too few")
    c_index, ratio = figure.axes
    colours = [line.get_color() for line in c_index.lines[1:]]
    assert len(set(colours[:2])) == 2
    assert colours[2] == colours[3] == FAINT
    assert legend(figure.legends[0]) == ["A", "B", "too few"]
    assert ticks(c_index.yaxis) == ["All", "few"]
    assert ratio.get_xlabel() == "O/E at 5 years"
    assert ticks(ratio.xaxis) == ["1", "1.25"]  # more than one, all within the axis
    assert ratio.get_xlim()[0] < 0.9 < 1.3 < ratio.get_xlim()[1]
    assert len(plots.subgroups(drawn.drop(columns="ratio"), {"a": "A", "b": "B"}, "").axes) == 1


def test_contributions_draw_medians_of_those_who_have_the_vertebra():
    values = np.stack([np.arange(13.0) + k for k in (0, 1, 2)])[None]
    values[0, 0, 5] = np.nan
    figure = plots.contributions(values, plots.LEVELS, ["model"], provenance="made up")
    middle = figure.axes[0].lines[1].get_xdata()
    np.testing.assert_allclose(middle, np.where(np.arange(13) == 5, 6.5, np.arange(13) + 1))
    assert stamped(figure, "made up")


def test_heat_maps_share_one_scale_with_its_meaning():
    maps = [np.ones((4, 3)), np.full((4, 3), 3.0)]
    figure = plots.heat_maps([np.zeros((4, 3))] * 2, maps, ["a", "b"], provenance="made up")
    images = [axes.images[1] for axes in figure.axes[:2]]
    assert {image.get_clim() for image in images} == {(0, 3.0)}
    assert figure.axes[-1].get_ylabel() == "against the mean place"


def test_risk_tertiles_are_thirds():
    np.testing.assert_array_equal(risk_tertiles(np.array([0.9, 0.1, 0.5, 0.2, 0.8, 0.6])), [2, 0, 1, 0, 2, 1])


def test_event_share_is_one_minus_kaplan_meier():
    event, time = np.array([True, False, True, False]), np.array([1.0, 2, 3, 4])
    assert [event_share(event, time, at) for at in (0.5, 1, 3)] == [0, 0.25, 0.625]


def calibration_panels(n):
    rng = np.random.default_rng(0)
    time, event, probability = rng.exponential(2000, 60), rng.random(60) < 0.7, rng.uniform(0.1, 0.9, 60)
    groups = metrics.calibration(event, time, probability, 1826.0)
    smooth = metrics.smooth_calibration(event, time, probability, 1826.0)
    words = "slope 13.08 [−80.14, 54.75]\nintercept 0.12\nICI 1.6 %"
    panel = plots.CalibrationPanel(groups, smooth.predicted, smooth.observed, words)
    names = [
        "Cox PH",
        "C-DS end to end, crops, IF-MLP",
        "True risk (simulator)",
        "DeepSurv + vertebral fractures",
        "x",
    ]
    return dict.fromkeys(names[:n], panel)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5])
def test_calibrations_words_and_legend_are_clear_of_everything(n):
    figure = plots.calibration(calibration_panels(n), 1826.0, provenance="external · simulated cohort · profile tiny")
    shown = [axes for axes in figure.axes if axes.get_visible()]
    others = [*figure.legends, *figure.texts]  # the labels of both axes are among these
    places = boxes_of(figure, others + [text for axes in shown for text in (axes.title, *axes.texts)])
    assert all(each.x0 >= 0 and each.x1 <= figure.bbox.width and each.y1 <= figure.bbox.height for each in places)
    assert not any(a.overlaps(b) for a, b in combinations(places, 2))
    for axes, box in zip(shown, boxes_of(figure, [axes.patch for axes in shown]), strict=True):
        assert all(text.y0 >= box.y1 for text in boxes_of(figure, axes.texts))  # no interval runs through them


@pytest.mark.parametrize("n", [1, 2, 4])
def test_contributions_label_is_not_cut(n):
    values = [np.random.default_rng(0).normal(size=(2, 9, 13)).mean(axis=0)] * n
    figure = plots.contributions(values, plots.LEVELS, ["C-DS end to end\ncrops, IF-MLP"] * n, provenance="x")
    (place,) = boxes_of(figure, [figure._supxlabel])
    assert place.x0 >= 0
    assert place.x1 <= figure.bbox.width


@pytest.mark.parametrize(("low", "high"), [(0.02, 30), (0.3, 4), (0.8, 1.3), (0.45, 9)])
def test_ratios_ticks_have_room(low, high):
    ticks = ratio_ticks(low, high)
    assert 1.0 in ticks
    assert len(ticks) > 1
    assert (np.diff(np.log(ticks)) >= 0.11 * np.log(high / low) - 1e-9).all()


def test_the_same_figure_gives_the_same_bytes_and_dollar_signs_are_no_formulas():
    plots.set_style()

    def drawn():
        figure = plots.new_figure(3, 2, "cost $x^2$ and $")
        figure.subplots().plot([1, 2], [3, 4])
        return plots.as_svg(figure)

    assert drawn() == drawn()


def test_a_decision_curve_of_which_nothing_is_known_is_empty():
    """Where follow-up ends before the horizon with somebody free of the event."""
    unknown, thresholds = np.full(3, np.nan), np.array([0.1, 0.2, 0.3])
    axes = plots.decision_curve(thresholds, {"a": unknown}, unknown, {"a": "A"}).axes[0]
    assert axes.get_ylim() == pytest.approx((-0.12, 1.06))


def test_a_kaplan_meier_band_has_its_width_where_nobody_or_everybody_had_the_event():
    fitter = KaplanMeierFitter(label="all").fit([1, 2, 3, 4, 5], [0, 1, 0, 1, 1])
    before = fitter.confidence_interval_.copy()
    after = plots.exact_band(fitter).confidence_interval_
    # R: binom.test(0, 5)$conf.int is 0 to 0.5218238, binom.test(3, 3)$conf.int is 0.2924018 to 1
    np.testing.assert_allclose(after.iloc[:2].to_numpy(), [[1 - 0.5218238, 1]] * 2, atol=1e-7)
    np.testing.assert_allclose(after.iloc[5].to_numpy(), [0, 1 - 0.2924018], atol=1e-7)
    pd.testing.assert_frame_equal(after.iloc[2:5], before.iloc[2:5])
    figure, axes = plt.subplots()
    fitter.plot_cumulative_density(ax=axes)
    shaded = axes.collections[0].get_paths()[0].vertices[:, 1]
    assert any(np.isclose(shaded, 0.5218238))
    plt.close(figure)
    never = plots.exact_band(KaplanMeierFitter().fit([1, 2], [0, 0])).confidence_interval_
    np.testing.assert_allclose(never.iloc[:, 0], [0.025**0.5, 0.025**0.5, 0.025])

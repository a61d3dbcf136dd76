"""Figures: what they draw against hand counts, units on every axis, labels that do not overlap."""

from itertools import combinations

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from lifelines.statistics import logrank_test
from matplotlib.backends.backend_agg import FigureCanvasAgg

from fracsurv import metrics, plots
from fracsurv.plots.ablation import FAINT, ratio_ticks
from fracsurv.plots.images import STATES, shortened
from fracsurv.plots.style import COLOURS, GREY, ink
from fracsurv.study.time_dependent import event_share, risk_tertiles, standardised_differences
from fracsurv.utils.formatting import format_p

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


def test_numbers_at_risk_counts_who_is_followed_until_then():
    # by hand: times 1, 2, 2, 5; at 2 the two with time 2 are still at risk, at 2.5 only the one with 5
    assert plots.numbers_at_risk(np.array([1.0, 2.0, 2.0, 5.0]), [0, 1, 2, 2.5, 5, 6]) == [4, 4, 3, 1, 1, 0]


def test_kaplan_meier_shows_numbers_at_risk_p_units_and_provenance():
    event, time, group = small_cohort()
    figure = plots.kaplan_meier(event, time, group, {0: "no", 1: "yes"}, provenance="simulated cohort")
    axes, table = figure.axes
    at_risk = [str((time[group == value] >= tick * YEAR).sum()) for value in (0, 1) for tick in axes.get_xticks()]
    assert texts(table) == at_risk
    p = logrank_test(time[group == 0], time[group == 1], event[group == 0], event[group == 1]).p_value
    assert format_p(p) in texts(axes)[0]
    assert table.get_xlabel().endswith("years")
    assert axes.get_ylabel().endswith("%")
    assert stamped(figure, "simulated cohort")
    assert legend(axes.get_legend()) == [f"no (n = {(group == 0).sum()})", f"yes (n = {(group == 1).sum()})"]


@pytest.mark.parametrize(("unit", "days"), [("days", YEAR), ("months", 1.0)])
def test_kaplan_meier_steps_lie_on_the_estimate_and_days_alone_are_drawn_as_years(unit, days):
    # 4 patients, events at 1 and 3: S = 3/4 after the first, 3/4 · 1/2 after the second
    event, time = np.array([True, False, True, False]), np.array([1, 2, 3, 4]) * days
    axes, table = plots.kaplan_meier(event, time, np.zeros(4), {0: "all"}, time_unit=unit).axes
    steps = dict(zip(*np.round(axes.lines[0].get_data(), 6), strict=True))
    assert (steps[1.0], steps[3.0]) == (0.75, 0.375)
    assert table.get_xlabel().endswith("years" if unit == "days" else unit)
    assert "p" not in texts(axes)[0].split()  # of one group nothing is tested


def test_spread_keeps_order_and_gap_and_moves_no_more_than_needed():
    placed = plots.spread([0.5, 0.52, 0.1, 0.51], 0.1)
    assert np.diff(np.sort(placed)).min() >= 0.1 - 1e-12
    assert list(np.argsort(placed)) == [2, 0, 3, 1]
    # by hand: three labels at 0.50, 0.51, 0.52 stay centred on 0.51
    np.testing.assert_allclose(placed, [0.41, 0.61, 0.1, 0.51], atol=1e-12)
    np.testing.assert_array_equal(plots.spread([0.9, 0.1], 0.1), [0.9, 0.1])


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


def test_box_heights_mark_the_limit():
    axes = plots.box_heights(np.array([50.0, 60.0, 240.0]), 230.0).axes[0]
    assert axes.lines[0].get_xdata()[0] == 230
    assert "pixels" in axes.get_xlabel()
    assert sum(patch.get_height() for patch in axes.patches) == 3
    axes.figure.draw_without_rendering()
    assert {"1", "10"} <= {tick.get_text() for tick in axes.get_yticklabels()}


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


def test_learning_curves_ring_the_best_validated_epoch():
    history = pd.DataFrame({
        "fold": 0, "epoch": [1, 2, 3, 4], "train_c_index": [0.5, 0.6, 0.7, 0.8], "train_loss": [4.0, 3, 2, 1],
        "validation_c_index": [np.nan, 0.62, np.nan, 0.58], "validation_loss": [np.nan, 3.5, np.nan, 3.9],
    })  # fmt: skip
    c_index, loss = plots.learning_curves(history).axes
    assert (c_index.lines[2].get_xdata()[0], c_index.lines[2].get_ydata()[0]) == (2, 0.62)
    assert (loss.lines[2].get_xdata()[0], loss.lines[2].get_ydata()[0]) == (2, 3.5)


def test_alpha_sweep_draws_the_mean_and_rings_the_choice():
    rows = [(0.3, 0, 0.5, False), (0.3, 1, 0.6, False), (0.8, 0, 0.7, True), (0.8, 1, 0.6, True)]
    sweep = pd.DataFrame(rows, columns=["alpha", "fold", "validation_c_index", "selected"])
    axes = plots.alpha_sweep({"model": sweep}).axes[0]
    np.testing.assert_allclose(axes.lines[1].get_ydata(), [0.55, 0.65])
    assert axes.lines[2].get_xdata()[0] == 0.8


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


def test_dollar_signs_are_not_formulas():
    figure = plots.box_heights(np.array([1.0, 2.0]), 3.0, provenance="cost $x^2$ and $")
    assert b"<svg" in plots.as_svg(figure)


def test_the_same_figure_gives_the_same_bytes():
    first, second = (plots.as_svg(plots.box_heights(np.arange(1.0, 9), 5.0)) for _ in range(2))
    assert first == second


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


@pytest.mark.parametrize("colour", [*COLOURS, "#ffffff", "#000000", GREY])
def test_ink_can_be_read_on_white(colour):
    def luminance(code: str) -> float:
        channels = [int(code[k : k + 2], 16) / 255 for k in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    dark = ink(colour)
    assert 1.05 / (luminance(dark) + 0.05) > 4.45  # as it is rounded to bytes
    assert luminance(dark) <= luminance(colour)
    if 1.05 / (luminance(colour) + 0.05) >= 4.5:
        assert dark == colour


def test_covariate_distributions_give_shares_of_those_known():
    values = pd.DataFrame({"a": [1.0, 2.0, np.nan, 4.0, 5.0, 9.0], "b": [0, 1, np.nan, 1, 0, 1]})
    event = np.array([True, False, True, True, False, False])
    names = {"a": "A, years", "b": "B"}
    figure = plots.covariate_distributions(values, event, {"a": "continuous", "b": "binary"}, names)
    histogram, shares = figure.axes
    assert histogram.get_xlabel() == "A, years"
    assert histogram.get_ylim()[1] == pytest.approx(50 * 1.05 * 1.25)  # each of two with an event is a half
    without, have = (line.get_xdata()[0] for line in shares.lines)
    assert (without, have) == (pytest.approx(200 / 3), pytest.approx(50))  # of the two who are known


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


def test_factor_losses_draw_folds_and_their_mean():
    table = pd.DataFrame({"experiment": "a", "fold": [0, 1], "factor": "age", "loss": [0.01, 0.03],
                          "ci_low": -0.01, "ci_high": 0.06})  # fmt: skip
    axes = plots.factor_losses(table, {"age": "Age, years"}, {"a": "A"}).axes[0]
    np.testing.assert_allclose(axes.lines[1].get_xdata(), [0.01, 0.03])
    assert axes.lines[2].get_xdata()[0] == pytest.approx(0.02)
    np.testing.assert_allclose(axes.collections[0].get_segments()[0][:, 0], [-0.01, 0.06])
    assert ticks(axes.yaxis) == ["Age, years"]


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


def test_standardised_differences_leave_out_constants():
    values = pd.DataFrame({"x": [0.0, 0, 1, 1], "same": [2.0] * 4})
    found = standardised_differences(values, np.array([False, False, True, True]))
    assert list(found.index) == ["x"]
    assert found["x"] == pytest.approx(1 / np.std([0, 0, 1, 1], ddof=1))


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


@pytest.mark.parametrize("n_folds", [2, 5, 8])
def test_learning_curves_legend_is_whole_and_covers_no_line(n_folds):
    rows = [{"fold": fold, "epoch": epoch, "train_c_index": 0.5 + epoch / 10, "validation_c_index": 0.5 + epoch / 20,
             "train_loss": 4.0 - epoch, "validation_loss": 4.0 - epoch / 2}
            for fold in range(n_folds) for epoch in (1, 2)]  # fmt: skip
    figure = plots.learning_curves(pd.DataFrame(rows), title="C-DS", provenance="x")
    legend, *panels = boxes_of(figure, [figure.legends[0], *(axes.patch for axes in figure.axes)])
    assert legend.x0 >= 0
    assert legend.x1 <= figure.bbox.width
    assert not any(legend.overlaps(panel) for panel in panels)


def test_kaplan_meiers_legend_and_p_cover_no_curve():
    event, time, group = small_cohort()
    figure = plots.kaplan_meier(event, time, group, {0: "no", 1: "yes"}, title="Cox PH", provenance="x")
    axes = figure.axes[0]
    box, legend, words, title = boxes_of(figure, [axes.patch, axes.get_legend(), axes.texts[0], axes.title])
    assert min(legend.y0, words.y0, title.y0) >= box.y1 - 1
    assert not legend.overlaps(words)
    assert title.y0 >= max(legend.y1, words.y1)


def test_a_group_that_is_not_tested_is_grey_and_moves_no_p():
    event, time, group = small_cohort()
    group = np.where(np.arange(60) < 15, 2, group)
    names = {0: "no", 1: "yes", 2: "not known"}
    figure = plots.kaplan_meier(event, time, group, names, tested=[0, 1])
    p = logrank_test(time[group == 0], time[group == 1], event[group == 0], event[group == 1]).p_value
    assert format_p(p) in texts(figure.axes[0])[0]
    assert [line.get_color() for line in figure.axes[0].lines] == [*COLOURS[:2], GREY]


@pytest.mark.parametrize(("low", "high"), [(0.02, 30), (0.3, 4), (0.8, 1.3), (0.45, 9)])
def test_ratios_ticks_have_room(low, high):
    ticks = ratio_ticks(low, high)
    assert 1.0 in ticks
    assert len(ticks) > 1
    assert (np.diff(np.log(ticks)) >= 0.11 * np.log(high / low) - 1e-9).all()

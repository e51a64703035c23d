import numpy as np
import pytest
from evaluations import condition, report, run

from geolink.errors import InputError
from geolink.legend import UFZ
from geolink.metrics.intervals import t_interval
from geolink.metrics.tally import total
from geolink.reports.record import Condition, Report, better, empty_tally, figure_names


def test_a_figure_is_the_mean_over_seeds_and_says_how_sure_it_is():
    runs = [run(0.7, seed) for seed in range(3)]
    found = Condition.of("x", "main", runs, UFZ, draws=50).figures["miou"]
    each = [total(list(tallies.values())).figures(UFZ)["miou"] for tallies in runs]
    assert found.value == pytest.approx(np.mean(each))
    assert found.runs == pytest.approx(each)
    assert found.over_seeds == pytest.approx(t_interval(each))
    assert found.over_places.low < found.value < found.over_places.high


def test_blocks_are_summed_over_the_seeds():
    runs = [run(0.7, seed) for seed in range(2)]
    found = Condition.of("x", "main", runs, UFZ, draws=5)
    assert list(found.blocks) == list(runs[0])
    first = next(iter(found.blocks))
    pixels = [tallies[first].confusion.pixels for tallies in runs]
    assert found.blocks[first].confusion.pixels == sum(pixels)


def test_a_report_starts_with_the_main_condition():
    other = condition("x", "no_osm", 0.5, seeds=1, draws=5)
    with pytest.raises(InputError, match="main condition"):
        Report("t", "segment", "segmentation", UFZ, (0,), (other,))


@pytest.mark.parametrize(
    ("measures", "some"),
    [
        ("segmentation", {"miou", "ece", "boundary_f1_3m", "iou.water", "boundary_f1_3m.water"}),
        ("classification", {"accuracy", "mean_f1", "f1.water"}),
        ("regression", {"r2", "rmse", "mae"}),
    ],
)
def test_names_are_known_before_anything_is_measured(measures, some):
    assert some <= set(figure_names(measures, UFZ, (3.0,)))


def test_the_names_are_those_of_a_real_run():
    assert figure_names("segmentation", UFZ, (3.0, 10.0)) == list(report(more=False).main.figures)


def test_an_empty_tally_adds_nothing():
    empty = empty_tally("segmentation", 9, (3.0, 10.0))
    tally = next(iter(run(0.7).values()))
    np.testing.assert_equal((tally + empty).figures(UFZ), tally.figures(UFZ))


@pytest.mark.parametrize(
    ("figure", "direction"),
    [("miou", "higher"), ("iou.water", "higher"), ("ece", "lower"), ("area_error.water", "zero")],
)
def test_which_way_is_better(figure, direction):
    assert better(figure) == direction

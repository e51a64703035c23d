import io
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from evaluations import mapped, reference_map, report, run
from PIL import Image

from geolink.errors import OutputError
from geolink.legend import IGNORE, UFZ, Legend, MapClass
from geolink.metrics.regression import RegressionSums
from geolink.reports.files import load_report
from geolink.reports.maps import MapPair, error_map
from geolink.reports.page import html_page
from geolink.reports.plots import png_bytes, report_plots, transfer_plot
from geolink.reports.record import Condition
from geolink.reports.write import require_report_folder, write_report

REPORT = report(seeds=2, draws=10)
NASTY = '<script>alert("x")</script>'


def picture(png):
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


class Tags(HTMLParser):
    """The tags of a page, with their attributes."""

    def __init__(self, page):
        super().__init__()
        self.found = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


def numbers():
    """The main condition of a regression, which has no pictures."""
    values = np.arange(9.0)
    tallies = {str(i): RegressionSums.of(values, values + i) for i in range(3)}
    return Condition.of("x", "main", [tallies], UFZ, draws=5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a written report."""
    target = tmp_path_factory.mktemp("written") / "report"
    reference = reference_map()
    pair = MapPair("here", reference, mapped(reference, 0.7)[0], 2.0)
    write_report(target, REPORT, maps={"../../here": error_map(pair, UFZ)}, overwrite=False)
    return target


def test_the_folder_holds_record_page_and_pictures(folder):
    names = {path.name for path in folder.iterdir()}
    plots = {f"{name}.png" for name in report_plots(REPORT)}
    assert names == {"report.json", "report.html", "map_here.png", *plots}
    assert plots == {
        "confusion.png",
        "reliability.png",
        "classes.png",
        "robustness.png",
        "transfer.png",
    }
    assert load_report(folder).title == REPORT.title


def test_the_page_needs_nothing_else(folder):
    page = (folder / "report.html").read_text()
    tags = Tags(page).found
    assert not {tag for tag, _ in tags} & {"script", "link", "iframe", "object", "form"}
    sources = [attributes["src"] for tag, attributes in tags if tag == "img"]
    assert len(sources) == 6
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert "http://" not in page
    assert "https://" not in page
    assert "default-src 'none'" in page


def test_the_page_shows_the_figures_and_the_notes(folder):
    page = (folder / "report.html").read_text()
    assert f"{REPORT.main.figures['miou'].value:.3f}" in page
    assert "Made up: no model, no place." in page
    for name in (*UFZ.names, *(c.name for c in REPORT.conditions)):
        assert name in page


def test_nothing_from_outside_becomes_markup():
    classes = tuple(MapClass(c.id, c.name + NASTY, c.color) for c in UFZ.classes)
    legend = Legend(NASTY, classes)
    main = Condition.of(NASTY, "main", [run(0.7)], legend, draws=5)
    nasty = report(
        title=NASTY,
        notes=(NASTY,),
        legend=legend,
        model={NASTY: NASTY, "name": NASTY},
        data=[{"description": NASTY}],
        settings={NASTY: [NASTY]},
        conditions=(main, replace(main, kind="no_osm")),
    )
    page = html_page(nasty, {f"map {NASTY}": b"png"})
    assert "script" not in {tag for tag, _ in Tags(page).found}
    assert page.count("&lt;script&gt;") > 20
    assert "<script" not in page


def test_the_same_report_gives_the_same_bytes():
    first, second = (png_bytes(transfer_plot(REPORT)) for _ in range(2))
    assert first == second


def test_pictures_show_something(folder):
    for path in folder.glob("*.png"):
        shown = picture(path.read_bytes())
        assert len(np.unique(shown @ [1, 256, 65536])) > 50, path


def test_an_error_map_is_red_where_it_is_wrong_only():
    reference = np.full((60, 60), 4, np.uint8)
    reference[:, :20] = IGNORE
    wrong = np.where(np.arange(60) < 40, 4, 5).astype(np.uint8)[None].repeat(60, axis=0)

    def red(predicted):
        shown = picture(png_bytes(error_map(MapPair("x", reference, predicted, 1.0), UFZ)))
        return (shown == [0xB3, 0x26, 0x1E]).all(axis=-1).sum()

    right = np.where(reference == IGNORE, 7, reference).astype(np.uint8)
    legend_only = red(right)
    assert red(wrong) > 20 * legend_only > 0


@pytest.mark.parametrize("color", ["#f2f2f2", "#ffffff"])
def test_what_is_not_known_looks_like_no_class(color):
    legend = Legend("two", (MapClass(0, "pale", color), MapClass(1, "pink", "#cc79a7")))
    pale, unknown = (np.full((60, 60), value, np.uint8) for value in (0, IGNORE))

    def dark(reference):
        shown = picture(png_bytes(error_map(MapPair("x", reference, pale, 1.0), legend)))
        return (shown.mean(axis=-1) < 200).sum()

    # Two panels of three are hatched.
    assert dark(unknown) > dark(pale) + 30_000


@pytest.mark.parametrize("shape", [(30, 400), (400, 30), (1, 1), (2500, 2000)])
def test_maps_of_any_shape_are_drawn(shape):
    pair = MapPair("x", np.zeros(shape, np.uint8), np.ones(shape, np.uint8), 0.5)
    height, width = picture(png_bytes(error_map(pair, UFZ))).shape[:2]
    assert max(height, width) < 2500


def test_one_run_of_one_block_makes_a_report(tmp_path):
    single = report(seeds=1, more=False)
    first = dict([next(iter(single.main.blocks.items()))])
    condition = Condition.of("x", "main", [first], UFZ, draws=5)
    write_report(tmp_path / "r", report(conditions=(condition,), seeds=1), overwrite=False)
    page = (tmp_path / "r" / "report.html").read_text()
    assert re.search(r"1 run,\s+1\s+spatial block", page)


def test_an_earlier_report_is_kept_unless_overwritten(tmp_path):
    small = report(measures="regression", conditions=(numbers(),))
    write_report(tmp_path / "r", small, overwrite=False)
    with pytest.raises(OutputError, match="holds a report"):
        write_report(tmp_path / "r", small, overwrite=False)
    write_report(tmp_path / "r", small, overwrite=True)
    assert not list((tmp_path / "r").glob(".report*"))


def test_bad_folders_are_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="is a file"):
        require_report_folder(tmp_path / "file", overwrite=True)
    with pytest.raises(OutputError, match="does not exist"):
        require_report_folder(tmp_path / "none" / "r", overwrite=True)

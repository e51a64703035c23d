from dataclasses import replace
from pathlib import Path

import pytest
from shapely import box
from synthetic import CRS_35N, HEIGHT, NORTH, WEST, WIDTH, build_offline, write_area

from geolink.checkpoint import load_model
from geolink.errors import CheckpointError, CoverageError
from geolink.sources.simulated import SimulatedImagery
from geolink.workflows.request import PredictRequest
from geolink.workflows.scene import tag_semantics, working_gsd

GSD = (0.5, 3.0)


@pytest.fixture
def sources(small_scene):
    return {"imagery": small_scene / "ortho.tif", "osm": small_scene / "osm.gpkg"}


def test_the_raster_is_the_place(sources):
    scene = build_offline(PredictRequest(**sources), GSD)
    assert scene.place.name == "ortho"
    assert scene.grid.crs == CRS_35N
    assert scene.grid.bounds == (WEST, NORTH - HEIGHT, WEST + WIDTH, NORTH)
    assert scene.grid.gsd == 1.0
    assert scene.tiles == [0, 1, 2, 3]
    assert len(scene.entities) == 12
    assert scene.files == (sources["imagery"], sources["osm"])


def test_an_area_cuts_the_grid(tmp_path, sources):
    area = write_area(tmp_path / "area.gpkg", box(WEST + 10, NORTH - 60, WEST + 50, NORTH - 20))
    scene = build_offline(PredictRequest(aoi=area, gsd=2.0, overlap=0.5, **sources), GSD)
    assert scene.place.name == "area"
    assert scene.grid.shape == (20, 20)
    assert scene.plan.overlap_px == 112
    assert scene.tiles == [0]


def test_only_tiles_that_meet_the_area_are_mapped(tmp_path, sources):
    corners = box(WEST, NORTH - 30, WEST + 30, NORTH).union(
        box(WEST + 270, NORTH - 260, WEST + 300, NORTH - 230)
    )
    area = write_area(tmp_path / "area.gpkg", corners)
    assert build_offline(PredictRequest(aoi=area, **sources), GSD).tiles == [0, 3]


def test_simulated_imagery_is_drawn_from_the_osm(tmp_path, sources):
    area = write_area(tmp_path / "area.gpkg", box(WEST, NORTH - 100, WEST + 100, NORTH))
    request = PredictRequest(aoi=area, imagery="simulated", osm=sources["osm"], seed=4)
    scene = build_offline(request, GSD)
    assert isinstance(scene.imagery, SimulatedImagery)
    assert "seed 4" in scene.imagery.info.description
    assert scene.grid.gsd == 1.0
    assert scene.files == (sources["osm"],)


def test_without_osm_there_are_no_entities(sources):
    scene = build_offline(PredictRequest(imagery=sources["imagery"], osm="none"), GSD)
    assert scene.entities is None
    assert scene.files == (sources["imagery"],)


def test_an_area_beside_the_image(tmp_path, sources):
    area = write_area(tmp_path / "area.gpkg", box(WEST + 301, NORTH - 9, WEST + 310, NORTH))
    with pytest.raises(CoverageError, match=r"ortho\.tif does not meet the area of area"):
        build_offline(PredictRequest(aoi=area, **sources), GSD)


@pytest.mark.parametrize(
    ("asked", "native", "expected"),
    [(0.2, 1.0, 0.2), (None, 1.0, 1.0), (None, 0.1, 0.5), (None, 10.0, 3.0), (None, 0.5999, 0.6)],
)
def test_working_gsd(asked, native, expected):
    assert working_gsd(asked, native, GSD) == expected
    assert working_gsd(None, 10.0, None) == 10.0


def test_tags_are_read_as_the_model_was_trained(small_model):
    card = load_model(small_model).card
    encoder, counts = tag_semantics(card)
    assert encoder.name == card.tag_encoder
    assert counts == card.key_counts
    with pytest.raises(CheckpointError, match="untrained reads tags through 'runes'"):
        tag_semantics(replace(card, tag_encoder="runes"))


def test_specs_may_be_text(sources):
    request = PredictRequest(**{name: str(path) for name, path in sources.items()})
    assert build_offline(request, GSD).files == tuple(map(Path, sources.values()))

import pickle
from pathlib import Path

import pytest
import torch
from pyproj import CRS
from synthetic import StubEncoder

from geolink.graphs.scene import SceneGraphs, StoredGraphs
from geolink.graphs.schema import EDGE_TYPES, NODE_TYPES
from geolink.graphs.tags import TableTagEncoder, bundled_key_counts
from geolink.grid import Bounds
from geolink.sources.entities import OsmEntities
from geolink.sources.entity_table import keep_entities
from geolink.sources.osm import read_osm
from geolink.sources.places import sample_extract

AREA = Bounds(385_600.0, 6_671_800.0, 386_200.0, 6_672_200.0)
TILES = [Bounds(x, 6_671_900.0, x + 224, 6_672_124.0) for x in (385_500.0, 385_800.0, 390_000.0)]


@pytest.fixture(scope="module")
def entities() -> OsmEntities:
    return read_osm(sample_extract(), AREA, crs=CRS.from_epsg(32635))


@pytest.mark.parametrize("coverage_side", [None, 14])
def test_graphs_from_disk_are_those_from_memory(
    entities: OsmEntities, tmp_path: Path, coverage_side: int | None
) -> None:
    table = keep_entities(tmp_path / "osm.sqlite", [entities], entities.crs)
    tags = (TableTagEncoder(), bundled_key_counts())
    in_memory = SceneGraphs(entities, *tags, coverage_side=coverage_side)
    on_disk = StoredGraphs(table, *tags, coverage_side=coverage_side)
    for bounds in TILES:
        one, other = in_memory.build(bounds), on_disk.build(bounds)
        for kind in NODE_TYPES:
            names = {"x", "keypoints"} | ({"coverage"} if "coverage" in one[kind] else set())
            assert names <= set(other[kind].keys())
            for name in names:
                assert torch.equal(one[kind][name], other[kind][name])
        for kind in EDGE_TYPES:
            assert torch.equal(one[kind].edge_index, other[kind].edge_index)
            assert torch.equal(one[kind].edge_attr, other[kind].edge_attr)
    assert len(in_memory.build(TILES[0])["polygon"].x) > 20


def test_a_process_gets_the_path_and_not_the_extract(entities: OsmEntities, tmp_path: Path) -> None:
    table = keep_entities(tmp_path / "osm.sqlite", [entities], entities.crs)
    graphs = StoredGraphs(table, StubEncoder(), {})
    before = graphs.build(TILES[0])
    pickled = pickle.dumps(graphs)
    assert len(pickled) < 2000
    after = pickle.loads(pickled).build(TILES[0])
    assert torch.equal(before["polygon"].x, after["polygon"].x)

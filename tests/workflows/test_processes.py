from functools import partial

import numpy as np
import torch
from dying import deadly
from pyproj import CRS
from synthetic import CRS_35N, HEIGHT, NORTH, WEST, WIDTH, StubEncoder, osm_entities

from geolink.graphs.scene import StoredGraphs
from geolink.grid import GridSpec
from geolink.samples import normalise
from geolink.sources.entity_table import keep_entities
from geolink.sources.imagery import open_imagery
from geolink.tiles import TilePlan
from geolink.workflows.inference import ordered_map, prepare_tile
from geolink.workflows.processes import PreparingProcesses

PLAN = TilePlan(GridSpec(CRS.from_user_input(CRS_35N), WEST, NORTH, 1.0, HEIGHT, WIDTH))


def test_processes_prepare_the_same_tiles(tmp_path, small_scene):
    entities = osm_entities()
    table = keep_entities(tmp_path / "osm.sqlite", [entities], entities.crs)
    prepare = partial(
        prepare_tile,
        plan=PLAN,
        imagery=open_imagery(small_scene / "ortho.tif"),
        graphs=StoredGraphs(table, StubEncoder(), {}),
        pixels_of=normalise,
    )
    with PreparingProcesses(prepare, 1) as processes:
        for tile in ordered_map(processes, range(len(PLAN)), 2):
            own = prepare(tile.id)
            assert torch.equal(tile.image, own.image)
            assert (tile.result.status, tile.result.nodes) == (own.result.status, own.result.nodes)
            np.testing.assert_array_equal(tile.result.valid, own.result.valid)
            if own.graph is not None:
                assert torch.equal(tile.graph["polygon"].x, own.graph["polygon"].x)


def test_the_rest_completes_where_a_process_dies():
    with PreparingProcesses(deadly, 1) as processes:
        assert processes(0) == 0
        failed = processes(1).result
        assert (failed.status, "died" in failed.message) == ("failed", True)
        assert processes(2) == 4

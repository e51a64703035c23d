import subprocess
import sys

from geolink.graphs.schema import (
    EDGE_TYPES,
    KEYPOINT_WIDTHS,
    LINE_LAST,
    NODE_TYPES,
    POINT_ITSELF,
    POLYGON_CENTROID,
    POLYGON_INNER,
    RELATIONS,
)
from geolink.sources.entities import ENTITY_TYPES


def test_nodes_are_the_entities():
    assert NODE_TYPES == ENTITY_TYPES == tuple(KEYPOINT_WIDTHS)


def test_every_ordered_pair_of_types_has_relations():
    pairs = {(a, "to", b) for a in NODE_TYPES for b in NODE_TYPES}
    assert len(EDGE_TYPES) == 9
    assert set(EDGE_TYPES) == pairs
    assert all(len(set(names)) == len(names) for names in RELATIONS.values())


def test_both_directions_have_as_many_columns():
    assert all(len(RELATIONS[a, to, b]) == len(RELATIONS[b, to, a]) for a, to, b in EDGE_TYPES)


def test_slices_fill_the_key_points():
    assert POINT_ITSELF.stop == KEYPOINT_WIDTHS["point"]
    assert LINE_LAST.stop == KEYPOINT_WIDTHS["line"]
    assert POLYGON_INNER.stop == POLYGON_CENTROID.start
    assert POLYGON_CENTROID.stop == KEYPOINT_WIDTHS["polygon"]


def test_importing_it_is_light():
    code = "import sys, geolink.graphs.schema; print({'torch', 'shapely'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"

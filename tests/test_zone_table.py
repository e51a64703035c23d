from pathlib import Path

import numpy as np
import pytest
from pyproj import CRS
from shapely import box

from geolink import zone_table
from geolink.grid import Bounds
from geolink.zone_table import UNIT, ZoneTable

UTM35 = CRS.from_epsg(32635)
SQUARES = np.array([box(x, y, x + 10, y + 10) for x in (0, 10) for y in (0, 10)])  # from the south
CLASSES = np.array([1, 0, 1, 0], np.uint8)


def filled(path: Path, order: list[int]) -> ZoneTable:
    table = ZoneTable(path, UTM35)
    table.add(SQUARES[order], CLASSES[order])
    table.arrange()
    return table


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 1, 0, 2]])
def test_zones_come_by_class_then_from_north_to_south_and_west_to_east(
    tmp_path: Path, order: list[int]
) -> None:
    with filled(tmp_path / "zones", order) as table:
        assert len(table) == 4
        found = table.frame()
    assert found.class_id.tolist() == [0, 0, 1, 1]
    assert found.geometry.geom_equals(type(found.geometry)(SQUARES[[1, 3, 0, 2]], crs=UTM35)).all()


def test_zones_are_found_by_place(tmp_path: Path) -> None:
    with filled(tmp_path / "zones", [0, 1, 2, 3]) as table:
        assert table.near(Bounds(1, 11, 2, 12)).tolist() == [1]
        assert table.near(Bounds(-5, 11, 30, 12)).tolist() == [1, 2]
        assert table.near(Bounds(50, 50, 60, 60)).tolist() == []


def test_sums_do_not_depend_on_their_order(tmp_path: Path) -> None:
    half = round(0.5 / UNIT)
    with filled(tmp_path / "zones", [0, 1, 2, 3]) as table:
        for ids in ([1, 2], [2, 1]):
            table.add_sums(np.array(ids), np.array([[half, 0, 1], [2 * half, half, 1]]))
        assert table.without_pixels().tolist() == [3, 4]
        found = table.frame()
    assert found.confidence.tolist() == [0.75, 0.75, 0.0, 0.0]
    assert found.osm_gain.tolist() == [0.5, 0.5, 0.0, 0.0]


def test_frames_are_of_limited_length(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zone_table, "BATCH", 3)
    with filled(tmp_path / "zones", [0, 1, 2, 3]) as table:
        assert [len(frame) for frame in table.frames()] == [3, 1]
        assert [ids.tolist() for ids, _ in table.batches()] == [[1, 2, 3], [4]]
        assert len(table.figures()) == 4


def test_outlines_held_at_once_are_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zone_table, "BATCH_BYTES", 2 * len(SQUARES[0].wkb))
    with filled(tmp_path / "zones", [0, 1, 2, 3]) as table:
        assert [ids.tolist() for ids, _ in table.batches()] == [[1, 2], [3, 4]]
    monkeypatch.setattr(zone_table, "BATCH_BYTES", 1)
    with filled(tmp_path / "others", [0, 1, 2, 3]) as table:
        assert [len(frame) for frame in table.frames()] == [1, 1, 1, 1]


def test_zones_can_be_replaced(tmp_path: Path) -> None:
    with filled(tmp_path / "zones", [0, 1, 2, 3]) as table:
        table.remove([1, 2])
        table.add(np.array([box(0, 10, 20, 20)]), np.array([0], np.uint8))
        table.arrange()
        assert table.zones([1])[0][0].area == 200
        assert table.smaller_than(150).tolist() == [2, 3]

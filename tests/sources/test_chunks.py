import pytest
import shapely
from scenes import area_of

from geolink.errors import InputError
from geolink.sources import chunks
from geolink.sources.chunks import fetched_gsd, lay_chunks


def test_chunks_cover_the_area_and_a_margin():
    area = area_of(0, 0, 3000, 2000)
    grid, windows = lay_chunks(area, 10.0)
    assert grid.crs.to_epsg() == 32635
    assert (grid.west % 10, grid.north % 10) == (0, 0)
    covered = shapely.union_all([shapely.box(*grid.subgrid(w).bounds) for w in windows])
    assert covered.equals(shapely.box(*grid.bounds))
    west, south, east, north = shapely.box(385_000, 6_642_000, 405_000, 6_672_000).bounds
    assert grid.west <= west - 1280
    assert grid.north >= north + 1280
    assert grid.bounds.east >= east + 1280
    assert grid.bounds.south <= south - 1280


def test_chunks_that_the_area_does_not_meet_are_left_out(monkeypatch):
    monkeypatch.setattr(chunks, "CHUNK_SIDE", 128)
    area = area_of(0, 0, 2000, 50).union(area_of(0, 0, 50, 2000))
    grid, windows = lay_chunks(area, 10.0)
    everything = list(grid.blocks(128))
    assert 0.2 < len(windows) / len(everything) < 0.5
    assert everything[-1] not in windows


@pytest.mark.parametrize(
    ("asked", "native", "gsd"),
    [(None, 9.98, 10.0), (None, 0.597, 0.6), (0.1, 0.597, 0.6), (2.5, 0.597, 2.5), (11, 9.98, 11)],
)
def test_pixel_sizes(asked, native, gsd):
    assert fetched_gsd(asked, native) == gsd


@pytest.mark.parametrize("asked", [0.0, -1.0, float("nan"), float("inf")])
def test_impossible_pixel_sizes(asked):
    with pytest.raises(InputError, match="must be positive"):
        fetched_gsd(asked, 10.0)


def test_an_area_with_too_many_pixels():
    with pytest.raises(InputError, match="too many to fetch at once; take coarser pixels"):
        lay_chunks(shapely.box(20, 40, 30, 48), 0.5)

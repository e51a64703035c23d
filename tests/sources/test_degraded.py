import numpy as np
import pytest
from pyproj import CRS
from synthetic import CRS_35N, NORTH, WEST, write_raster

from geolink.errors import ConfigError
from geolink.grid import GridSpec, PixelWindow
from geolink.sources.base import ImageTile, SourceInfo
from geolink.sources.degraded import DegradedImagery
from geolink.sources.imagery import open_imagery

GRID = GridSpec(CRS.from_user_input(CRS_35N), WEST, NORTH, 1.0, 240, 280)
KINDS = [("blur", 2.0), ("colour", 0.8), ("cloud", 0.4)]


@pytest.fixture(scope="module")
def imagery(tmp_path_factory):
    return open_imagery(write_raster(tmp_path_factory.mktemp("degraded") / "ortho.tif"))


class Grey:
    """Mid-grey everywhere."""

    info = SourceInfo("grey", simulated=True)

    def read(self, grid):
        rgb = np.full((3, *grid.shape), 100, np.uint8)
        return ImageTile(rgb, np.ones(grid.shape, bool))


@pytest.mark.parametrize(("kind", "level"), KINDS)
def test_tiles_agree_where_they_overlap(imagery, kind, level):
    worse = DegradedImagery(imagery, kind, level, seed=3)
    whole = worse.read(GRID).rgb
    part = worse.read(GRID.subgrid(PixelWindow(60, 70, 90, 80))).rgb
    np.testing.assert_array_equal(part, whole[:, 60:150, 70:150])
    assert not np.array_equal(whole, imagery.read(GRID).rgb)


@pytest.mark.parametrize(("kind", "level"), KINDS)
def test_level_nought_changes_nothing_and_the_seed_decides(imagery, kind, level):
    plain = imagery.read(GRID)
    same = DegradedImagery(imagery, kind, 0.0, seed=3).read(GRID)
    np.testing.assert_array_equal(same.rgb, plain.rgb)
    np.testing.assert_array_equal(same.valid, plain.valid)
    first, second = (DegradedImagery(imagery, kind, level, seed=s).read(GRID).rgb for s in (1, 2))
    assert np.array_equal(first, second) == (kind == "blur")


def test_blur_smooths_by_metres(imagery):
    def roughness(level, gsd=1.0):
        grid = GridSpec(GRID.crs, WEST, NORTH, gsd, 100, 100)
        rgb = DegradedImagery(imagery, "blur", level).read(grid).rgb.astype(float)
        return np.abs(np.diff(rgb, axis=2)).mean()

    assert roughness(4.0) < roughness(1.0) < 0.6 * roughness(0.0)


def test_blur_takes_nothing_from_where_there_is_no_image(imagery):
    edge = GridSpec(GRID.crs, WEST - 40, NORTH, 1.0, 60, 80)
    plain, found = imagery.read(edge), DegradedImagery(imagery, "blur", 3.0).read(edge)
    np.testing.assert_array_equal(found.valid, plain.valid)
    assert (found.rgb[:, ~found.valid] == 0).all()
    first = plain.valid.argmax(axis=1)[0]
    inside, faded = plain.rgb[:, :, first : first + 4], found.rgb[:, :, first : first + 4]
    assert abs(float(faded.mean()) - float(inside.mean())) < 12


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_clouds_cover_about_their_share_of_a_large_area(share):
    wide = GridSpec(GRID.crs, WEST, NORTH, 20.0, 400, 400)
    covered = DegradedImagery(Grey(), "cloud", share, seed=5).read(wide).rgb[0] > 172
    assert covered.mean() == pytest.approx(share, abs=0.05)


def test_more_cloud_covers_what_less_covered():
    thin, thick = (
        DegradedImagery(Grey(), "cloud", share, seed=5).read(GRID).rgb[0].astype(int)
        for share in (0.3, 0.6)
    )
    assert (thick >= thin).all()


def test_everything_can_be_under_cloud():
    assert (DegradedImagery(Grey(), "cloud", 1.0).read(GRID).rgb > 170).mean() > 0.99


def test_colours_change_alike_everywhere():
    found = DegradedImagery(Grey(), "colour", 1.0, seed=2).read(GRID).rgb
    assert all(len(np.unique(band)) == 1 for band in found)
    assert (found != 100).any()


def test_the_source_says_what_was_done():
    info = DegradedImagery(Grey(), "cloud", 0.25).info
    assert info.description == "grey, cloud 0.25"
    assert info.simulated


@pytest.mark.parametrize(
    ("kind", "level"), [("blur", -1), ("cloud", 1.2), ("colour", float("nan"))]
)
def test_impossible_levels_are_refused(kind, level):
    with pytest.raises(ConfigError, match=f"the level of {kind}"):
        DegradedImagery(Grey(), kind, level)

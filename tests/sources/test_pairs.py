import shutil

import numpy as np
import pytest
import shapely
from affine import Affine
from PIL import Image
from rasterio.features import rasterize
from shapely.affinity import affine_transform
from synthetic import CRS_35N, NORTH, WEST, pixels, write_osm, write_picture, write_raster

from geolink.augment import open_picture
from geolink.errors import ConfigError, InputError
from geolink.sources.candidates import Filters, Rejection, sample_key
from geolink.sources.pairs import find_pairs, simulated_pairs
from geolink.sources.picture_pairs import PicturePairs, read_sidecar
from geolink.sources.places import sample_extract
from geolink.sources.scene_pairs import RasterPairs, SimulatedPairs

ALL = Filters(min_objects=0, min_contrast=0, max_nodata=1)


def samples(source, filters=ALL):
    return [source.read(number, filters) for number in range(len(source))]


def rgb(sample):
    return np.asarray(open_picture(sample.image).convert("RGB")).transpose(2, 0, 1)


# --- rasters ------------------------------------------------------------------------------------


def test_a_raster_is_cut_into_tiles_that_end_with_it(small_scene):
    source = RasterPairs(small_scene / "ortho.tif", small_scene / "osm.gpkg", side=100)
    assert len(source) == 9  # 300 x 260 m
    image = pixels()
    found = samples(source)
    for number, (row, col) in {0: (0, 0), 1: (0, 100), 5: (100, 200), 8: (160, 200)}.items():
        assert (rgb(found[number]) == image[:, row : row + 100, col : col + 100]).all()
        assert found[number].meta["bounds"] == [
            *(WEST + col, NORTH - row - 100, WEST + col + 100, NORTH - row)
        ]
    assert found[0].meta["gsd"] == 1.0
    assert found[0].meta["crs"] == CRS_35N
    assert len({sample.key for sample in found}) == 9


def test_objects_lie_where_the_image_shows_them(small_scene):
    """The pond is at 200-260, 40-90 m of the scene, and ends in the tile."""
    source = RasterPairs(small_scene / "ortho.tif", small_scene / "osm.gpkg", side=100)
    objects = samples(source)[2].objects
    pond = [g for g, tags in zip(objects.geometry, objects.tags, strict=True) if "natural" in tags]
    assert [round(edge, 6) for edge in pond[-1].bounds] == [0.0, 0.4, 0.6, 0.9]
    assert all(0 <= edge <= 1 for edge in shapely.total_bounds(objects.geometry))
    assert set(objects.ids) <= {f"way/{i}" for i in range(12)}
    assert shapely.is_valid(objects.geometry).all()


def test_tiles_at_another_ground_sampling_distance(small_scene):
    source = RasterPairs(small_scene / "ortho.tif", small_scene / "osm.gpkg", side=64, gsd=2.0)
    assert len(source) == 9  # 150 x 130 px
    assert samples(source)[0].meta["gsd"] == 2.0


def test_a_raster_smaller_than_a_tile_has_one_candidate(small_scene):
    source = RasterPairs(small_scene / "ortho.tif", small_scene / "osm.gpkg", side=512)
    assert len(source) == 1
    assert isinstance(source.read(0, Filters()), Rejection)  # mostly without data
    assert rgb(source.read(0, ALL)).shape == (3, 512, 512)


def test_a_folder_of_rasters_is_searched_through(tmp_path, small_scene):
    (tmp_path / "below").mkdir()
    (tmp_path / ".hidden").mkdir()
    shutil.copy(small_scene / "ortho.tif", tmp_path / "below" / "b.tif")
    shutil.copy(small_scene / "ortho.tif", tmp_path / "a.tif")
    shutil.copy(small_scene / "ortho.tif", tmp_path / ".hidden" / "c.tif")
    (tmp_path / "notes.txt").write_text("no raster")
    (tmp_path / "broken.tif").write_text("no raster either")
    found = find_pairs(tmp_path, small_scene / "osm.gpkg")
    assert [source.name for source in found] == ["a.tif", "below/b.tif"]
    assert found[0].area == found[1].area  # OSM is read once for both
    twice = find_pairs(tmp_path, small_scene / "osm.gpkg", gsd=(1.0, 2.0))
    assert [source.gsd for source in twice] == [1.0, 1.0, 2.0, 2.0]


def test_scattered_rasters_read_osm_for_themselves(tmp_path, small_scene):
    far = Affine(1.0, 0.0, WEST + 20_000, 0.0, -1.0, NORTH + 20_000)
    shutil.copy(small_scene / "ortho.tif", tmp_path / "a.tif")
    write_raster(tmp_path / "b.tif", transform=far)
    assert [s.area for s in find_pairs(tmp_path, small_scene / "osm.gpkg")] == [None, None]


def test_provenance_is_that_of_both_files(small_scene):
    found = RasterPairs(small_scene / "ortho.tif", small_scene / "osm.gpkg").provenance()
    assert found.imagery.description == "ortho.tif"
    assert found.imagery.date == "2024-05-31"
    assert found.osm.licence == "ODbL-1.0"


# --- filters ------------------------------------------------------------------------------------


def test_candidates_are_filtered_by_objects_contrast_and_nodata(tmp_path, small_scene):
    image = pixels()
    image[:, :, :100] = 77  # blank
    image[:, :, 200:] = 0  # no data
    write_raster(tmp_path / "ortho.tif", image, nodata=0)
    source = RasterPairs(tmp_path / "ortho.tif", small_scene / "osm.gpkg", side=100)
    reasons = [getattr(found, "reason", "") for found in samples(source, Filters())]
    assert reasons[:3] == ["blank image", "", "more than 5% of the pixels without data"]
    strict = Filters(min_objects=50)
    assert samples(source, strict)[1] == Rejection("less than 50 OSM objects")


@pytest.mark.parametrize(
    "settings", [{"min_objects": -1}, {"min_contrast": -1}, {"max_nodata": 1.1}, {"max_nodata": -1}]
)
def test_impossible_filters_are_refused(settings):
    with pytest.raises(ConfigError):
        Filters(**settings)


def test_keys_are_readable_stable_and_safe():
    assert sample_key("Été 2024/../x.TIF", "a").startswith("t-2024-x-tif_")
    assert sample_key("x", "a") == sample_key("x", "a") != sample_key("x", "b")
    assert len(sample_key("y" * 500, "a")) <= 80


# --- pictures -----------------------------------------------------------------------------------


@pytest.mark.parametrize("layers", [("",), ("_point", "_line", "_polygon")])
def test_a_picture_is_kept_as_it_is_with_the_objects_beside_it(tmp_path, layers):
    path = write_picture(tmp_path / "set", layers=layers, time=[2021, 7, 3, 10, 5])
    (source,) = find_pairs(tmp_path / "set")
    sample = source.read(0, Filters())
    assert sample.image == path.read_bytes()
    assert sample.suffix == "jpg"
    assert sample.meta["date"] == "2021-07-03"
    assert sample.meta["gsd"] == pytest.approx((310 * 270 / (120 * 80)) ** 0.5, rel=0.02)
    assert len(sample.objects) == 12
    kinds = shapely.get_dimensions(sample.objects.geometry)
    assert np.bincount(kinds).tolist() == [3, 2, 7]
    assert {"building": "apartments", "building:levels": "5"} in sample.objects.tags


def test_pictures_can_take_their_objects_from_an_extract(tmp_path):
    path = write_picture(tmp_path / "set")
    (source,) = find_pairs(path, write_osm(tmp_path / "osm.gpkg"))
    found = source.read(0, Filters()).objects
    beside = find_pairs(tmp_path / "set")[0].read(0, Filters()).objects
    assert len(found) == len(beside) == 12
    areas = [sorted(shapely.area(some.geometry).round(6).tolist()) for some in (found, beside)]
    assert areas[0] == areas[1]


@pytest.mark.parametrize(
    "bbox", [[25, 60, 24, 61], [0, 0, 200, 1], [1, 2, 3], ["a", 1, 2, 3], None, [0, 89, 1, 90.5]]
)
def test_a_picture_without_a_usable_box_is_no_candidate(tmp_path, bbox):
    path = write_picture(tmp_path / "set", bbox=bbox or "nothing")
    assert read_sidecar(path) is None
    (source,) = find_pairs(tmp_path / "set")
    assert source == PicturePairs(tmp_path / "set", ("a.jpg",))
    assert source.read(0, Filters()) == Rejection("no usable bounding box")


def test_a_picture_without_osm_beside_it_is_left_out(tmp_path):
    write_picture(tmp_path / "set", layers=())
    (source,) = find_pairs(tmp_path / "set")
    assert source.read(0, Filters()) == Rejection("no OSM file beside the picture")


def test_a_damaged_picture_is_an_error_of_its_own(tmp_path):
    path = write_picture(tmp_path / "set")
    path.write_bytes(path.read_bytes()[:400])
    (source,) = find_pairs(tmp_path / "set")
    with pytest.raises(InputError, match=r"a\.jpg is not a readable PNG or JPEG"):
        source.read(0, Filters())


def test_a_picture_is_taken_for_what_it_holds(tmp_path):
    path = write_picture(tmp_path / "set")
    Image.open(path).copy().save(path, "PNG")
    assert find_pairs(path)[0].read(0, Filters()).suffix == "png"


def test_published_pictures_are_read(shared_data):
    folder = shared_data / "geolink_examples" / "osm2graph"
    (source,) = find_pairs(folder)
    found = samples(source, Filters())
    assert [len(sample.objects) for sample in found] == [10, 18, 20]
    assert [sample.meta["gsd"] for sample in found] == [9.57, 0.453, 0.195]
    tags = [tag for sample in found for tag in sample.objects.tags]
    assert {"natural": "glacier"} in tags
    assert {"shop": "craft", "craft": "printer"} in tags


# --- simulated ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def helsinki():
    (source,) = simulated_pairs([sample_extract()], seeds=(0, 4), side=64, limit=3)
    return source, samples(source)


def test_simulated_tiles_come_once_per_look(helsinki):
    source, found = helsinki
    assert len(source) == 6
    assert all(sample.meta["simulated"] for sample in found)
    assert source.provenance().imagery.simulated
    assert len({sample.key for sample in found}) == 6


def test_one_place_has_several_looks():
    sources = [SimulatedPairs(sample_extract(), (seed,), side=64) for seed in (0, 4)]
    number = len(sources[0]) // 2
    first, second = (source.read(number, ALL) for source in sources)
    assert first.meta["bounds"] == second.meta["bounds"]
    assert first.objects.ids.tolist() == second.objects.ids.tolist()
    assert (rgb(first) != rgb(second)).mean() > 0.5
    assert first.key != second.key


def test_simulated_houses_stand_on_their_objects(helsinki):
    source = SimulatedPairs(sample_extract(), side=128)
    sample = source.read(len(source) // 2, ALL)
    houses = [
        geometry
        for geometry, tags in zip(sample.objects.geometry, sample.objects.tags, strict=True)
        if "building" in tags and geometry.area > 0.01
    ]
    assert houses
    image = rgb(sample).astype(float)
    scaled = [affine_transform(house, [128, 0, 0, 128, 0, 0]) for house in houses]
    labels = rasterize([(s, i + 1) for i, s in enumerate(scaled)], out_shape=(128, 128))
    shifted = np.roll(labels, 24, axis=1)

    def spread(zones):
        return np.mean([image[:, zones == i].std() for i in range(1, len(houses) + 1)])

    assert spread(labels) < spread(shifted)  # roofs have a colour of their own


@pytest.mark.parametrize("settings", [{"seeds": ()}, {"seeds": (-1,)}, {"limit": 0}])
def test_impossible_simulations_are_refused(settings):
    with pytest.raises(ConfigError):
        simulated_pairs([sample_extract()], **settings)
    with pytest.raises(ConfigError):
        simulated_pairs([])


# --- what cannot be found -----------------------------------------------------------------------


def test_missing_inputs_are_named(tmp_path, small_scene):
    with pytest.raises(InputError, match="gone does not exist"):
        find_pairs(tmp_path / "gone")
    with pytest.raises(InputError, match=r"gone\.pbf does not exist"):
        find_pairs(small_scene / "ortho.tif", tmp_path / "gone.pbf")
    with pytest.raises(InputError, match="has no image"):
        find_pairs(tmp_path)
    with pytest.raises(InputError, match=r"no OSM data for the raster ortho\.tif"):
        find_pairs(small_scene / "ortho.tif")
    with pytest.raises(InputError, match=r"gone\.pbf does not exist"):
        simulated_pairs([tmp_path / "gone.pbf"])
    (tmp_path / "x.tif").write_text("no raster")
    with pytest.raises(InputError, match="not a raster"):
        find_pairs(tmp_path / "x.tif", small_scene / "osm.gpkg")

import numpy as np
import pytest
import shapely
from synthetic import entities, osm_entities

from geolink.errors import ConfigError
from geolink.sources.disturbances import drop_objects, retag_objects, shift_objects
from geolink.sources.entities import ENTITY_TYPES

SCENE = osm_entities(entities() * 30)


def names(scene):
    return {name for kind in ENTITY_TYPES for name in scene.frame(kind)["osm_id"]}


def test_about_the_share_is_missing():
    assert len(drop_objects(SCENE, 0.3, seed=0)) == pytest.approx(0.7 * len(SCENE), rel=0.1)
    assert len(drop_objects(SCENE, 0.0, seed=0)) == len(SCENE)
    assert len(drop_objects(SCENE, 1.0, seed=0)) == 0


def test_what_goes_at_a_small_share_goes_at_a_large_one():
    kept = [names(drop_objects(SCENE, share, seed=0)) for share in (0.2, 0.5, 0.8)]
    assert kept[2] < kept[1] < kept[0]
    assert kept[1] != names(drop_objects(SCENE, 0.5, seed=1))


def test_parts_of_an_object_go_together_and_in_any_order():
    frame = SCENE.polygon
    doubled = frame.loc[np.repeat(frame.index, 2)].iloc[::-1].reset_index(drop=True)
    scene = type(SCENE)(SCENE.point, SCENE.line, doubled, SCENE.info)
    found = drop_objects(scene, 0.5, seed=0).polygon["osm_id"]
    assert (found.value_counts() == 2).all()
    assert set(found) == set(drop_objects(SCENE, 0.5, seed=0).polygon["osm_id"])


def test_only_the_types_asked_for_are_dropped():
    found = drop_objects(SCENE, 1.0, seed=0, kinds=("polygon",))
    assert (len(found.point), len(found.line), len(found.polygon)) == (
        len(SCENE.point),
        len(SCENE.line),
        0,
    )


@pytest.mark.parametrize(
    ("tag", "gone"), [("building=*", 3), ("building=house", 2), ("building=barn", 0)]
)
def test_only_objects_with_the_tag_are_dropped(tag, gone):
    scene = osm_entities()
    left = drop_objects(scene, 1.0, seed=0, tag=tag)
    assert len(scene) - len(left) == gone
    key, _, value = tag.partition("=")
    assert not any(t.get(key) and value in ("*", t[key]) for t in left.polygon["tags"])
    half = drop_objects(SCENE, 0.5, seed=0, tag="building=*")
    assert len(SCENE) - len(half) == pytest.approx(45, rel=0.25)


def test_objects_move_by_the_distance_in_directions_of_their_own():
    found = shift_objects(SCENE, 7.5, seed=0)
    for kind in ENTITY_TYPES:
        before, after = SCENE.frame(kind).geometry, found.frame(kind).geometry
        offset = shapely.get_coordinates(after.centroid) - shapely.get_coordinates(before.centroid)
        np.testing.assert_allclose(np.hypot(*offset.T), 7.5, atol=1e-6)
        np.testing.assert_allclose(after.area, before.area)
        assert after.crs == before.crs
        directions = np.arctan2(offset[:, 1], offset[:, 0])
        assert np.ptp(directions) > 4


def test_a_share_of_the_objects_takes_the_tags_of_others():
    found = retag_objects(SCENE, 0.5, seed=0)
    for kind in ENTITY_TYPES:
        before, after = SCENE.frame(kind), found.frame(kind)
        kinds = {str(tags) for tags in before["tags"]}
        assert {str(tags) for tags in after["tags"]} <= kinds
        same = sum(a == b for a, b in zip(before["tags"], after["tags"], strict=True)) / len(before)
        assert same == pytest.approx(0.5 + 0.5 / len(kinds), abs=0.2)
    assert (retag_objects(SCENE, 0.0, seed=0).polygon["tags"] == SCENE.polygon["tags"]).all()


def test_nothing_is_changed_in_place():
    before = [SCENE.frame(kind).to_wkt() for kind in ENTITY_TYPES]
    drop_objects(SCENE, 0.5, seed=0)
    shift_objects(SCENE, 50.0, seed=0)
    retag_objects(SCENE, 1.0, seed=0)
    for kind, frame in zip(ENTITY_TYPES, before, strict=True):
        assert SCENE.frame(kind).to_wkt().equals(frame)


def test_a_scene_without_objects_stays_empty():
    empty = drop_objects(SCENE, 1.0, seed=0)
    for change in (
        drop_objects(empty, 0.5, seed=0),
        shift_objects(empty, 5.0, seed=0),
        retag_objects(empty, 0.5, seed=0),
    ):
        assert len(change) == 0
        assert change.crs == SCENE.crs


@pytest.mark.parametrize("share", [-0.1, 1.5, float("nan")])
def test_impossible_shares_are_refused(share):
    for change in (drop_objects, retag_objects):
        with pytest.raises(ConfigError, match="between 0 and 1"):
            change(SCENE, share, seed=0)
    with pytest.raises(ConfigError, match="0 m or more"):
        shift_objects(SCENE, -share if share > 0 else share, seed=0)

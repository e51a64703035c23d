import io
import math

import numpy as np
import pytest
import shapely
from PIL import Image
from rasterio.features import rasterize
from shapely.affinity import affine_transform
from synthetic import pixels

from geolink.augment import Augmentation, Colour, View, open_picture
from geolink.errors import ConfigError, InputError

HOUSE = shapely.Polygon(
    [(0.42, 0.35), (0.66, 0.35), (0.66, 0.5), (0.5, 0.5), (0.5, 0.7), (0.42, 0.7)]
)


def picture(array):
    return Image.fromarray(np.ascontiguousarray(array.transpose(1, 2, 0)))


def views(count, **settings):
    rng = np.random.default_rng(5)
    augmentation = Augmentation(**settings)
    return [augmentation.draw(rng) for _ in range(count)]


def burnt(shape, side, *, y_up):
    """(side, side) True where the centre of a pixel lies in `shape`."""
    if y_up:
        shape = affine_transform(shape, [1, 0, 0, -1, 0, 1])
    scaled = affine_transform(shape, [side, 0, 0, side, 0, 0])
    return rasterize([scaled], out_shape=(side, side)).astype(bool)


def test_the_plain_view_changes_nothing():
    image = pixels(64, 64)
    assert (View().image(picture(image), 64) == image).all()
    moved = View().geometry(np.array([shapely.Point(0.25, 0.1)]))
    assert moved[0] == shapely.Point(0.25, 0.9)


def test_a_crop_on_whole_pixels_is_a_slice():
    image = pixels(64, 64)
    view = View(left=16 / 64, top=8 / 64, width=32 / 64, height=32 / 64)
    assert (view.image(picture(image), 32) == image[:, 8:40, 16:48]).all()


@pytest.mark.parametrize("turn", range(8))
def test_image_and_geometry_turn_alike(turn):
    view = View(transpose=bool(turn & 1), mirror_x=bool(turn & 2), mirror_y=bool(turn & 4))
    mask = burnt(HOUSE, 100, y_up=False)
    image = np.repeat(mask[None].astype(np.uint8) * 255, 3, axis=0)
    seen = view.image(picture(image), 100)[0] > 127
    moved = view.geometry(np.array([HOUSE]))[0]
    assert (seen == burnt(moved, 100, y_up=True)).all()


def test_image_and_geometry_stay_aligned_in_any_view():
    mask = burnt(HOUSE, 800, y_up=False)  # the corners lie on whole pixels
    image = np.repeat(mask[None].astype(np.uint8) * 255, 3, axis=0)
    for view in views(30, brightness=0, contrast=0, saturation=0, hue=0):
        seen = view.image(picture(image), 224)[0] > 127
        moved = view.geometry(np.array([HOUSE]))[0]
        expected = burnt(moved, 224, y_up=True)
        differing = np.count_nonzero(seen != expected)
        assert differing <= 40, view  # half a pixel aside, it would be 150


def test_views_of_pictures_that_are_not_square_stay_aligned():
    mask = rasterize([affine_transform(HOUSE, [300, 0, 0, 500, 0, 0])], out_shape=(500, 300))
    image = np.repeat(255 * mask[None], 3, axis=0).astype(np.uint8)
    augmentation, rng = Augmentation(), np.random.default_rng(2)
    for _ in range(20):
        view = augmentation.draw(rng, aspect=300 / 500)
        ratio = view.width * 300 / (view.height * 500)
        assert 3 / 4 - 1e-9 <= ratio <= 4 / 3 + 1e-9
        plain = View(*(getattr(view, name) for name in ("left", "top", "width", "height")))
        seen = plain.image(picture(image), 224)[0] > 127
        expected = burnt(plain.geometry(np.array([HOUSE]))[0], 224, y_up=True)
        assert np.count_nonzero(seen != expected) <= 40


def test_shrinking_does_not_alias():
    stripes = np.zeros((3, 512, 512), dtype=np.uint8)
    stripes[:, :, ::2] = 255
    seen = View().image(picture(stripes), 64)
    assert abs(seen[:, 4:-4, 4:-4].astype(int) - 127).max() <= 3


def test_geometry_moves_as_by_an_affine_map():
    for view in views(20):
        linear, shift = view.matrix()
        expected = affine_transform(HOUSE, [*linear.ravel(), *shift])
        assert view.geometry(np.array([HOUSE]))[0].equals_exact(expected, 1e-12)
        det = abs(np.linalg.det(linear))
        assert math.isclose(det, 1 / (view.width * view.height))


def test_drawn_views_keep_to_the_settings():
    drawn = views(400, scale=(0.2, 0.9))
    areas = [view.width * view.height for view in drawn]
    assert 0.2 <= min(areas) < 0.3
    assert 0.8 < max(areas) <= 0.9 + 1e-12
    for view in drawn:
        assert view.left >= 0
        assert view.top >= 0
        assert view.left + view.width <= 1 + 1e-12
        assert view.top + view.height <= 1 + 1e-12
    assert len({(v.transpose, v.mirror_x, v.mirror_y) for v in drawn}) == 8
    plain = views(40, scale=(1, 1), ratio=(1, 1), flips=False, turns=False)
    assert {(v.left, v.top, v.width, v.height) for v in plain} == {(0, 0, 1, 1)}
    assert not any(v.transpose or v.mirror_x or v.mirror_y for v in plain)


def test_without_turns_north_stays_up():
    assert not any(v.transpose or v.mirror_y for v in views(40, turns=False))
    assert any(v.mirror_x for v in views(40, turns=False))


def test_without_flips_nothing_is_mirrored():
    for view in views(40, flips=False):
        # y turns from down to up, so that a view that is not mirrored has a negative determinant.
        assert np.linalg.det(view.matrix()[0]) < 0


def test_a_crop_that_does_not_fit_is_the_largest_that_does():
    view = Augmentation(scale=(1, 1), ratio=(2, 2)).draw(np.random.default_rng(0))
    assert (view.left, view.width) == (0, 1)
    assert (view.top, view.height) == (0.25, 0.5)


def test_colour_leaves_grey_grey_and_geometry_alone():
    grey = np.repeat(pixels(32, 32)[:1], 3, axis=0)
    turned = Colour(saturation=0.6, hue=0.1).apply(grey)
    assert (turned == grey).all()
    image = pixels(32, 32)
    assert (Colour().apply(image) == image).all()
    assert abs(Colour(brightness=0.5).apply(image) - np.rint(image * 0.5)).max() <= 1
    flat = Colour(contrast=0.0).apply(image)
    assert flat.min() == flat.max()
    drained = Colour(saturation=0.0).apply(image)
    assert (drained[0] == drained[1]).all()
    assert (Colour(hue=0.2).apply(image) != image).any()


def test_a_third_of_a_turn_changes_red_into_green():
    red = np.zeros((3, 4, 4), dtype=np.uint8)
    red[0] = 90
    turned = Colour(hue=1 / 3).apply(red).astype(int)
    assert turned[1].min() > turned[0].max() + 40
    assert turned[1].min() > turned[2].max() + 40


@pytest.mark.parametrize(
    "settings",
    [
        {"scale": (0, 1)},
        {"scale": (0.9, 0.2)},
        {"scale": (0.2, 1.5)},
        {"scale": (math.nan, 1)},
        {"ratio": (0, 1)},
        {"ratio": (1, math.inf)},
        {"brightness": -0.1},
        {"contrast": 1.1},
        {"hue": 0.6},
    ],
)
def test_impossible_settings_are_refused(settings):
    with pytest.raises(ConfigError):
        Augmentation(**settings)


def test_only_intact_png_and_jpeg_are_opened():
    file = io.BytesIO()
    picture(pixels(64, 64)).save(file, "PNG")
    assert open_picture(file.getvalue()).size == (64, 64)
    for broken in (b"", b"GIF89a", file.getvalue()[:300], file.getvalue()[:60] + b"\0" * 200):
        with pytest.raises(InputError, match="not a readable PNG or JPEG"):
            open_picture(broken)

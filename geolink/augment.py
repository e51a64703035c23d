"""Joint augmentation: one random view of a tile, for its image and for the geometry on it.

A view is a crop, one of the eight symmetries of the square, and a change of colour. The image is
resampled to the crop, the objects are moved into its coordinates; a graph built from them is exact
by construction, since clipping, relations and key-points are worked out after the change. Colour
changes the image only (Bai et al. 2025, section 4; crops as in MAE, He et al. 2022).
"""

import io
import math
from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray
from PIL import Image

from geolink.errors import ConfigError, InputError
from geolink.grid import Bounds

Floats = NDArray[np.float64]

# A view's coordinates: x right as in the image, y up as in every graph; north is at 1.
UNIT = Bounds(0.0, 0.0, 1.0, 1.0)

_TRIES = 10
_LUMA = np.array([0.299, 0.587, 0.114])  # grey of red, green and blue, ITU-R BT.601


@dataclass(frozen=True)
class Colour:
    """A change of colour; the defaults change nothing.

    Attributes:
        brightness: factor of all values.
        contrast: factor of the distance to the image's mean grey.
        saturation: factor of the distance to a pixel's own grey.
        hue: turn around the grey axis, as a share of the full circle.
    """

    brightness: float = 1.0
    contrast: float = 1.0
    saturation: float = 1.0
    hue: float = 0.0

    def apply(self, rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """(3, H, W) pixels in the new colours: all four changes in one affine map."""
        if self == Colour():
            return rgb
        pixels = rgb.reshape(3, -1).astype(np.float32)
        linear = self.brightness * self.contrast * self._turn()
        grey = self.brightness * (1 - self.contrast) * (_LUMA @ pixels.mean(axis=1))
        pixels = linear.astype(np.float32) @ pixels
        pixels += np.float32(grey + 0.5)  # rounds where it is cut to whole numbers
        return np.clip(pixels, 0, 255, out=pixels).astype(np.uint8).reshape(rgb.shape)

    def _turn(self) -> Floats:
        """(3, 3) saturation and hue: grey stays, the rest is scaled and turned around it."""
        grey = np.tile(_LUMA, (3, 1))
        angle = 2 * math.pi * self.hue
        axis = 1 / math.sqrt(3)
        cross = axis * np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]])
        around = np.full((3, 3), 1 / 3)
        rotation = (
            math.cos(angle) * np.eye(3) + math.sin(angle) * cross + (1 - math.cos(angle)) * around
        )
        turned: Floats = grey + self.saturation * rotation @ (np.eye(3) - grey)
        return turned


@dataclass(frozen=True)
class View:
    """How a tile is looked at; the defaults show it whole and as it is.

    The crop comes first, then the transposition, then the mirrorings.

    Attributes:
        left, top, width, height: the crop, in tile units.
        transpose: x and y change places.
        mirror_x, mirror_y: the image is mirrored left to right, top to bottom.
        colour: change of the pixels' colours.
    """

    left: float = 0.0
    top: float = 0.0
    width: float = 1.0
    height: float = 1.0
    transpose: bool = False
    mirror_x: bool = False
    mirror_y: bool = False
    colour: Colour = Colour()

    def image(self, picture: Image.Image, side: int) -> NDArray[np.uint8]:
        """(3, side, side) pixels of the view, resampled without aliasing."""
        cols, rows = picture.size
        right, bottom = min(self.left + self.width, 1.0), min(self.top + self.height, 1.0)
        box = (self.left * cols, self.top * rows, right * cols, bottom * rows)
        if picture.mode != "RGB":
            picture = picture.convert("RGB")
        if box != (0, 0, side, side):
            picture = picture.resize((side, side), Image.Resampling.BICUBIC, box=box)
        rgb = np.asarray(picture).transpose(2, 0, 1)
        rgb = rgb.swapaxes(1, 2) if self.transpose else rgb
        rgb = rgb[:, :, ::-1] if self.mirror_x else rgb
        rgb = rgb[:, ::-1] if self.mirror_y else rgb
        return self.colour.apply(np.ascontiguousarray(rgb))

    def matrix(self) -> tuple[Floats, Floats]:
        """(2, 2) and (2,): tile units (y down) to the view's `UNIT` coordinates (y up)."""
        linear = np.diag([1 / self.width, 1 / self.height])
        shift = np.array([-self.left / self.width, -self.top / self.height])
        if self.transpose:
            linear, shift = linear[::-1], shift[::-1]
        # Mirroring top to bottom and turning y up cancel out.
        sign = np.array([-1.0 if self.mirror_x else 1.0, 1.0 if self.mirror_y else -1.0])
        origin = np.array([float(self.mirror_x), float(not self.mirror_y)])
        return sign[:, None] * linear, origin + sign * shift

    def geometry(self, shapes: NDArray[np.object_]) -> NDArray[np.object_]:
        """(N,) geometries from tile units to `UNIT` coordinates; they may reach beyond `UNIT`."""
        linear, shift = self.matrix()
        moved: NDArray[np.object_] = shapely.transform(shapes, lambda xy: xy @ linear.T + shift)
        return moved


@dataclass(frozen=True)
class Augmentation:
    """Which views of a tile are drawn.

    Attributes:
        scale: least and greatest share of the tile's area in a crop.
        ratio: least and greatest width of a crop as a multiple of its height, in pixels.
        flips: mirror half of the views left to right.
        turns: turn views by a random number of quarters.
        brightness, contrast, saturation: greatest relative change, 0-1.
        hue: greatest turn of the hue, as a share of the full circle.
    """

    scale: tuple[float, float] = (0.2, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flips: bool = True
    turns: bool = True
    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.4
    hue: float = 0.05

    def __post_init__(self) -> None:
        if not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise ConfigError(f"the scale of crops is two growing shares, 0-1, got {self.scale}")
        if not (0 < self.ratio[0] <= self.ratio[1] and math.isfinite(self.ratio[1])):
            raise ConfigError(f"the ratio of crops is two growing numbers, got {self.ratio}")
        changes = (self.brightness, self.contrast, self.saturation, 2 * self.hue)
        if not all(0 <= change <= 1 for change in changes):
            raise ConfigError(
                "brightness, contrast and saturation change by 0 to 1, hue by 0 to 0.5; got "
                f"{self.brightness}, {self.contrast}, {self.saturation} and {self.hue}"
            )

    def draw(self, rng: np.random.Generator, aspect: float = 1.0) -> View:
        """A random view of a tile whose image is `aspect` times as wide as high."""
        left, top, width, height = self._crop(rng, aspect)
        mirror, quarters = bool(rng.integers(2)), int(rng.integers(4))
        turned = quarters if self.turns else 0
        return View(
            left,
            top,
            width,
            height,
            transpose=turned % 2 == 1,
            mirror_x=(mirror and self.flips) != (turned in (1, 2)),
            mirror_y=turned in (2, 3),
            colour=Colour(
                brightness=float(rng.uniform(1 - self.brightness, 1 + self.brightness)),
                contrast=float(rng.uniform(1 - self.contrast, 1 + self.contrast)),
                saturation=float(rng.uniform(1 - self.saturation, 1 + self.saturation)),
                hue=float(rng.uniform(-self.hue, self.hue)),
            ),
        )

    def _crop(self, rng: np.random.Generator, aspect: float) -> tuple[float, float, float, float]:
        """Left, top, width and height in tile units; the largest that fits if none drawn does."""
        for _ in range(_TRIES):
            area = rng.uniform(*self.scale)
            ratio = math.exp(rng.uniform(math.log(self.ratio[0]), math.log(self.ratio[1])))
            width, height = math.sqrt(area * ratio / aspect), math.sqrt(area / ratio * aspect)
            if width <= 1 and height <= 1:
                left, top = rng.uniform(0, 1 - width), rng.uniform(0, 1 - height)
                return float(left), float(top), width, height
        ratio = min(max(aspect, self.ratio[0]), self.ratio[1]) / aspect
        width, height = min(ratio, 1.0), min(1 / ratio, 1.0)
        return (1 - width) / 2, (1 - height) / 2, width, height


def open_picture(image: bytes) -> Image.Image:
    """A decoded PNG or JPEG.

    Raises:
        InputError: it is neither, or damaged.
    """
    try:
        picture = Image.open(io.BytesIO(image), formats=("PNG", "JPEG"))
        picture.load()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"an image is not a readable PNG or JPEG ({error})") from error
    return picture

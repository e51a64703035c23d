"""Classes of a map: ids, names and colours, and the value that means "no label"."""

import colorsys
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from geolink.errors import ConfigError

IGNORE = 255


@dataclass(frozen=True)
class MapClass:
    """One class of a legend; `color` is `#rrggbb`."""

    id: int
    name: str
    color: str

    @property
    def rgb(self) -> tuple[int, int, int]:
        """Red, green, blue, 0-255 each."""
        red, green, blue = (int(self.color[i : i + 2], 16) for i in (1, 3, 5))
        return red, green, blue


@dataclass(frozen=True)
class Legend:
    """The classes of one task, ids 0..n-1 in order."""

    name: str
    classes: tuple[MapClass, ...]

    def __post_init__(self) -> None:
        if [c.id for c in self.classes] != list(range(len(self.classes))):
            raise ConfigError(f"legend {self.name!r}: class ids must be 0, 1, 2, ... in order")
        if len({c.name for c in self.classes}) != len(self.classes):
            raise ConfigError(f"legend {self.name!r}: class names must differ")
        for c in self.classes:
            if not c.name.isprintable():  # such names break styles, and what a terminal shows
                raise ConfigError(
                    f"legend {self.name!r}: the name {c.name!r} holds characters that cannot be "
                    "shown; rename the class"
                )
            if not re.fullmatch(r"#[0-9a-fA-F]{6}", c.color):
                raise ConfigError(f"legend {self.name!r}: {c.color!r} is not a #rrggbb colour")

    def __len__(self) -> int:
        return len(self.classes)

    @property
    def names(self) -> tuple[str, ...]:
        """Class names in the order of their ids."""
        return tuple(c.name for c in self.classes)

    def id_of(self, name: str) -> int:
        """Id of the class called `name`.

        Raises:
            ConfigError: there is no such class.
        """
        try:
            return self.names.index(name)
        except ValueError:
            known = ", ".join(self.names)
            raise ConfigError(f"no class {name!r} in legend {self.name!r}: {known}") from None

    def to_dict(self) -> dict[str, Any]:
        """Plain data for a card or a metadata record."""
        return {
            "name": self.name,
            "classes": [{"id": c.id, "name": c.name, "color": c.color} for c in self.classes],
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "Legend":
        """The inverse of `to_dict`.

        Raises:
            ConfigError: the record lacks a part or has one of the wrong type.
        """
        try:
            classes = tuple(
                MapClass(int(c["id"]), str(c["name"]), str(c["color"])) for c in data["classes"]
            )
            return cls(str(data["name"]), classes)
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(f"the legend is not readable: {error!r}") from None


def new_legend(name: str, classes: Sequence[str]) -> Legend:
    """A legend of these class names, with colours that neighbours in the list do not share."""
    return Legend(name, tuple(MapClass(i, c, _color(i)) for i, c in enumerate(classes)))


def _color(number: int) -> str:
    """Hues by the golden angle, which never come close to the one before; tones in turn."""
    lightness = (0.5, 0.65, 0.38)[number % 3]
    rgb = colorsys.hls_to_rgb(0.61803398875 * number % 1.0, lightness, 0.6)
    return "#" + "".join(f"{round(255 * part):02x}" for part in rgb)


# The nine urban functional zones of GeoLink (Bai et al. 2025, section 4), coloured after land-use
# convention: yellow homes, red business, purple industry, dark blue institutions, light blue water,
# greens, grey waste land, and streets almost white, so that blocks stand out between them. The
# tones were searched for the largest distance of the closest two, also to readers who lack one
# kind of cone.
UFZ = Legend(
    "ufz",
    (
        MapClass(0, "water", "#50bbf8"),
        MapClass(1, "green", "#58a75c"),
        MapClass(2, "farmland", "#e5d174"),
        MapClass(3, "undeveloped", "#8b857b"),
        MapClass(4, "residential", "#ffad12"),
        MapClass(5, "commercial", "#d43d2f"),
        MapClass(6, "institution", "#182a86"),
        MapClass(7, "industrial", "#a251a5"),
        MapClass(8, "transport", "#f2f2f2"),
    ),
)

"""How the tiles of a place are cut: at which scales, in which looks, how large and how many."""

import math
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from geolink.datasets.scenes import SceneTiles
from geolink.errors import ConfigError
from geolink.grid import PixelWindow
from geolink.legend import Legend
from geolink.samples import SceneSampler
from geolink.sources.base import SourceInfo
from geolink.sources.simulated import SimulatedImagery
from geolink.tiles import TilePlan
from geolink.workflows.scene import TILE_SIDE, Scene, lay_grid

_PATCH = 16  # pixels of which a tile's side is a multiple


@dataclass(frozen=True)
class Cutting:
    """Which tiles of a place become samples.

    Attributes:
        gsds: metres per pixel, a set of tiles for each; empty takes that of the request.
        looks: appearances of simulated imagery. The first is that of the seed; every other one
            belongs to this place alone, and its tiles lie otherwise than those of the first.
        tiles: greatest number per place, scale and look, drawn at random; None takes all.
        side: height and width of a tile, pixels.
    """

    gsds: tuple[float, ...] = ()
    looks: int = 1
    tiles: int | None = None
    side: int = TILE_SIDE

    def __post_init__(self) -> None:
        if not all(math.isfinite(gsd) and gsd > 0 for gsd in self.gsds):
            raise ConfigError("ground sampling distances are positive numbers of metres")
        if len(set(self.gsds)) < len(self.gsds):
            raise ConfigError("a ground sampling distance is named twice; each is cut once")
        if self.looks < 1 or (self.tiles is not None and self.tiles < 1):
            raise ConfigError("a place needs one look or more, and one tile or more of each")
        if self.side < 2 * _PATCH or self.side % _PATCH:
            raise ConfigError(
                f"the side of a tile is a multiple of {_PATCH} pixels from {2 * _PATCH} on, "
                f"not {self.side}"
            )

    @property
    def coarsest(self) -> float | None:
        """The greatest ground sampling distance that is asked for."""
        return max(self.gsds, default=None)

    @property
    def series(self) -> int:
        """Sets of tiles of each place."""
        return max(len(self.gsds), 1) * self.looks


def cut_tiles(
    scene: Scene,
    sampler: SceneSampler,
    cutting: Cutting,
    *,
    legend: Legend,
    sources: Sequence[SourceInfo],
    seed: int,
) -> Iterator[SceneTiles]:
    """The labelled tiles of a scene, one data set for each scale and look.

    Args:
        scene: the place; it was built for the coarsest scale.
        sampler: cuts samples out of it.
        cutting: which.
        legend: classes of the labels.
        sources: where images, OSM and labels come from.
        seed: of the first look, and of the draw of tiles.

    Raises:
        ConfigError: imagery that is not simulated has one look.
        CoverageError: no tile of a set has labels.
    """
    place = scene.place
    for gsd in cutting.gsds or (scene.grid.gsd,):
        _, plan = lay_grid(place, gsd, 0.0, side=cutting.side)
        for look in range(seed, seed + cutting.looks):
            name = f"{gsd:g}m look {look}"
            rng = np.random.default_rng([look, zlib.crc32(f"{place.name} {name}".encode())])
            first = look == seed
            own = plan if first else _moved(plan, rng)
            tiles = own.tiles_in(scene.aoi)
            yield SceneTiles(
                sampler if first else _seen_anew(sampler, place.name, look),
                own,
                (tiles if cutting.tiles is None else rng.permutation(tiles)).tolist(),
                legend=legend,
                city=place.name,
                series=name if cutting.series > 1 else "",
                limit=cutting.tiles,
                sources=sources,
            )


def _moved(plan: TilePlan, rng: np.random.Generator) -> TilePlan:
    """The tiling moved north-west by less than a tile, so that other borders fall between tiles."""
    grid = plan.grid
    down, right = rng.integers(plan.side, size=2).tolist()
    wider = PixelWindow(-down, -right, grid.height + down, grid.width + right)
    return TilePlan(grid.subgrid(wider), plan.side, plan.overlap_px)


def _seen_anew(sampler: SceneSampler, place: str, look: int) -> SceneSampler:
    """A place as another flight sees it, which is a flight of its own for every place."""
    if not isinstance(sampler.imagery, SimulatedImagery):
        raise ConfigError("only simulated imagery has more than one look; leave out --looks")
    flight = zlib.crc32(f"{place} look {look}".encode())
    return sampler.with_imagery(sampler.imagery.with_seed(flight))

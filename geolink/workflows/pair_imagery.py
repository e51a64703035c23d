"""Where pretraining pairs come from: imagery on disk, rendered, or fetched for OSM's area."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from geolink.errors import ConfigError, InputError
from geolink.sources.candidates import PairSource
from geolink.sources.osm_extents import osm_extent
from geolink.sources.pairs import fetched_pairs, find_pairs, simulated_pairs
from geolink.sources.scene_pairs import TILE_SIDE
from geolink.sources.specs import ImagerySpec, LocalImagery, Simulated, parse_imagery
from geolink.workflows.acquire import gather
from geolink.workflows.request import SourceRequest, public_spec
from geolink.workflows.site import FROM, Supply, locate, way_out_named


@dataclass(frozen=True)
class PairImagery:
    """The imagery and the OSM files of a set of pairs.

    Imagery on disk takes the OSM file that covers it; what is rendered or fetched is so for the
    area of every OSM file.

    Attributes:
        specs: rasters and folders, `simulated`, `sentinel2...`, `stac:...` or `xyz:...`.
        osm: extracts or vector files.
        gsd: metres per pixel of the tiles, a set of tiles for each; by default the imagery's own.
        side: height and width of the tiles, pixels.
        seeds: looks of simulated imagery.
        limit: greatest number of simulated tiles per extract, look and ground sampling distance.
        terms: note of the licence of map tiles.
        offline: use nothing but what is here.

    Raises:
        ConfigError: a specification cannot be read, or two would get the same name.
    """

    specs: tuple[str | Path, ...]
    osm: tuple[Path, ...] = ()
    gsd: tuple[float, ...] = ()
    side: int = TILE_SIDE
    seeds: tuple[int, ...] = (0,)
    limit: int | None = None
    terms: str | None = None
    offline: bool = False

    def __post_init__(self) -> None:
        if not self.specs:
            raise ConfigError("name the imagery of the pairs: files, simulated, or where to fetch")
        for spec in self.specs:
            parse_imagery(spec)
        name, count = Counter(map(public_spec, self.specs)).most_common(1)[0]
        if count > 1:
            raise ConfigError(
                f"two images are called {name}; rename one, or put both in a folder and name that"
            )

    def sources(self, supply: Supply) -> list[PairSource]:
        """The sources of all pairs; what is missing is fetched.

        Raises:
            InputError: an input is missing or cannot be used.
            UnavailableError: imagery cannot be had.
            OutputError: the cache cannot be written.
        """
        return [
            source
            for spec in self.specs
            for source in self._sources_of(spec, parse_imagery(spec), supply)
        ]

    def _sources_of(
        self, spec: str | Path, parsed: ImagerySpec, supply: Supply
    ) -> Sequence[PairSource]:
        if isinstance(parsed, LocalImagery):
            return find_pairs(parsed.path, self.osm, gsd=self.gsd, side=self.side)
        if isinstance(parsed, Simulated):
            return simulated_pairs(
                self.osm, seeds=self.seeds, gsd=self.gsd, side=self.side, limit=self.limit
            )
        return [*self._fetched(str(spec), supply)]

    def _fetched(self, spec: str, supply: Supply) -> Iterator[PairSource]:
        """Imagery of the area of each OSM file, as `predict` fetches that of a place."""
        if not self.osm:
            raise InputError(f"imagery {public_spec(spec)} is fetched for the area of OSM files")
        for osm in self.osm:
            request = SourceRequest(
                bbox=osm_extent(osm),
                imagery=spec,
                osm=osm,
                gsd=min(self.gsd, default=None),
                accept_imagery_terms=self.terms,
                offline=self.offline,
            )
            site = locate(request, supply)
            with way_out_named(request, site):
                (entry,) = gather(request, site, supply).entries
            name = f"{osm.name}{FROM}{public_spec(spec)}"
            yield from fetched_pairs(
                entry.path, osm, name=name, info=entry.info, gsd=self.gsd, side=self.side
            )

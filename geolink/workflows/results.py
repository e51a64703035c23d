"""What a prediction made, or would make, as records that a command shows or prints as JSON."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from geolink.workflows.stages import StageReport


@dataclass(frozen=True)
class ClassSummary:
    """What the map says of one class; confidence and gain are weighted by area."""

    name: str
    color: str
    zones: int
    area_m2: float
    confidence: float
    osm_gain: float


@dataclass(frozen=True)
class PredictResult:
    """What a prediction made.

    Attributes:
        out: the GeoPackage, a file or an address.
        title: what the map shows; it says so where the imagery is simulated.
        classes: one summary per class of the legend.
        tiles: number of tiles by status.
        simulated: True where the imagery was rendered, not observed.
        seconds: wall time.
        stages: how busy reading, graphs and model were; None where others scored the tiles.
        metadata: the record that went into the GeoPackage.
    """

    out: Path | str
    title: str
    classes: list[ClassSummary]
    tiles: dict[str, int]
    simulated: bool
    seconds: float
    metadata: dict[str, Any] = field(repr=False)
    stages: StageReport | None = None

    @property
    def caption(self) -> str:
        """What was left out of the OSM extract, and why; empty where nothing was."""
        dropped: dict[str, int] = self.metadata["dropped_entities"]
        counts = ", ".join(f"{count:,} with {reason}" for reason, count in dropped.items())
        return f"OSM objects left out: {counts}" if counts else ""

    @property
    def summary(self) -> str:
        """One line for people."""
        zones = sum(c.zones for c in self.classes)
        area = sum(c.area_m2 for c in self.classes) / 1e6
        line = f"{self.out}: {zones:,} zones over {area:.2f} km² in {self.seconds:.0f} s"
        if self.simulated:
            line += " (SIMULATED imagery, drawn from OSM)"
        for warning in self.metadata["warnings"]:
            line += f"; {warning}"
        if failed := self.tiles.get("failed"):
            line += f"; {failed} tiles FAILED, see the layer `tiles`; the same command retries them"
        return line

    def to_dict(self) -> dict[str, Any]:
        """The record as plain JSON data."""
        return {**asdict(self), "out": str(self.out)}


@dataclass(frozen=True)
class PredictPlan:
    """What a prediction would do: area, grid, tiles, sources, downloads and disk space."""

    title: str
    out: Path | str
    area_km2: float
    crs: str
    gsd: float
    height: int
    width: int
    tiles: int
    work_bytes: int
    model: str
    sources: list[dict[str, Any]]
    downloads: list[dict[str, Any]]

    @property
    def summary(self) -> str:
        """One line for people."""
        fetched = " after fetching what is missing" if self.downloads else ""
        return f"nothing written; a run would write {self.out}{fetched}"

    def rows(self) -> list[tuple[str, str]]:
        """Names and values for a table."""
        sources = [
            (
                f"source {i + 1}",
                ", ".join(str(v) for v in source.values() if v not in (None, False)),
            )
            for i, source in enumerate(self.sources)
        ]
        return [
            ("area", f"{self.area_km2:.2f} km²"),
            ("grid", f"{self.width:,} x {self.height:,} px of {self.gsd:g} m, {self.crs}"),
            ("tiles", f"{self.tiles:,}"),
            (
                "work space",
                f"{self.work_bytes / 1e6:,.0f} MB beside the output, removed at the end",
            ),
            ("model", self.model),
            *sources,
            *download_rows(self.downloads),
        ]

    def to_dict(self) -> dict[str, Any]:
        """The plan as plain JSON data."""
        return {**asdict(self), "out": str(self.out)}


def download_rows(downloads: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Names and values for a table: what would be fetched, how much, and its terms."""
    rows = [(f"download {d['kind']}", f"{d['size']}; {d['terms']}") for d in downloads]
    return rows or [("download", "nothing")]

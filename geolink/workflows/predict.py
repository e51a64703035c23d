"""`predict`: a place in, a styled GeoPackage of its functional zones out.

What can be refused without a model is refused before the seconds that importing torch takes.
"""

import re
import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geolink.errors import OutputError
from geolink.files import require_writable
from geolink.sources.cache import Cache
from geolink.sources.network import Network
from geolink.sources.places import Place
from geolink.workflows.acquire import gather, local_model
from geolink.workflows.elsewhere import outputs_there, shown, sources_here
from geolink.workflows.progress import Progress, silent
from geolink.workflows.request import PredictRequest
from geolink.workflows.results import PredictPlan, PredictResult
from geolink.workflows.site import Site, Supply, locate, way_out_named
from geolink.workflows.stock import announce, take_stock
from geolink.workflows.work_folder import may_replace

if TYPE_CHECKING:
    from geolink.workflows.mapping import Crew


def predict(
    request: PredictRequest | None = None,
    progress: Progress = silent,
    **settings: Any,  # noqa: ANN401 - checked by PredictRequest
) -> PredictResult:
    """Maps the functional zones of a place into a GeoPackage.

    Imagery, OSM and model that are not here are fetched into the cache first. Tiles are then
    scored, here or by the workers of a scheduler, into a work folder beside the output; a run that
    is cut goes on from there and ends with the same bytes.

    Args:
        request: what to do; or give its fields by name, as in `predict(city="sample")`.
        progress: called with (stage, done, total).
        **settings: fields of a `PredictRequest`.

    Raises:
        InputError: an input or a setting cannot be used.
        UnavailableError: data, a model or a scheduler is not here, and cannot be had.
        CheckpointError: the model cannot be loaded.
        OutputError: an output or the cache cannot be written.
    """
    request = request or PredictRequest(**settings)
    started = time.monotonic()
    supply = Supply(Cache(), Network(offline=request.offline, progress=progress))
    with outputs_there(request, supply.cache) as asked:
        result = _draw(sources_here(asked, supply), supply, open_crew(request), progress)
    return replace(result, out=shown(request.out or result.out), seconds=time.monotonic() - started)


def _draw(
    request: PredictRequest,
    supply: Supply,
    hired: AbstractContextManager["Crew"],
    progress: Progress,
) -> PredictResult:
    """As `predict`, with sources and outputs that are files, and a crew that is still to be met."""
    site = locate(request, supply)
    wanted = take_stock(request, site, supply)
    out = output_path(request, site.place)
    require_outputs(request, out, local_files(request, site))
    with hired as crew:
        from geolink.workflows.mapping import draw_map, open_model

        announce(wanted)
        with way_out_named(request, site):
            model = open_model(local_model(request.model, supply))
            materials = gather(request, site, supply)
        require_outputs(request, out, materials.files)
        return draw_map(request, materials, model, out, crew=crew, progress=progress)


def plan(
    request: PredictRequest | None = None,
    **settings: Any,  # noqa: ANN401 - checked by PredictRequest
) -> PredictPlan:
    """What `predict` would do with the same arguments, without fetching or writing anything.

    Raises:
        InputError, UnavailableError, CheckpointError: as `predict`.
    """
    request = request or PredictRequest(**settings)
    supply = Supply(Cache(), Network(offline=request.offline))
    request = sources_here(request, replace(supply, network=Network(offline=True)))
    site = locate(request, supply)
    wanted = take_stock(request, site, supply)

    from geolink.workflows.mapping import plan_map

    planned = plan_map(request, site, wanted, supply, output_path(request, site.place))
    return replace(planned, out=shown(planned.out))


@contextmanager
def open_crew(request: PredictRequest) -> Iterator["Crew"]:
    """Who scores the tiles of a request: this process, or the workers of its scheduler.

    Raises:
        ConfigError: the device that it names is not there.
        UnavailableError: the scheduler does not answer, or its workers cannot be used.
    """
    if request.scheduler is not None:
        from geolink.workflows.cluster import connect

        with connect(request.scheduler, request) as cluster:
            yield cluster
    else:
        from geolink.workflows.mapping import LocalCrew

        yield LocalCrew(request.device)


def output_path(request: PredictRequest, place: Place) -> Path:
    """The GeoPackage of a request: as asked, else the place's name in the current folder."""
    if request.out is not None:
        return request.out
    return Path(re.sub(r"[^\w.-]+", "_", place.name).strip("._") + ".gpkg")


def require_outputs(request: PredictRequest, out: Path, inputs: Iterable[Path]) -> None:
    """Check that every output can be written, and is not one of the inputs.

    Raises:
        OutputError: one of them cannot be.
    """
    inputs = [file for file in inputs if file.exists()]
    for target in filter(None, (out, request.raster, request.probabilities, request.preview)):
        if target.exists() and any(map(target.samefile, inputs)):
            raise OutputError(f"{target} is an input of this map; choose another output")
        require_writable(target, overwrite=may_replace(request, out, target))


def local_files(request: PredictRequest, site: Site) -> list[Path]:
    """The files that a request names as its inputs."""
    pictures = [] if site.raster is None else [Path(raster.path) for raster in site.raster.rasters]
    named = (request.aoi, None if request.osm is None else Path(request.osm))
    return [*pictures, *(path for path in named if path is not None)]

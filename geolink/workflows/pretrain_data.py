"""The data of a pretraining run: its folder, its shards, and what turns tags into vectors."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from geolink.files import full_disk_named
from geolink.graphs.tags import TableTagEncoder, TagEncoder, bundled_key_counts
from geolink.graphs.text_encoders import MiniLmTagEncoder, open_tag_encoder
from geolink.sources.addresses import is_address
from geolink.sources.cache import Cache
from geolink.sources.manifest import MANIFEST, Manifest
from geolink.sources.model_files import CARD, WEIGHTS
from geolink.sources.models import RELEASED_TEXT_ENCODER
from geolink.sources.network import Network
from geolink.training.distributed import world
from geolink.training.logs import CSV, EVENTS
from geolink.training.state import STATE
from geolink.workflows.pretrain_hooks import PICTURES
from geolink.workflows.pretrain_request import PretrainRequest
from geolink.workflows.progress import Progress
from geolink.workflows.run_folder import NOTE, claim, require_free
from geolink.workflows.shard_building import ShardRequest, build_shards

SHARDS = "shards"

_RUN = (STATE, CARD, WEIGHTS, CSV, EVENTS, PICTURES, NOTE)


@dataclass(frozen=True)
class Semantics:
    """What turns the tags of objects into vectors.

    Attributes:
        encoder: turns tag strings into vectors.
        name: of the encoder, by which a model's card finds it again.
        key_counts: corpus count per tag key.
    """

    encoder: TagEncoder
    name: str
    key_counts: Mapping[str, int]


def open_semantics(request: PretrainRequest, manifest: Manifest) -> Semantics:
    """The tag encoder and the key counts of a run.

    Key counts are the corpus's own in the released profile, as in the paper; otherwise those of
    keys that tell what an object is.

    Raises:
        UnavailableError: a text model cannot be had, or its extra is not installed.
    """
    counts = manifest.key_counts if request.profile == "released" else bundled_key_counts()
    if request.encoder_name == "table":
        table = TableTagEncoder()
        return Semantics(table, table.name, counts)
    clip = request.encoder_name == "clip"
    name = f"clip-{RELEASED_TEXT_ENCODER}" if clip else MiniLmTagEncoder.name
    network = Network(offline=request.offline)
    encoder = open_tag_encoder(name, cache=Cache(), network=network)
    assert encoder is not None  # the name is a known one
    return Semantics(encoder, name, counts)


def prepare(request: PretrainRequest, progress: Progress) -> str | Path:
    """Claims the run folder, and says where the shards are.

    Where they must be built, process 0 does it before the others go on.

    Raises:
        OutputError: the folder holds a run, or cannot be written.
        InputError, UnavailableError: data cannot be read or had.
    """
    again = {"resume": request.resume, "overwrite": request.overwrite}
    shards: str | Path = request.out / SHARDS
    given = request.images is not None and _holds_shards(request.images)
    if given:
        assert request.images is not None
        shards = request.images
    elif world()[0] == 0:
        require_free(request.out, _RUN, **again)
        with full_disk_named(request.out):
            request.out.mkdir(exist_ok=True)
        build_shards(_shard_request(request), progress)
    claim(request.out, _RUN, **again)
    return shards


def _holds_shards(images: str | Path) -> bool:
    return is_address(images) or (Path(images) / MANIFEST).is_file()


def _shard_request(request: PretrainRequest) -> ShardRequest:
    """The shards that a run builds in its folder."""
    return ShardRequest(
        out=request.out / SHARDS,
        imagery=request.imagery if request.images is None else Path(request.images),
        osm=request.osm,
        gsd=request.gsd,
        side=request.image_size,
        limit=request.tiles,
        accept_imagery_terms=request.accept_imagery_terms,
        offline=request.offline,
        workers=request.training.workers,
        overwrite=request.overwrite,
    )

"""Models by name, in the cache: weights with what belongs to them, and text encoders.

The first fetch records the hash of every file; later ones check it.
"""

import logging
import os
import re
from collections.abc import Callable
from pathlib import Path

from geolink.errors import UnavailableError
from geolink.files import sha256_of
from geolink.sources.addresses import is_address
from geolink.sources.base import SourceInfo
from geolink.sources.cache import Cache, Entry
from geolink.sources.model_files import CARD, RELEASED_SUFFIXES, FoundModel, json_object
from geolink.sources.model_origins import HUB_FOLDER, parse_origin
from geolink.sources.network import Network, NotFoundError

logger = logging.getLogger(__name__)

# Of the released weights, which come without a card that says so.
RELEASED_TEXT_ENCODER = "openai/clip-vit-base-patch16"

_TEXT_WEIGHTS = "model.safetensors"
_TOKENIZER_FILES = (
    "merges.txt",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
)


def is_remote(spec: str) -> bool:
    """Whether a model is named by something that has to be fetched."""
    return spec.startswith(("hf:", "gdrive:")) or is_address(spec)


def fetch_model(spec: str, *, cache: Cache, network: Network) -> Path:
    """The weight file of a remote model, from the cache or fetched into it.

    A cached model is used without asking the network, whether or not its revision is pinned;
    removing its entry is what fetches a newer one.

    Args:
        spec: `hf:owner/repo[@revision][/file]`, an address, or `gdrive:ID`.
        cache: where it is kept, with its card or key counts beside it.
        network: used where it is missing or damaged.

    Raises:
        ConfigError: the specification cannot be read.
        UnavailableError: it cannot be had, or is not the file that was fetched first.
        OutputError: the cache cannot be written.
    """
    origin = parse_origin(spec)
    entry = _obtain(
        origin.name,
        lambda folder: origin.fetch(folder, network),
        cache=cache,
        require=lambda: network.require(
            f"the model {origin.name}", f"geolink fetch --model {origin.name}"
        ),
    )
    name = str(entry.details.get("weights"))
    if name not in entry.files:
        raise UnavailableError(
            f"the cached model {entry.name} does not say which file has its weights; remove it "
            f"with `geolink fetch --remove {entry.name}` and fetch it again"
        )
    return entry.file(name)


def text_encoder_of(weights: Path) -> str | None:
    """Hub name of the text model that a local model's tags need; None where none is needed."""
    if weights.suffix in RELEASED_SUFFIXES:
        return RELEASED_TEXT_ENCODER
    for path in (weights.with_suffix(".json"), weights.with_name(CARD)):
        encoder = str(json_object(path.read_bytes()).get("tag_encoder")) if path.is_file() else ""
        if re.fullmatch(r"clip-[\w.-]+/[\w.-]+", encoder):
            return encoder.removeprefix("clip-")
    return None


def fetch_text_encoder(name: str, *, cache: Cache, network: Network) -> Path:
    """Folder of a text model and its tokenizer, as `from_pretrained` reads it without network.

    Weights are safetensors only: those of the repository, else those that the hub's converter
    offers for it.

    Args:
        name: on the hub, owner/name.
        cache: where it is kept.
        network: used where it is missing.

    Raises:
        UnavailableError: it cannot be had, or has no such weights.
        OutputError: the cache cannot be written.
    """
    entry = _obtain(
        f"text-encoder:{name}",
        lambda folder: _bring_text_encoder(name, folder, network),
        cache=cache,
        require=lambda: network.require(f"the text encoder {name}", "geolink fetch --model MODEL"),
    )
    return entry.folder


def _obtain(
    name: str,
    bring: Callable[[Path], FoundModel],
    *,
    cache: Cache,
    require: Callable[[], None],
) -> Entry:
    """The entry of a model, whose files have the hashes of the first fetch.

    Args:
        name: of the entry.
        bring: fetches the files into a folder.
        cache: where it is looked for and kept.
        require: refuses to fetch where that is forbidden.
    """
    known = cache.find("model", name)
    problems = cache.verify(known) if known else []
    if known and not problems:
        return known
    for problem in problems:
        logger.warning("%s is damaged and fetched again: %s", name, problem)
    require()
    with cache.staging("model", name) as folder:
        entry = cache.find("model", name)  # of another process
        if entry is not None and not cache.verify(entry):
            return entry
        found = bring(folder)
        if known is not None:
            _require_same(known, found.weights, folder)
        return cache.publish(
            "model",
            name,
            folder,
            source=found.source,
            info=SourceInfo(name, date=found.date, licence=found.licence),
            details={**found.details, "weights": found.weights},
        )


def _require_same(known: Entry, weights: str, folder: Path) -> None:
    """Refuse other weights than those of the first fetch.

    Raises:
        UnavailableError: their hash is another.
    """
    record = known.files.get(weights)
    if record is None or sha256_of(folder / weights) != record["sha256"]:
        raise UnavailableError(
            f"{known.name} is no longer the file that was first fetched on {known.fetched[:10]}; "
            f"if you trust the new one, remove the old with `geolink fetch --remove {known.name}`"
        )


def _bring_text_encoder(name: str, folder: Path, network: Network) -> FoundModel:
    """Brings a text model and its tokenizer into `folder`."""
    from geolink.sources.hub import Hub  # slow to import, and needed here only

    hub = Hub(network)
    snapshot = weights = hub.snapshot(name, None)
    if _TEXT_WEIGHTS not in snapshot.hashes:
        weights = hub.snapshot(name, hub.converted_revision(name))
    if _TEXT_WEIGHTS not in weights.hashes or "config.json" not in snapshot.hashes:
        raise NotFoundError(
            f"{name} is no text encoder with safetensors weights; save its text model and "
            "tokenizer to a folder with `save_pretrained`, and use that"
        )
    names = ["config.json", *(n for n in _TOKENIZER_FILES if n in snapshot.hashes)]
    paths = [hub.download(snapshot, name, folder / HUB_FOLDER) for name in names]
    paths.append(hub.download(weights, _TEXT_WEIGHTS, folder / HUB_FOLDER))
    for path in paths:
        os.replace(path, folder / path.name)
    return FoundModel(
        _TEXT_WEIGHTS,
        f"{hub.endpoint}/{name}",
        weights.licence,
        weights.date,
        {"commit": weights.commit},
    )

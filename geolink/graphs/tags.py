"""From OSM tags to semantic features: strings, weights, encoders, and their cache.

A tag is spelt `key:value` with the colons inside a key as spaces (`addr street:Main Street`), as in
the count table and the text encoder's input of GeoLink (Bai et al. 2025, section 3.1). A node's
feature is the mean of its tags' vectors, each weighted by the logarithm of its key's count.
"""

import hashlib
import json
import logging
import math
import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from scipy.sparse import csr_array

from geolink.errors import InputError

logger = logging.getLogger(__name__)

Vectors = NDArray[np.float32]

_ASSETS = files("geolink") / "assets" / "tags"
_SQL_VARIABLES = 900  # SQLite builds refuse more than 999 in one statement


class TagEncoder(Protocol):
    """Anything that turns tag strings into vectors, each string on its own."""

    @property
    def name(self) -> str:
        """Identifies the weights: equal names give equal vectors."""
        ...

    @property
    def dim(self) -> int:
        """Length of the vectors."""
        ...

    def encode(self, strings: Sequence[str]) -> Vectors:
        """(N, dim) vectors of N tag strings, in their order."""
        ...


# Strings and weights


def tag_key(key: str) -> str:
    """A key as the count tables spell it: `addr:street` is `addr street`."""
    return key.replace(":", " ")


def tag_strings(tags: Mapping[str, Any] | None) -> list[str]:
    """The strings of one object's tags, in their order; tags without a value are left out."""
    return [f"{tag_key(key)}:{value}" for key, value in (tags or {}).items() if value is not None]


def load_key_counts(path: str | Path) -> dict[str, int]:
    """Reads a count table: a JSON object from tag key to its number of occurrences.

    Raises:
        InputError: the file cannot be read, or is no such table.
    """
    try:
        return _parse_key_counts(Path(path).read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"the key counts in {path} cannot be read ({error})") from error


def bundled_key_counts() -> dict[str, int]:
    """Counts of the keys that say what an object is, from the extracts of the bundled tag table.

    Keys of names, addresses and bookkeeping are not in it, so they weigh nothing beside others.
    """
    asset = _ASSETS / "key_counts.json"
    return _parse_key_counts(asset.read_text(encoding="utf-8"), asset.name)


def _parse_key_counts(text: str, where: str) -> dict[str, int]:
    try:
        table = json.loads(text)
    except ValueError as error:
        raise InputError(f"{where} is not JSON ({error}); key counts are {{key: count}}") from error
    if not isinstance(table, dict):
        raise InputError(f"{where} holds no JSON object; key counts are {{key: count}}")
    for key, count in table.items():
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise InputError(
                f"{where} counts {key!r} as {count!r}; a count is a whole number from 1"
            )
    return {tag_key(key): count for key, count in table.items()}


def encode_tags(
    tags: Sequence[Mapping[str, Any] | None], encoder: TagEncoder, key_counts: Mapping[str, int]
) -> Vectors:
    """Semantic features of N objects: weighted means over their tags.

    A tag weighs log(count of its key), an unknown key nothing; where all weights of an object are
    0, its tags weigh the same. Every distinct string is encoded once.

    Args:
        tags: tags of each object, keys as OSM spells them; None and `{}` give zeros.
        encoder: turns tag strings into vectors of length D.
        key_counts: occurrences per key, spelt as `tag_key` does.

    Returns:
        (N, D) float32.
    """
    strings = [tag_strings(mapping) for mapping in tags]
    position: dict[str, int] = {}
    columns = np.array(
        [position.setdefault(string, len(position)) for some in strings for string in some],
        dtype=np.int64,
    )
    if not position:
        return np.zeros((len(tags), encoder.dim), dtype=np.float32)
    lengths = np.array([len(some) for some in strings])
    rows = np.repeat(np.arange(len(tags)), lengths)
    shares = _row_shares(_weights(position, key_counts)[columns], rows, len(tags))
    starts = np.concatenate(([0], np.cumsum(lengths)))
    means = csr_array((shares, columns, starts), shape=(len(tags), len(position)))
    features: Vectors = means @ encoder.encode(list(position))
    return features


def _weights(strings: Iterable[str], key_counts: Mapping[str, int]) -> NDArray[np.float64]:
    keys = (string.partition(":")[0] for string in strings)
    return np.array([math.log(key_counts.get(key, 1)) for key in keys])


def _row_shares(weights: NDArray[np.float64], rows: NDArray[np.int64], count: int) -> Vectors:
    """`weights` divided by their sum per row; equal shares in rows that sum to 0."""
    totals = np.bincount(rows, weights, minlength=count)
    weights = np.where(totals[rows] > 0, weights, 1.0)
    totals = np.bincount(rows, weights, minlength=count)
    return (weights / totals[rows]).astype(np.float32)


# The table that needs no text model


class TableTagEncoder:
    """Vectors of frequent tags, looked up; others are told from the tags they resemble.

    The bundled table holds all-MiniLM-L6-v2 embeddings of tags whose values are words
    (`shop:bakery`) and of tag keys alone (`shop`). A string outside it gets the first of these that
    exists, scaled to unit length:

    1. the string in lower case, without blanks at its ends;
    2. for several values (`cuisine:pizza;kebab`), the mean of what each alone would get;
    3. the mean of the known values of its key, in lower case (`shop:unheard-of`);
    4. its key's own vector: keys of names and numbers have no known values (`name:Foo`);
    5. 3 and 4 for the key without its last word (`building colour` -> `building`), and so on;
    6. the mean of the table.

    Args:
        path: a table made by `examples/tag_table/build.py`; None is the bundled one.
    """

    def __init__(self, path: str | Path | None = None) -> None:
        data = (_ASSETS / "minilm.safetensors").read_bytes() if path is None else _bytes(path)
        strings, vectors = _parse_table(
            data, "the bundled tag table" if path is None else str(path)
        )
        self._name = f"table-{hashlib.sha256(data).hexdigest()[:12]}"
        self._vectors: dict[str, Vectors] = dict(zip(strings, vectors, strict=True))
        self._of_key = _key_vectors(self._vectors)
        self._default = _unit(vectors.mean(axis=0))

    @property
    def name(self) -> str:
        """`table-` and the start of the table's SHA-256."""
        return self._name

    @property
    def dim(self) -> int:
        """Length of the vectors."""
        return len(self._default)

    def encode(self, strings: Sequence[str]) -> Vectors:
        """(N, dim) vectors of N tag strings."""
        if not strings:
            return np.zeros((0, self.dim), dtype=np.float32)
        return np.stack([self._vector(string) for string in strings])

    def _vector(self, string: str) -> Vectors:
        known = self._vectors.get(string)
        if known is not None:
            return known
        key, _, value = string.strip().casefold().partition(":")
        values = [part for piece in value.split(";") if (part := piece.strip())]
        if not values:
            return self._key_vector(key)
        parts = [self._value_vector(key, value) for value in values]
        return parts[0] if len(parts) == 1 else _unit(np.mean(parts, axis=0))

    def _value_vector(self, key: str, value: str) -> Vectors:
        known = self._vectors.get(f"{key}:{value}")
        return self._key_vector(key) if known is None else known

    def _key_vector(self, key: str) -> Vectors:
        while key and key not in self._of_key:
            key = key.rpartition(" ")[0]
        return self._of_key.get(key, self._default)


def _bytes(path: str | Path) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"the tag table {path} cannot be read ({error.strerror})") from error


def _parse_table(data: bytes, where: str) -> tuple[list[str], Vectors]:
    """Strings and their (N, D) unit vectors."""
    try:
        table = load_tensors(data)
        strings = table["strings"].tobytes().decode().split("\n")
        vectors = table["vectors"].astype(np.float32)
    except (SafetensorError, KeyError, UnicodeDecodeError) as error:
        raise InputError(f"{where} is damaged or no tag table ({error}); build it again") from error
    if len(strings) != len(vectors):
        raise InputError(f"{where} has {len(strings)} strings for {len(vectors)} vectors")
    return strings, vectors


def _key_vectors(vectors: Mapping[str, Vectors]) -> dict[str, Vectors]:
    """What an unknown value of each key gets: the mean of the known ones, else the key itself."""
    values: defaultdict[str, list[Vectors]] = defaultdict(list)
    keys: dict[str, Vectors] = {}
    for string, vector in vectors.items():
        key, colon, _ = string.casefold().partition(":")
        if colon:
            values[key].append(vector)
        else:
            keys[key] = vector
    return keys | {key: _unit(np.mean(known, axis=0)) for key, known in values.items()}


def _unit(vector: Vectors) -> Vectors:
    length = np.linalg.norm(vector)
    return vector / length if length > 0 else vector


# The cache of encoders that cost time


class CachedTagEncoder:
    """Asks another encoder for each string once, and keeps the answers on disk.

    Several processes may share the file. A damaged file is made anew; where none can be written,
    the vectors stay in memory and a warning is logged.

    Args:
        encoder: the encoder to ask.
        path: an SQLite file; its folder is made where missing.
    """

    def __init__(self, encoder: TagEncoder, path: str | Path) -> None:
        self._encoder = encoder
        self._path = Path(path)
        self._vectors: dict[str, Vectors] = {}

    @property
    def name(self) -> str:
        """The name of the encoder within."""
        return self._encoder.name

    @property
    def dim(self) -> int:
        """Length of the vectors."""
        return self._encoder.dim

    def encode(self, strings: Sequence[str]) -> Vectors:
        """(N, dim) vectors of N tag strings."""
        if not strings:
            return np.zeros((0, self.dim), dtype=np.float32)
        if unseen := self._unseen(strings):
            self._vectors |= self._load(unseen)
        if unseen := self._unseen(strings):
            fresh = dict(zip(unseen, self._encoder.encode(unseen), strict=True))
            self._store(fresh)
            self._vectors |= fresh
        return np.stack([self._vectors[string] for string in strings])

    def _unseen(self, strings: Sequence[str]) -> list[str]:
        """Strings without a vector in memory, each once, sorted."""
        return sorted(set(strings) - self._vectors.keys())

    def _load(self, strings: Sequence[str]) -> dict[str, Vectors]:
        found: dict[str, bytes] = {}
        with self._dispensable(), self._database() as database:
            for start in range(0, len(strings), _SQL_VARIABLES):
                some = strings[start : start + _SQL_VARIABLES]
                marks = ",".join("?" * len(some))
                query = f"SELECT string, vector FROM tags WHERE encoder=? AND string IN ({marks})"
                found |= dict(database.execute(query, (self.name, *some)).fetchall())
        size = self.dim * np.dtype("<f4").itemsize
        return {
            string: np.frombuffer(blob, dtype="<f4").astype(np.float32)
            for string, blob in found.items()
            if len(blob) == size
        }

    def _store(self, vectors: Mapping[str, Vectors]) -> None:
        rows = [(self.name, key, vector.astype("<f4").tobytes()) for key, vector in vectors.items()]
        with self._dispensable(), self._database() as database, database:
            database.executemany("INSERT OR REPLACE INTO tags VALUES (?, ?, ?)", rows)

    @contextmanager
    def _database(self) -> Iterator[sqlite3.Connection]:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(self._path, timeout=60)) as database:
            database.execute(
                "CREATE TABLE IF NOT EXISTS tags (encoder TEXT, string TEXT, vector BLOB,"
                " PRIMARY KEY (encoder, string)) WITHOUT ROWID"
            )
            yield database

    @contextmanager
    def _dispensable(self) -> Iterator[None]:
        """Logs what fails inside: without the cache there is only more to encode."""
        try:
            yield
        except (OSError, sqlite3.OperationalError) as error:
            logger.warning("the tag cache %s cannot be used (%s)", self._path, error)
        except sqlite3.DatabaseError as error:
            logger.warning("the tag cache %s is damaged (%s) and is made anew", self._path, error)
            self._path.unlink(missing_ok=True)

"""Labelled samples that are cut once and then read from files."""

import hashlib
import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from geolink.datasets.base import LabelledData
from geolink.errors import InputError
from geolink.files import atomic_path
from geolink.samples import Sample, from_arrays, to_arrays
from geolink.sources.base import SourceInfo


class KeptSamples(LabelledData):
    """Data whose samples are kept in a folder, for epochs after the first to read.

    Tags and coverage are kept in half precision; so that all epochs see the same, a sample is read
    from its file when it is cut, too. Samples without OSM are not kept.

    Args:
        data: where samples are cut.
        folder: where they are kept; only for these data.
    """

    def __init__(self, data: LabelledData, folder: Path) -> None:
        super().__init__(
            data.task,
            data.legend,
            data.items.values(),
            gsd_range=data.gsd_range,
            sources=data.sources,
        )
        self._data = data
        self._folder = folder

    def sample(self, key: str) -> Sample:
        """The sample of a name, from its file where there is one.

        Raises:
            InputError: the file is damaged.
        """
        path = self._folder / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.npz"
        if not path.exists():
            cut = self._data.sample(key)
            if cut.graph is None:
                return cut
            arrays: dict[str, Any] = {**to_arrays(cut)}
            with atomic_path(path, overwrite=True) as part:
                np.savez(part, **arrays)
        try:
            with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as kept:
                return from_arrays(kept)
        except (OSError, ValueError, KeyError, BadZipFile) as error:
            raise InputError(f"the kept sample {path} is damaged ({error}); delete it") from None

    def sources_of(self, keys: Iterable[str]) -> tuple[SourceInfo, ...]:
        """Where the images, OSM and labels of some of the samples come from."""
        return self._data.sources_of(keys)

    def label(self, key: str) -> NDArray[np.generic]:
        """The label of a sample."""
        return self._data.label(key)

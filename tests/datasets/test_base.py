"""Several data sets as one."""

import numpy as np
import pytest

from geolink.datasets.base import Item, LabelledData, join
from geolink.datasets.kept import KeptSamples
from geolink.errors import InputError
from geolink.legend import UFZ, new_legend
from geolink.sources.base import SourceInfo

SHARED = SourceInfo("shared")


class Town(LabelledData):
    """Samples that say which town they are of."""

    def __init__(self, name, legend=UFZ):
        items = [Item(f"{name}/{i}", name) for i in range(2)]
        super().__init__("segment", legend, items, sources=[SourceInfo(name), SHARED])

    def sample(self, key):
        return key

    def label(self, key):
        return np.zeros(1, np.uint8)


def test_samples_come_from_their_part():
    both = join([Town("riga"), Town("tartu")])
    assert both.keys == ("riga/0", "riga/1", "tartu/0", "tartu/1")
    assert both.sample("tartu/1") == "tartu/1"
    assert [source.description for source in both.sources] == ["riga", "shared", "tartu"]


def test_sources_are_those_of_the_samples_asked_for(tmp_path):
    both = join([Town("riga"), Town("tartu")])
    for data in (both, KeptSamples(both, tmp_path)):
        found = data.sources_of(["tartu/0", "tartu/1"])
        assert [source.description for source in found] == ["tartu", "shared"]
        assert data.sources_of([]) == ()


def test_other_classes_and_the_same_names_are_refused():
    with pytest.raises(InputError, match="cannot be joined"):
        join([Town("riga"), Town("tartu", new_legend("x", ["a"]))])
    with pytest.raises(InputError, match="the same name"):
        join([Town("riga"), Town("riga")])

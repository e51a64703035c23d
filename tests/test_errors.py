import pytest

from geolink.errors import CoverageError, OutputError, place_named


@pytest.mark.parametrize("kind", [CoverageError, OutputError])
def test_of_several_places_one_is_named(kind):
    with (
        pytest.raises(kind, match=r"^in Oslo: no pixel has a label$"),
        place_named("Oslo", several=True),
    ):
        raise kind("no pixel has a label")


def test_one_place_need_not_be_named():
    with pytest.raises(CoverageError, match=r"^no pixel"), place_named("Oslo", several=False):
        raise CoverageError("no pixel has a label")

import logging

import pytest

from geolink.errors import (
    CheckpointError,
    ConfigError,
    CoverageError,
    GeolinkError,
    InputError,
    OutputError,
    UnavailableError,
)
from geolink_cli import messages


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (GeolinkError, 1),
        (InputError, 1),
        (CoverageError, 1),
        (CheckpointError, 1),
        (OutputError, 1),
        (ConfigError, 2),
        (UnavailableError, 3),
    ],
)
def test_exit_codes(error, code, capsys):
    assert messages.report(error("the file [1] is\n  gone; look [/]for it")) == code
    assert capsys.readouterr().err == "error: the file [1] is gone; look [/]for it\n"


@pytest.mark.parametrize(
    ("settings", "level"),
    [
        ({}, logging.WARNING),
        ({"verbose": 1}, logging.INFO),
        ({"verbose": 2}, logging.DEBUG),
        ({"verbose": 2, "quiet": True}, logging.ERROR),
    ],
)
def test_verbosity(settings, level):
    try:
        messages.set_verbosity(**{"verbose": 0, "quiet": False, **settings})
        assert logging.getLogger("geolink").level == level
    finally:
        messages.set_verbosity(verbose=0, quiet=False)


def test_progress_is_silent_where_nobody_watches(capsys):
    with messages.progress_bars() as progress:
        progress("tiles", 0, 3)
        progress("tiles", 3, 3)
    assert capsys.readouterr() == ("", "")


def test_an_interruption_leaves_a_word(capsys):
    with pytest.raises(KeyboardInterrupt), messages.progress_bars():
        raise KeyboardInterrupt
    assert capsys.readouterr().err == "interrupted; the same command goes on from here\n"

import errno
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from geolink.errors import InputError, OutputError
from geolink.files import atomic_path, full_disk_named, replace_bytes, require_writable


def test_the_target_appears_whole_and_alone(tmp_path: Path) -> None:
    target = tmp_path / "map.gpkg"
    with atomic_path(target, overwrite=False) as part:
        part.write_text("new")
        part.with_name("map.gpkg-journal").write_text("side file")
        assert part.suffix == ".gpkg"
        assert not target.exists()
    assert target.read_text() == "new"
    assert list(tmp_path.iterdir()) == [target]


def write_half(target: Path, error: BaseException) -> None:
    with atomic_path(target, overwrite=True) as part:
        part.write_text("half")
        raise error


@pytest.mark.parametrize("error", [ZeroDivisionError(), KeyboardInterrupt()])
def test_a_failure_leaves_what_was_there(tmp_path: Path, error: BaseException) -> None:
    target = tmp_path / "map.tif"
    target.write_text("old")
    with pytest.raises(type(error)):
        write_half(target, error)
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_an_existing_file_needs_overwrite(tmp_path: Path) -> None:
    target = tmp_path / "map.tif"
    target.write_text("old")
    with pytest.raises(OutputError, match="exists"), atomic_path(target, overwrite=False):
        pass
    with atomic_path(target, overwrite=True) as part:
        part.write_text("new")
    assert target.read_text() == "new"


def test_missing_folder_and_folder_as_target(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="does not exist"):
        require_writable(tmp_path / "no" / "map.tif", overwrite=False)
    with pytest.raises(OutputError, match="is a folder"):
        require_writable(tmp_path, overwrite=True)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write")
def test_read_only_folder(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    with pytest.raises(OutputError, match="read-only"):
        require_writable(tmp_path / "map.tif", overwrite=False)
    tmp_path.chmod(0o755)


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS])
def test_a_refused_write_names_the_folder(tmp_path: Path, code: int) -> None:
    with pytest.raises(OutputError, match="read-only"), full_disk_named(tmp_path / "map.tif"):
        raise OSError(code, os.strerror(code))


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "x"),
        OSError(errno.EDQUOT, "x"),
        sqlite3.OperationalError("database or disk is full"),
        RuntimeError("_tiffWriteProc: No space left on device."),
    ],
)
def test_a_full_disk_is_recognised_in_any_words(tmp_path: Path, error: Exception) -> None:
    target = tmp_path / "map.tif"
    with pytest.raises(OutputError, match="disk is full"), atomic_path(target, overwrite=False):
        raise RuntimeError("the writer gave up") from error
    assert list(tmp_path.iterdir()) == []


WRITER = """
import sys
from pathlib import Path
from geolink.files import atomic_path
with atomic_path(Path(sys.argv[1]), overwrite=True) as part:
    part.write_text("half")
    print("writing", flush=True)
    sys.stdin.read()
"""


def test_what_a_killed_process_left_goes_and_what_a_living_one_uses_stays(tmp_path: Path) -> None:
    target, other = tmp_path / "a.tif", tmp_path / ".b.tif.12345678.part"
    other.mkdir()
    (other / ".lock").touch()

    def scratch() -> list[Path]:
        return list(tmp_path.glob(".a.tif.*.part"))

    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(target)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"writing\n"
        (used,) = scratch()
        with atomic_path(target, overwrite=True) as part:
            part.write_text("first")
        assert scratch() == [used]
        writer.kill()
    assert scratch() == [used]
    with atomic_path(target, overwrite=True) as part:
        part.write_text("second")
    assert target.read_text() == "second"
    assert sorted(tmp_path.iterdir()) == [other, target]


@pytest.mark.parametrize("left", [[], ["map.gpkg"], [".lock", "map.gpkg"]])
def test_a_folder_whose_deletion_was_cut_goes(tmp_path: Path, left: list[str]) -> None:
    folder = tmp_path / ".map.gpkg.a1b2c3d_.part"
    folder.mkdir()
    for name in left:
        (folder / name).touch()
    with atomic_path(tmp_path / "map.gpkg", overwrite=False) as part:
        part.touch()
    assert list(tmp_path.iterdir()) == [tmp_path / "map.gpkg"]


def test_other_errors_pass_unchanged(tmp_path: Path) -> None:
    for error in (InputError("bad raster"), OSError(errno.ENOENT, "input"), ValueError("x")):
        with pytest.raises(type(error)) as caught, atomic_path(tmp_path / "a", overwrite=False):
            raise error
        assert caught.value is error


def test_replace_bytes(tmp_path: Path) -> None:
    target = tmp_path / "entry"
    replace_bytes(target, b"one")
    replace_bytes(target, b"two")
    assert target.read_bytes() == b"two"
    assert list(tmp_path.iterdir()) == [target]


LIMITED = """
import resource, sys
from pathlib import Path
from geolink.errors import OutputError
from geolink.files import atomic_path, replace_bytes
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
target = Path(sys.argv[1])
for write in ("atomic", "replace"):
    try:
        if write == "atomic":
            with atomic_path(target, overwrite=False) as part:
                part.write_bytes(bytes(5000))
        else:
            replace_bytes(target, bytes(5000))
    except OutputError as error:
        sys.stdout.write(str(error))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs file size limits")
def test_a_file_that_cannot_grow_is_an_output_error(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path / "map.tif")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.count("the disk is full") == 2
    assert list(tmp_path.iterdir()) == []

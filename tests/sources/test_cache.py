import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from geolink.errors import InputError, OutputError, UnavailableError
from geolink.sources.base import SourceInfo
from geolink.sources.cache import Cache, cache_folder

INFO = SourceInfo("a test", date="2024-05-06", licence="ODbL-1.0", attribution="© somebody")


@pytest.fixture
def cache(tmp_path):
    return Cache(tmp_path / "cache")


def put(cache, name="town", kind="osm", **files):
    """An entry with these files, `a_b` for `a.b`; one by default."""
    with cache.staging(kind, name) as staging:
        for file, content in (files or {"town_pbf": b"bytes"}).items():
            (staging / file.replace("_", ".")).write_bytes(content)
        return cache.publish(kind, name, staging, source="https://a.org/town.pbf", info=INFO)


def edit(entry, **changes):
    path = entry.folder / "entry.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def fail_while_fetching(cache, error, kind="osm"):
    with cache.staging(kind, "town") as staging:
        (staging / "half").write_bytes(b"half")
        raise error


def names_below(folder):
    return sorted(path.name for path in folder.rglob("*"))


# Publishing and finding


def test_an_entry_is_found_as_it_was_published(cache):
    assert cache.find("osm", "town") is None
    entry = put(cache)
    assert cache.find("osm", "town") == entry == Cache(cache.root).find("osm", "town")
    assert entry.path == cache.root / "osm" / "town" / "town.pbf"
    assert entry.path.read_bytes() == b"bytes"
    assert entry.size == 5
    assert entry.info == INFO
    assert entry.fetched.endswith("+00:00")
    assert cache.verify(entry) == []
    assert cache.find("imagery", "town") is None


def test_the_path_of_several_files_is_their_folder(cache):
    entry = put(cache, a_tif=b"1", b_tif=b"22")
    assert entry.path == entry.folder
    assert list(entry.files) == ["a.tif", "b.tif"]
    assert entry.file("b.tif").read_bytes() == b"22"


def test_files_may_lie_in_folders(cache):
    with cache.staging("imagery", "town") as staging:
        (staging / "tiles").mkdir()
        (staging / "tiles" / "0.tif").write_bytes(b"0")
        entry = cache.publish("imagery", "town", staging, source="", info=INFO)
    assert cache.find("imagery", "town").file("tiles/0.tif").read_bytes() == b"0"
    entry.file("tiles/0.tif").write_bytes(b"1")
    assert "other content" in cache.verify(entry)[0]


def test_publishing_again_replaces_the_whole_entry(cache):
    put(cache, old_tif=b"old", both_tif=b"1")
    entry = put(cache, both_tif=b"2")
    assert names_below(entry.folder) == ["both.tif", "entry.json"]
    assert cache.find("osm", "town").path.read_bytes() == b"2"


def test_details_are_kept(cache):
    with cache.staging("osm", "town") as staging:
        (staging / "a").touch()
        details = {"bbox": [1.5, 2], "none": None, "ü": "ö\ud800"}
        cache.publish("osm", "town", staging, source="", info=INFO, details=details)
    assert cache.find("osm", "town").details == details


def test_secrets_are_not_recorded(cache):
    url = "https://me:pw@a.org/x?token=abra&sig=cada&X-Amz-Signature=bra&z=7"
    with cache.staging("osm", "town") as staging:
        (staging / "a").touch()
        entry = cache.publish("osm", "town", staging, source=url, info=INFO)
    assert entry.source == "https://a.org/x?z=7"
    text = (entry.folder / "entry.json").read_text()
    assert not any(secret in text for secret in ("me:pw", "abra", "cada", "bra"))


def test_entries_come_by_kind_and_name(cache):
    for kind, name in (("model", "b"), ("osm", "b"), ("osm", "a")):
        put(cache, name, kind)
    assert [(e.kind, e.name) for e in cache.entries()] == [
        ("osm", "a"),
        ("osm", "b"),
        ("model", "b"),
    ]


def test_looking_writes_nothing(cache):
    assert cache.find("osm", "town") is None
    assert cache.entries() == []
    assert not cache.root.exists()


def test_removing(cache):
    entry = put(cache)
    with pytest.raises(ZeroDivisionError):
        fail_while_fetching(cache, ZeroDivisionError)
    cache.remove(entry)
    assert cache.find("osm", "town") is None
    assert [path for path in cache.root.rglob("*") if path.suffix != ".lock"] == [
        cache.root / "osm"
    ]
    cache.remove(entry)  # it may be gone already


def test_the_folder_is_named_by_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("GEOLINK_CACHE", str(tmp_path / "there"))
    assert cache_folder() == Cache().root == tmp_path / "there"
    monkeypatch.setenv("GEOLINK_CACHE", "")
    assert cache_folder().is_absolute()
    monkeypatch.setenv("GEOLINK_CACHE", "relative")
    assert Cache().root == Path.cwd() / "relative"


# Staging


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
def test_a_failed_fetch_goes_on_where_it_was(cache, error):
    with pytest.raises(error):
        fail_while_fetching(cache, error)
    assert cache.find("osm", "town") is None
    assert cache.entries() == []
    with cache.staging("osm", "town") as staging:
        assert (staging / "half").read_bytes() == b"half"


def test_working_files_are_not_published(cache):
    with cache.staging("osm", "town") as staging:
        for name in ("town.pbf", "town.pbf.part", ".note", ".tool/state", "sub/x.part"):
            (staging / name).parent.mkdir(exist_ok=True)
            (staging / name).touch()
        entry = cache.publish("osm", "town", staging, source="", info=INFO)
    assert list(entry.files) == ["town.pbf"]
    assert names_below(entry.folder) == ["entry.json", "sub", "town.pbf"]


def test_an_unused_staging_folder_leaves_nothing(cache):
    with cache.staging("osm", "town"):
        pass
    assert names_below(cache.root) == [".town.lock", "osm"]


FETCHER = """
import sys, time
from pathlib import Path
from geolink.sources.base import SourceInfo
from geolink.sources.cache import Cache

cache, log = Cache(Path(sys.argv[1])), Path(sys.argv[2])
with cache.staging("osm", "town") as staging:
    if cache.find("osm", "town") is None:
        with log.open("a") as file:
            file.write("fetched\\n")
        time.sleep(0.5)
        (staging / "town.pbf").write_bytes(b"bytes")
        cache.publish("osm", "town", staging, source="", info=SourceInfo("x"))
print(cache.find("osm", "town").path.read_bytes())
"""


def test_of_two_processes_one_fetches(cache, tmp_path):
    command = [sys.executable, "-c", FETCHER, str(cache.root), str(tmp_path / "log")]
    runs = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [run.communicate()[0].strip() for run in runs] == ["b'bytes'"] * 2
    assert (tmp_path / "log").read_text() == "fetched\n"


# Forks itself for every step of publishing over an earlier entry, and is killed at that step.
KILLED = """
import os, signal, sys
from pathlib import Path
from geolink.sources.base import SourceInfo
from geolink.sources.cache import Cache

STEPS = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree")
cache = Cache(Path(sys.argv[1]))

def publish(content):
    with cache.staging("osm", "town") as staging:
        for name in ("a.tif", "b.tif"):
            (staging / name).write_bytes(content)
        cache.publish("osm", "town", staging, source="", info=SourceInfo("x"))

def die_at(step):
    left = [step]
    def hook(event, args):
        if event in STEPS and str(cache.root) in str(args[0]):
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(hook)

step, outcomes = 0, []
while True:
    publish(b"old")
    step += 1
    child = os.fork()
    if child == 0:
        die_at(step)
        publish(b"new")
        os._exit(0)
    killed = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0
    found = cache.find("osm", "town")
    assert all(entry.problem == "" and cache.verify(entry) == [] for entry in cache.entries())
    contents = {found.file(name).read_bytes() for name in found.files} if found else {b"none"}
    assert len(contents) == 1 and (found is None or len(found.files) == 2)
    outcomes.append(contents.pop().decode())
    with cache.staging("osm", "town"):
        assert cache.find("osm", "town") is not None  # finished, or as it was before
    if not killed:
        break
publish(b"last")
assert cache.find("osm", "town").file("a.tif").read_bytes() == b"last"
print(step, " ".join(dict.fromkeys(outcomes)))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_kill_at_any_step_leaves_no_broken_entry(cache):
    run = subprocess.run(
        [sys.executable, "-c", KILLED, str(cache.root)], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    steps, *outcomes = run.stdout.split()
    assert int(steps) > 15
    assert outcomes == ["old", "none", "new"]


LIMITED = """
import resource, sys
from pathlib import Path
from geolink.errors import OutputError
from geolink.sources.base import SourceInfo
from geolink.sources.cache import Cache

cache = Cache(Path(sys.argv[1]))
try:
    with cache.staging("osm", "town") as staging:
        (staging / "small").write_bytes(bytes(100))
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), 10**6))
        (staging / "large").write_bytes(bytes(150))
        cache.publish("osm", "town", staging, source="", info=SourceInfo("x"))
except OutputError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs file size limits")
@pytest.mark.parametrize("limit", [120, 160])  # of a data file, of the manifest
def test_a_full_disk_leaves_no_entry_and_a_second_run_completes(cache, limit):
    run = subprocess.run(
        [sys.executable, "-c", LIMITED, str(cache.root), str(limit)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.startswith("the disk is full at ")
    assert cache.entries() == []
    with cache.staging("osm", "town") as staging:
        assert (staging / "small").read_bytes() == bytes(100)
        (staging / "large").write_bytes(bytes(150))
        cache.publish("osm", "town", staging, source="", info=INFO)
    assert list(cache.find("osm", "town").files) == ["large", "small"]


def test_a_cache_that_is_no_folder(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"cannot use .* another folder in GEOLINK_CACHE"):
        put(Cache(tmp_path / "file"))


# Names


NAMES = [
    "../up",
    "../../etc/passwd",
    "/etc/passwd",
    "..",
    ".",
    ".hidden",
    "C:\\Windows\\system32",
    "c:relative",
    "\\\\server\\share",
    "con",
    "NUL",
    "com1",
    "con.txt",
    "Town",
    "town ",
    " town",
    "TOWN",
    "x" * 5000,
    "x" * 5001,
    "東京",
    "São Paulo",
    "Sa\u0303o Paulo",
    "\U0001f30d",
    "a/b",
    "a\\b",
    "a-b",
    "a_b",
    "a:b",
    "a\0b",
    "a\nb",
    "\ud800",
    "-rf",
    "~",
    "$HOME",
    "hf:owner/repo@main",
    "https://a.org/x.pth?y=1",
    "entry.json",
    "town-0123abcd",
]


def test_no_name_leaves_the_cache_or_meets_another(cache):
    for index, name in enumerate(NAMES):
        put(cache, name, data_bin=str(index).encode())
    for index, name in enumerate(NAMES):
        entry = cache.find("osm", name)
        assert entry.name == name
        assert entry.path.read_bytes() == str(index).encode()
        assert entry.folder.resolve().parent == (cache.root / "osm").resolve()
        assert entry.folder.name.isascii()
        assert len(entry.folder.name) <= 80
    folders = {entry.folder.name.casefold() for entry in cache.entries()}
    assert len(folders) == len(NAMES)
    assert not folders & {"con", "nul", "com1"}
    assert [path.name for path in cache.root.parent.iterdir()] == ["cache"]


def test_readable_names_are_kept(cache):
    assert put(cache, "central-helsinki_2").folder.name == "central-helsinki_2"
    assert put(cache, "São Paulo").folder.name.startswith("sao-paulo-")


@pytest.mark.parametrize("name", ["", " ", "\t\n"])
def test_an_entry_needs_a_name(cache, name):
    for use in (cache.find, lambda kind, name: cache.staging(kind, name).__enter__()):
        with pytest.raises(InputError, match="not empty"):
            use("osm", name)


# Damage


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b"\xff\xfe", b"[]", b"null", b"[" * 100_000, b"{}", b'{"format": 1}', b"1" * 5000],
)
def test_a_manifest_of_garbage_is_reported(cache, caplog, text):
    entry = put(cache)
    (entry.folder / "entry.json").write_bytes(text)
    check_damaged(cache, caplog, "is no manifest")


def check_damaged(cache, caplog, why):
    """It is listed, verified and warned of as damaged, counts as absent, and can be repaired."""
    (listed,) = cache.entries()
    assert why in listed.problem
    assert cache.verify(listed) == [listed.problem]
    with caplog.at_level(logging.WARNING):
        assert cache.find("osm", "town") is None
    assert "'town' is damaged" in caplog.text
    put(cache)
    assert cache.find("osm", "town").problem == ""
    cache.remove(listed)
    assert cache.entries() == []


WRONG = [None, 3, True, "x", [], [1], {}, {"a": "b"}, {"a": {"sha256": 1, "bytes": "x"}}, 10**400]


@pytest.mark.parametrize("value", WRONG, ids=lambda value: str(value)[:20])
def test_fields_of_the_wrong_type_are_no_crash(cache, value):
    entry = put(cache)
    original = json.loads((entry.folder / "entry.json").read_text())
    for name in original:
        edit(entry, **{**original, name: value})
        (listed,) = cache.entries()
        fitting = {"source": "x", "fetched": "x", "details": {}, "format": True}
        usable = name in fitting and type(value) is type(fitting[name])
        if name == "registered" and value is True:
            assert "is gone" in listed.problem
        else:
            assert bool(listed.problem) != usable, name


@pytest.mark.parametrize(
    "name", ["../../secret", "/etc/passwd", "C:\\x", "c:x", "..\\x", "a/../../x", "", "."]
)
def test_a_manifest_cannot_name_files_elsewhere(cache, caplog, name):
    entry = put(cache)
    edit(entry, files={name: {"sha256": "0" * 64, "bytes": 1}})
    check_damaged(cache, caplog, "is no file of the entry")


def test_a_manifest_of_another_entry(cache, caplog):
    entry = put(cache)
    edit(entry, name="city")
    check_damaged(cache, caplog, "belongs to 'city'")


def test_a_file_that_was_cut_or_lost(cache, caplog):
    put(cache).path.write_bytes(b"byt")
    check_damaged(cache, caplog, "has 3 bytes instead of 5")
    put(cache).path.unlink()
    check_damaged(cache, caplog, "is gone")


def test_verify_reads_what_find_does_not(cache):
    entry = put(cache)
    entry.path.write_bytes(b"BYTES")
    assert cache.find("osm", "town") is not None
    assert cache.verify(entry) == [f"{entry.path} has other content than was recorded"]


# Registered files


@pytest.fixture
def ortho(tmp_path):
    path = tmp_path / "ortho.tif"
    path.write_bytes(b"pixels")
    return path


def test_a_registered_file_stays_where_it_is(cache, ortho):
    entry = cache.register("imagery", "town", ortho, info=INFO)
    assert cache.find("imagery", "town") == entry
    assert entry.path == ortho
    assert entry.registered
    assert entry.size == 6
    assert cache.verify(entry) == []
    assert names_below(entry.folder) == ["entry.json"]
    cache.remove(entry)
    assert cache.find("imagery", "town") is None
    assert ortho.read_bytes() == b"pixels"


def test_a_registered_folder(cache, tmp_path):
    folder = tmp_path / "scenes"
    (folder / "north").mkdir(parents=True)
    (folder / "north" / "a.tif").write_bytes(b"a")
    (folder / "b.tif").write_bytes(b"b")
    entry = cache.register("imagery", "town", folder, info=INFO)
    assert cache.find("imagery", "town").path == folder
    assert list(entry.files) == ["b.tif", "north/a.tif"]
    (folder / "north" / "a.tif").unlink()
    with pytest.raises(UnavailableError, match=r"a\.tif is gone"):
        cache.find("imagery", "town")


def test_a_path_may_be_relative(cache, ortho, monkeypatch):
    monkeypatch.chdir(ortho.parent)
    cache.register("imagery", "town", Path("ortho.tif"), info=INFO)
    monkeypatch.chdir("/")
    assert cache.find("imagery", "town").path == ortho


def test_registering_replaces(cache, ortho):
    put(cache, kind="imagery")
    with pytest.raises(ZeroDivisionError):
        fail_while_fetching(cache, ZeroDivisionError, "imagery")
    entry = cache.register("imagery", "town", ortho, info=INFO)
    assert cache.find("imagery", "town").path == ortho
    assert names_below(entry.folder) == ["entry.json"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda path: path.unlink(), "is gone"),
        (lambda path: path.write_bytes(b"more pixels"), "has 11 bytes instead of 6"),
        (lambda path: (path.write_bytes(b"PIXELS"), os.utime(path, (1, 1))), "has changed"),
    ],
)
def test_a_registered_file_that_is_another_now(cache, ortho, change, message):
    entry = cache.register("imagery", "town", ortho, info=INFO)
    change(ortho)
    with pytest.raises(UnavailableError, match=rf"ortho\.tif {message}; it was registered"):
        cache.find("imagery", "town")
    assert message in cache.entries()[0].problem
    assert message in cache.verify(entry)[0]


def test_a_registered_file_that_was_only_touched(cache, ortho):
    cache.register("imagery", "town", ortho, info=INFO)
    os.utime(ortho, (1, 1))
    assert cache.find("imagery", "town").path == ortho


def test_only_what_exists_is_registered(cache, tmp_path):
    (tmp_path / "empty").mkdir()
    for name in ("nothing.tif", "empty"):
        with pytest.raises(InputError, match="does not exist or is empty"):
            cache.register("imagery", "town", tmp_path / name, info=INFO)
    assert cache.entries() == []

import hashlib
import logging
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from servers import (
    BROKEN,
    BUSY,
    CUT,
    HTML,
    NOT_FOUND,
    WRONG_BYTES,
    Fault,
    FileServer,
    Overpass,
    Reply,
    Server,
    slow,
)

from geolink.errors import UnavailableError
from geolink.sources.http_failures import require_good, without_secrets
from geolink.sources.network import Network, NotFoundError

PAYLOAD = os.urandom(300_000)
SHA256 = hashlib.sha256(PAYLOAD).hexdigest()


@pytest.fixture
def server():
    with FileServer({"/a.pbf": PAYLOAD, "/a.json": b'{"a": [1, null]}'}) as server:
        yield server


@pytest.fixture
def network():
    return Network(retries=1, timeout_s=5)


@pytest.fixture
def fetch(server, network, tmp_path):
    """Downloads `/a.pbf` of the server."""

    def fetch(**checks):
        return network.download(
            f"{server.url}/a.pbf", tmp_path / "town.pbf", what="the extract", **checks
        )

    return fetch


# Offline


def test_offline_is_told_at_once(tmp_path):
    network = Network(offline=True)
    with pytest.raises(UnavailableError) as caught:
        network.require("the OSM extract of Rome", "geolink fetch --city rome")
    assert str(caught.value) == (
        "the OSM extract of Rome is not in the cache, and --offline forbids to fetch it; "
        "run `geolink fetch --city rome` on a connected machine"
    )
    for ask in (network.get_json, network.get_bytes):
        with pytest.raises(UnavailableError, match="--offline forbids"):
            ask("http://127.0.0.1:9/a", what="it")
    with pytest.raises(UnavailableError, match="--offline forbids"):
        network.download("http://127.0.0.1:9/a", tmp_path / "a", what="it")
    Network().require("anything", "anything")


def test_offline_sends_nothing(server, tmp_path):
    with pytest.raises(UnavailableError):
        Network(offline=True).get_bytes(f"{server.url}/a.pbf", what="it")
    assert server.requests == []


# Answers


def test_answers(server, network):
    assert network.get_bytes(f"{server.url}/a.pbf", what="it") == PAYLOAD
    assert network.get_json(f"{server.url}/a.json", params={"q": "a b"}, what="it") == {
        "a": [1, None]
    }
    assert server.requests[-1].query == {"q": "a b"}
    assert server.requests[-1].headers["User-Agent"].startswith("geolink/")


def test_forms(network):
    with Overpass(b"{}") as server:
        data = {"data": "[out:json];node(1);out;"}
        assert network.post(f"{server.url}/api/interpreter", data=data, what="it") == b"{}"
        assert server.queries == ["[out:json];node(1);out;"]
        server.fail("*", BUSY, times=1)
        assert network.post(f"{server.url}/api/interpreter", data=data, what="it") == b"{}"


@pytest.mark.parametrize("fault", [BROKEN, BUSY, Fault(503), Fault(429, {"Retry-After": "soon"})])
def test_what_fails_in_passing_is_asked_again(server, network, fault):
    server.fail("/a.pbf", fault, times=1)
    assert network.get_bytes(f"{server.url}/a.pbf", what="it") == PAYLOAD
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("fault", "message", "asked"),
    [
        (NOT_FOUND, r"answers 404 \(Not Found\), it has no such file", 1),
        (Fault(403), r"answers 403 \(Forbidden\), it refuses access", 1),
        (Fault(401), "it wants a log-in or token", 1),
        (Fault(400), "the request is not accepted", 1),
        (BROKEN, "answers 500 .* it is out of order; try again later", 2),
        (BUSY, "answers 429 .* it is busy; wait a while 1 s", 2),
        (Fault(429, {"Retry-After": "3600"}), "wait a while 3600 s", 1),
    ],
)
def test_failures_are_one_sentence(server, network, fault, message, asked):
    server.fail("*", fault)
    with pytest.raises(UnavailableError, match=f"^the extract cannot be fetched: .*{message}"):
        network.get_bytes(f"{server.url}/a.pbf?token=s3cret", what="the extract")
    assert len(server.requests) == asked


def test_what_is_missing_has_its_own_class(server, network):
    with pytest.raises(NotFoundError):
        network.get_bytes(f"{server.url}/none", what="it")
    server.fail("*", BROKEN)
    with pytest.raises(UnavailableError) as caught:
        network.get_bytes(f"{server.url}/none", what="it")
    assert not isinstance(caught.value, NotFoundError)


@pytest.mark.parametrize("fault", [HTML, Fault(page=b""), Fault(page=b"[" * 100_000)])
def test_no_json(server, network, fault):
    server.fail("*", fault)
    with pytest.raises(UnavailableError, match="something that is no JSON; is there a log-in"):
        network.get_json(f"{server.url}/a.json", what="the place")


def test_an_answer_that_breaks_off(server, network):
    server.fail("*", CUT)
    with pytest.raises(UnavailableError, match="broke the connection off"):
        network.get_bytes(f"{server.url}/a.pbf", what="it")


def test_an_answer_without_end(server, network, monkeypatch):
    monkeypatch.setattr("geolink.sources.network._MAX_BYTES", 1000)
    with pytest.raises(UnavailableError, match="answers more than"):
        network.get_bytes(f"{server.url}/a.pbf", what="it")


def test_a_server_that_is_silent():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/a"
        with pytest.raises(UnavailableError, match=r"has been silent for 0\.2 s"):
            Network(retries=0, timeout_s=0.2).get_bytes(url, what="it")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://127.0.0.1:9/a", "127.0.0.1:9 cannot be reached; check the network"),
        ("https://127.0.0.1:9/a?key=s3cret", "cannot be reached"),
        ("http://no-such-host.invalid/a", "no-such-host.invalid cannot be reached"),
        ("ftp://a.org/x", "check the address"),
        ("a.org/x", "check the address"),
        ("http://", "check the address"),
        ("http://[::1", "check the address"),
        ("", "check the address"),
    ],
)
def test_addresses_that_lead_nowhere(url, message):
    with pytest.raises(UnavailableError, match=message) as caught:
        Network().get_bytes(url, what="it")
    assert "s3cret" not in str(caught.value)


def test_a_certificate_that_nobody_trusts(server):
    url = server.url.replace("http:", "https:")  # no TLS at all
    with pytest.raises(UnavailableError, match="no certificate that is trusted here"):
        Network(retries=0).get_bytes(url, what="it")


def test_https_is_not_left():
    class Response:
        url, ok = "http://a.org/x", True

    with pytest.raises(UnavailableError, match=r"a\.org leads to an address without https"):
        require_good(Response(), "it", "https://a.org/x")


def test_secrets_stay_out_of_messages_and_logs(server, network, caplog):
    server.fail("*", NOT_FOUND)
    url = server.url.replace("//", "//me:s3cret@") + "/a?access_token=s3cret&q=1"
    with caplog.at_level(logging.DEBUG, "geolink"), pytest.raises(UnavailableError) as caught:
        network.get_bytes(url, what="it")
    assert "q=1" in caplog.text
    assert "s3cret" not in caplog.text + str(caught.value)


@pytest.mark.parametrize(
    ("text", "public"),
    [
        ("https://a.org/x.pbf?a=1&b=%20c#d", "https://a.org/x.pbf?a=1&b=%20c#d"),
        ("https://u:p@a.org:8/x", "https://a.org:8/x"),
        ("https://a.org/?sig=x&a=1&SAS=2&X-Goog-Credential=3&api_key=4", "https://a.org/?a=1"),
        ("stac:https://u:p@a.org/v1?token=t#c/visual", "stac:https://a.org/v1#c/visual"),
        ("xyz:https://a.org/{z}/{x}/{y}.png?key=k@17", "xyz:https://a.org/{z}/{x}/{y}.png"),
        ("hf:owner/repo@main", "hf:owner/repo@main"),
        ("/home/me/file?token=1", "/home/me/file?token=1"),
        ("https://[::1?token=1", "https://..."),
        ("one https://a.org/?key=1 and http://b.org/?pw=2", "one https://a.org/ and http://b.org/"),
    ],
)
def test_without_secrets(text, public):
    assert without_secrets(text) == public


# Downloads


def test_a_download(server, fetch, tmp_path):
    assert fetch(sha256=SHA256, size=len(PAYLOAD)) == tmp_path / "town.pbf"
    assert (tmp_path / "town.pbf").read_bytes() == PAYLOAD
    assert not (tmp_path / "town.pbf.part").exists()
    fetch(sha256=SHA256)
    assert len(server.requests) == 1  # it is here, as its hash shows
    fetch()
    assert server.requests[-1].sent == []  # the server says that it is still the same


def test_progress(server, tmp_path):
    told = []
    network = Network(progress=lambda *args: told.append(args))
    server.files["/large"] = bytes(3_500_000)
    network.download(f"{server.url}/large", tmp_path / "x", what="the extract")
    assert told[0] == ("the extract (MB)", 0, 4)
    assert told[-1] == ("the extract (MB)", 4, 4)
    assert [done for _, done, _ in told] == sorted(done for _, done, _ in told)


def test_a_cut_is_resumed_at_once(server, fetch):
    server.fail("/a.pbf", CUT, times=3)
    assert fetch(sha256=SHA256).read_bytes() == PAYLOAD
    assert len(server.requests) == 4
    assert server.requests[-1].range is not None
    assert server.bytes_sent < 1.3 * len(PAYLOAD)


def test_a_cut_that_outlasts_the_retries_is_resumed_by_the_next_run(server, fetch, tmp_path):
    server.ranges = False
    server.fail("/a.pbf", CUT)
    with pytest.raises(UnavailableError, match="broke the connection off; the same command goes"):
        fetch()
    assert not (tmp_path / "town.pbf").exists()
    kept = (tmp_path / "town.pbf.part").stat().st_size
    assert kept > 0.3 * len(PAYLOAD)
    server.heal()
    server.ranges = True
    assert fetch().read_bytes() == PAYLOAD
    assert server.requests[-1].range == f"bytes={kept}-"


def test_a_server_without_ranges(server, fetch):
    server.ranges = False
    server.fail("/a.pbf", CUT, times=1)
    assert fetch().read_bytes() == PAYLOAD


def cut_once(server, fetch):
    server.ranges = False
    server.fail("/a.pbf", CUT)
    with pytest.raises(UnavailableError):
        fetch()
    server.heal()
    server.ranges = True


def test_a_file_that_changed_meanwhile_is_fetched_anew(server, fetch):
    cut_once(server, fetch)
    server.files["/a.pbf"] = other = PAYLOAD[::-1]
    assert fetch().read_bytes() == other


@pytest.mark.parametrize("note", [b"", b"{", b"[]", b'{"etag": 1}', None])
def test_a_part_without_its_note_is_fetched_anew(server, fetch, tmp_path, note):
    cut_once(server, fetch)
    path = tmp_path / ".town.pbf.origin"
    path.unlink() if note is None else path.write_bytes(note)
    assert fetch().read_bytes() == PAYLOAD
    assert server.requests[-1].range is None


class Careless(FileServer):
    """Ignores `If-Range`."""

    def answer(self, request):
        reply = super().answer(request)
        if not request.range:
            return reply
        start = int(request.range[6:-1])
        place = {"Content-Range": f"bytes {start}-{len(PAYLOAD) - 1}/{len(PAYLOAD)}"}
        return Reply(
            reply.body[start:], status=206, headers={"ETag": f'"{len(reply.body)}"', **place}
        )


def test_a_part_of_another_version(network, tmp_path):
    with Careless({"/a": PAYLOAD}) as server:
        server.fail("*", CUT, times=1)
        path = network.download(f"{server.url}/a", tmp_path / "a", what="it")
    assert path.read_bytes() == PAYLOAD
    assert [request.range is None for request in server.requests] == [True, False, True]


def test_a_part_that_is_longer_than_the_file(server, fetch, tmp_path):
    cut_once(server, fetch)
    (tmp_path / "town.pbf.part").write_bytes(PAYLOAD * 2)
    assert fetch().read_bytes() == PAYLOAD


def test_a_part_that_is_whole(server, fetch, tmp_path):
    cut_once(server, fetch)
    (tmp_path / "town.pbf.part").write_bytes(PAYLOAD)
    asked = len(server.requests)
    assert fetch().read_bytes() == PAYLOAD
    assert len(server.requests) == asked


class Confused(Server):
    """Sends the start of a file, whatever part is asked for."""

    def answer(self, request):
        status, headers = 200, {}
        if request.range:
            status, headers = 206, {"Content-Range": f"bytes 0-9/{len(PAYLOAD)}"}
        return Reply(PAYLOAD, status=status, headers=headers)


def test_another_part_than_asked_for(tmp_path, network):
    with Confused() as server:
        server.ranges = False
        server.fail("*", CUT, times=1)
        path = network.download(f"{server.url}/a", tmp_path / "a", what="it")
    assert path.read_bytes() == PAYLOAD


@pytest.mark.parametrize(
    ("fault", "checks", "message"),
    [
        (HTML, {}, "sent is a web page, perhaps a log-in; try again later, or another mirror"),
        (WRONG_BYTES, {"sha256": SHA256}, "sent has another checksum than expected"),
        (Fault(), {"size": 1}, "sent has 300000 bytes instead of 1;"),
        (NOT_FOUND, {}, "answers 404"),
        (BROKEN, {}, "answers 500"),
        (BUSY, {}, "answers 429"),
    ],
)
def test_what_is_not_the_file_is_refused_and_a_second_run_completes(
    server, fetch, tmp_path, fault, checks, message
):
    server.fail("*", fault)
    with pytest.raises(UnavailableError, match=message):
        fetch(**checks)
    assert [path.name for path in tmp_path.iterdir() if not path.name.startswith(".")] == []
    server.heal()
    assert fetch(sha256=SHA256).read_bytes() == PAYLOAD


@pytest.mark.parametrize("page", [b"<!DOCTYPE html><p>Log in", b"\n <html>", b"<HTML>"])
def test_a_page_in_disguise_is_refused(server, fetch, page):
    server.files["/a.pbf"] = page
    with pytest.raises(UnavailableError, match="is a web page"):
        fetch()


def test_a_slow_server_is_waited_for(server, fetch):
    server.fail("*", slow(0.05))
    assert fetch().read_bytes() == PAYLOAD


def test_a_server_that_falls_silent_halfway(server, tmp_path):
    server.fail("*", slow(1.0), times=2)
    network = Network(retries=1, timeout_s=0.3)
    with pytest.raises(UnavailableError, match=r"silent for 0\.3 s"):
        network.download(f"{server.url}/a.pbf", tmp_path / "x", what="it")


def test_a_server_that_dies_halfway(server, fetch, tmp_path):
    cut_once(server, fetch)
    server.stop()
    with pytest.raises(UnavailableError, match="cannot be reached"):
        fetch()
    assert (tmp_path / "town.pbf.part").stat().st_size > 0
    server.start()


LIMITED = """
import resource, sys
from pathlib import Path
from geolink.errors import OutputError
from geolink.sources.network import Network

resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    Network().download(sys.argv[1], Path(sys.argv[2]), what="the extract")
except OutputError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs file size limits")
def test_a_full_disk(server, fetch, tmp_path):
    url, target = f"{server.url}/a.pbf", tmp_path / "town.pbf"
    run = subprocess.run(
        [sys.executable, "-c", LIMITED, url, str(target)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.startswith(f"the disk is full at {tmp_path}; free some space")
    assert not target.exists()
    assert Path(f"{target}.part").exists()
    assert fetch().read_bytes() == PAYLOAD
    assert server.requests[-1].range is not None

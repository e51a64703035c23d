import hashlib
import json
import logging
import os

import pytest
from huggingface_hub import constants
from servers import (
    BROKEN,
    BUSY,
    CUT,
    HTML,
    NOT_FOUND,
    WRONG_BYTES,
    Fault,
    FileServer,
    GDrive,
    HubServer,
    Reply,
)

from geolink.errors import ConfigError, UnavailableError
from geolink.sources.cache import Cache
from geolink.sources.models import fetch_model, fetch_text_encoder, is_remote, text_encoder_of
from geolink.sources.network import Network, NotFoundError

WEIGHTS = os.urandom(300_000)
CARD = {"sha256": hashlib.sha256(WEIGHTS).hexdigest(), "licence": "MIT", "tag_encoder": "table-1"}
CARD_FILE = json.dumps(CARD).encode()
OURS = {"model.safetensors": WEIGHTS, "card.json": CARD_FILE, "README.md": b"# A model"}
COUNTS = b'{"addr:street": 7}'
RELEASED = {"geolink_vit.pth": WEIGHTS, "data/all_tags30_frequency1.json": COUNTS}
ENCODER = {
    "config.json": b"{}",
    "tokenizer.json": b"{}",
    "vocab.json": b"{}",
    "merges.txt": b"",
    "pytorch_model.bin": b"pickle",
    "flax_model.msgpack": b"x",
}
OFFLINE = Network(offline=True)


@pytest.fixture
def cache(tmp_path):
    return Cache(tmp_path / "cache")


@pytest.fixture
def fetch(cache):
    """Fetches a model; returns its weights."""

    def fetch(spec, network=None):
        return fetch_model(spec, cache=cache, network=network or Network(retries=1, timeout_s=5))

    return fetch


@pytest.fixture
def hub(monkeypatch):
    with HubServer({"owner/ours": OURS, "owner/released": RELEASED}) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        yield server


@pytest.fixture
def web():
    with FileServer({f"/m/{name}": content for name, content in OURS.items()}) as server:
        yield server


@pytest.fixture
def drive(monkeypatch):
    with GDrive({"1aB-c_d": WEIGHTS}, large=10**9) as server:
        monkeypatch.setenv("GEOLINK_GDRIVE_URL", server.url)
        yield server


def beside(path):
    return sorted(other.name for other in path.parent.iterdir())


# Specifications


@pytest.mark.parametrize(
    "spec",
    [
        "hf:",
        "hf:owner",
        "hf:owner/repo@",
        "hf:owner/repo@a@b",
        "hf:../../x",
        "hf:owner/a--b",
        f"hf:owner/{'a' * 100}",
        "gdrive:",
        "gdrive:a/b",
        "gdrive:https://drive.google.com/file/d/x",
        "https://",
        "https://a.org",
        "https://a.org/m.zip",
        "https://a.org/.safetensors",
        "https://[::1",
    ],
)
def test_what_cannot_be_read(fetch, spec):
    with pytest.raises(ConfigError, match="cannot be read; write hf:owner/repo"):
        fetch(spec)
    assert is_remote(spec)


def test_local_names_are_not_remote():
    for spec in ("geolink-tiny", "/run/model.safetensors", "C:\\model.pth", "hfx", "run:1"):
        assert not is_remote(spec)


# The hub


def test_the_card_comes_along(hub, fetch, cache):
    path = fetch("hf:owner/ours")
    assert path.read_bytes() == WEIGHTS
    assert beside(path) == ["card.json", "entry.json", "model.safetensors"]
    entry = cache.find("model", "hf:owner/ours")
    assert entry.source == f"{hub.url}/owner/ours"
    assert entry.info.licence == "MIT"
    assert entry.details["commit"] == hub.commit("owner/ours")
    assert cache.verify(entry) == []


@pytest.mark.parametrize("pinned", [True, False])
def test_what_is_cached_needs_no_network(hub, fetch, pinned):
    spec = f"hf:owner/ours@{hub.commit('owner/ours')}" if pinned else "hf:owner/ours"
    path = fetch(spec)
    asked = len(hub.requests)
    hub.stop()
    assert fetch(spec) == fetch(spec, OFFLINE) == path
    assert len(hub.requests) == asked
    hub.start()


def test_revisions_are_entries_of_their_own(hub, fetch):
    commit = hub.commit("owner/ours")
    first = fetch(f"hf:owner/ours@{commit}")
    assert fetch("hf:owner/ours@main") != first
    hub.repos["owner/ours"]["README.md"] = b"# Another commit"
    assert fetch(f"hf:owner/ours@{commit}") == first
    with pytest.raises(NotFoundError, match="has no revision owner/ours@v9"):
        fetch("hf:owner/ours@v9")


def test_released_weights_bring_their_key_counts(hub, fetch):
    path = fetch("hf:owner/released")
    assert beside(path) == ["all_tags30_frequency1.json", "entry.json", "geolink_vit.pth"]
    assert path.with_name("all_tags30_frequency1.json").read_bytes() == COUNTS
    del hub.repos["owner/released"]["data/all_tags30_frequency1.json"]
    assert beside(fetch("hf:owner/released@main")) == ["entry.json", "geolink_vit.pth"]


def test_a_file_can_be_named(hub, fetch):
    hub.repos["owner/many"] = {
        "large/weights.safetensors": WEIGHTS,
        "large/weights.json": CARD_FILE,
        "small/weights.safetensors": WEIGHTS[:-1],
        "small/card.json": CARD_FILE,
    }
    path = fetch("hf:owner/many@main/large/weights.safetensors")
    assert beside(path) == ["card.json", "entry.json", "weights.safetensors"]
    assert fetch("hf:owner/many/large/weights.safetensors").read_bytes() == WEIGHTS
    with pytest.raises(NotFoundError, match=r"finds large/weights\.safetensors, small/weights"):
        fetch("hf:owner/many")
    for name in ("huge/weights.safetensors", "large/weights.json"):
        with pytest.raises(NotFoundError, match=r"one \.safetensors or \.pth file and finds none"):
            fetch(f"hf:owner/many/{name}")


def test_names_that_lead_out_of_the_folder(hub, fetch, tmp_path):
    hub.repos["owner/evil"] = {"../../evil.pth": WEIGHTS, "a/..\\evil.pth": WEIGHTS}
    for spec in ("hf:owner/evil", "hf:owner/evil/../../evil.pth"):
        with pytest.raises(NotFoundError, match="finds none"):
            fetch(spec)
    assert list(tmp_path.rglob("evil*")) == []


def test_no_repository_and_no_card(hub, fetch):
    with pytest.raises(NotFoundError, match=r"has no repository owner/none, or it is private"):
        fetch("hf:owner/none")
    hub.repos["owner/mute"] = {"model.safetensors": WEIGHTS}
    with pytest.raises(UnavailableError, match=r"hf:owner/mute has no card\.json beside"):
        fetch("hf:owner/mute")
    assert "/owner/mute/resolve" not in str(hub.paths())


def test_the_token_of_the_environment(hub, fetch, cache, monkeypatch, caplog):
    monkeypatch.setenv("HF_TOKEN", "hf_s3cret")
    with caplog.at_level(logging.DEBUG, "geolink"):
        path = fetch("hf:owner/ours")
    assert {r.headers.get("Authorization") for r in hub.requests} == {"Bearer hf_s3cret"}
    assert "s3cret" not in (path.parent / "entry.json").read_text() + caplog.text


def test_the_hub_may_be_forbidden(hub, fetch, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UnavailableError, match="HF_HUB_OFFLINE forbids"):
        fetch("hf:owner/ours")
    assert hub.requests == []


def test_progress(hub, cache):
    told = []
    network = Network(progress=lambda *args: told.append(args))
    fetch_model("hf:owner/ours", cache=cache, network=network)
    assert told[-1] == ("owner/ours/model.safetensors (MB)", 1, 1)


@pytest.mark.parametrize(
    ("pattern", "fault"),
    [
        ("/api/*", BROKEN),
        ("/api/*", BUSY),
        ("*/model.safetensors", BROKEN),
        ("*/model.safetensors", BUSY),
        ("*/model.safetensors", CUT),
    ],
)
def test_a_hub_that_falters_once(hub, fetch, pattern, fault):
    hub.fail(pattern, fault, times=1)
    assert fetch("hf:owner/ours").read_bytes() == WEIGHTS


@pytest.mark.parametrize(
    ("pattern", "fault", "message"),
    [
        ("/api/*", BROKEN, "answers 500; try again later"),
        ("/api/*", BUSY, "answers 429; try again later"),
        ("/api/*", Fault(429, {"Retry-After": "3600"}), "answers 429; try again later"),
        ("/api/*", CUT, "does not answer as a hub does"),
        ("/api/*", HTML, "does not answer as a hub does"),
        ("*/model.safetensors", NOT_FOUND, "does not hand it out"),
        ("*/model.safetensors", HTML, "does not hand it out"),
        ("*/model.safetensors", WRONG_BYTES, "came with another checksum than the hub states"),
    ],
)
def test_a_hub_that_fails(hub, fetch, cache, pattern, fault, message):
    hub.fail(pattern, fault)
    with pytest.raises(UnavailableError, match=message):
        fetch("hf:owner/ours")
    assert cache.entries() == []
    hub.heal()
    assert fetch("hf:owner/ours").read_bytes() == WEIGHTS


def test_the_hub_is_asked_for_nothing_else(hub, fetch):
    fetch("hf:owner/ours")
    assert all("owner/ours" in path for path in hub.paths())


def test_a_hub_that_is_not_there(fetch, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://me:s3cret@127.0.0.1:9")
    with pytest.raises(UnavailableError, match=r"127\.0\.0\.1:9 cannot be reached") as caught:
        fetch("hf:owner/ours")
    assert "s3cret" not in str(caught.value)


def test_weights_that_are_not_the_card_s(hub, web, fetch, cache):
    card = json.dumps({**CARD, "sha256": "0" * 64}).encode()
    hub.repos["owner/ours"]["card.json"] = web.files["/m/card.json"] = card
    with pytest.raises(UnavailableError, match="another checksum than its card says"):
        fetch("hf:owner/ours")
    with pytest.raises(UnavailableError, match="another checksum than expected"):
        fetch(f"{web.url}/m/model.safetensors")
    assert cache.entries() == []


# The hash of the first fetch


def damage(path):
    path.write_bytes(WEIGHTS[::-1])


def test_a_damaged_model_is_fetched_again(hub, fetch, caplog):
    path = fetch("hf:owner/ours")
    damage(path)
    with caplog.at_level(logging.WARNING):
        assert fetch("hf:owner/ours").read_bytes() == WEIGHTS
    assert "is damaged and fetched again" in caplog.text


def test_a_damaged_model_is_not_used_offline(hub, fetch):
    damage(fetch("hf:owner/ours"))
    with pytest.raises(UnavailableError, match="run `geolink fetch --model hf:owner/ours` on"):
        fetch("hf:owner/ours", OFFLINE)


def test_another_model_than_at_first_is_refused(drive, fetch, cache):
    path = fetch("gdrive:1aB-c_d")
    damage(path)
    drive.files["1aB-c_d"] = b"another"
    with pytest.raises(UnavailableError, match="no longer the file that was first fetched on 20"):
        fetch("gdrive:1aB-c_d")
    cache.remove(cache.find("model", "gdrive:1aB-c_d"))
    assert fetch("gdrive:1aB-c_d").read_bytes() == b"another"


def test_an_entry_that_hides_its_weights(hub, fetch, cache):
    entry = json.loads((fetch("hf:owner/ours").parent / "entry.json").read_text())
    for value in ("../../x", "", None, 3):
        entry["details"]["weights"] = value
        path = cache.find("model", "hf:owner/ours").folder / "entry.json"
        path.write_text(json.dumps(entry))
        with pytest.raises(UnavailableError, match="does not say which file has its weights"):
            fetch("hf:owner/ours")


# The web


@pytest.mark.parametrize(
    ("name", "card"), [("model", "card"), ("model", "model"), ("entry", "entry")]
)
def test_an_address_with_its_card(web, fetch, cache, name, card):
    web.files = {f"/m/{name}.safetensors": WEIGHTS, f"/m/{card}.json": CARD_FILE}
    url = f"{web.url}/m/{name}.safetensors"
    path = fetch(url)
    assert beside(path) == ["card.json", "entry.json", f"{name}.safetensors"]
    assert path.with_name("card.json").read_bytes() == CARD_FILE
    assert cache.find("model", url).info.licence == "MIT"
    web.stop()
    assert fetch(url, OFFLINE) == path
    web.start()


def test_an_address_with_a_secret(web, fetch, cache):
    url = f"{web.url}/m/model.safetensors?sig=s3cret&v=2"
    path = fetch(url)
    assert {request.query["sig"] for request in web.requests} == {"s3cret"}
    assert cache.entries()[0].name == f"{web.url}/m/model.safetensors?v=2"
    assert "s3cret" not in (path.parent / "entry.json").read_text()


@pytest.mark.parametrize("answer", [None, b"<html>nothing here", b"[1]", b"{}"])
def test_an_address_without_a_card(web, fetch, answer):
    del web.files["/m/card.json"]
    if answer is not None:
        web.files["/m/card.json"] = web.files["/m/model.json"] = answer
    with pytest.raises(UnavailableError, match=r"has no card\.json beside its weights"):
        fetch(f"{web.url}/m/model.safetensors")
    assert "/m/model.safetensors" not in web.paths()


@pytest.mark.parametrize("counts", [COUNTS, None])
def test_the_address_of_a_released_file(web, fetch, counts):
    web.files["/m/vit l.pth"] = WEIGHTS
    if counts:
        web.files["/m/all_tags30_frequency1.json"] = counts
    path = fetch(f"{web.url}/m/vit%20l.pth")
    assert path.name == "vit l.pth"
    assert path.with_name("all_tags30_frequency1.json").exists() == (counts is not None)


@pytest.mark.parametrize("fault", [BROKEN, BUSY, HTML, NOT_FOUND, WRONG_BYTES, CUT])
def test_a_web_server_that_fails(web, fetch, cache, fault):
    web.ranges = False  # a cut that can be resumed is no failure
    web.fail("*.safetensors", fault)
    with pytest.raises(UnavailableError, match="the model http"):
        fetch(f"{web.url}/m/model.safetensors")
    assert cache.entries() == []
    web.heal()
    assert fetch(f"{web.url}/m/model.safetensors").read_bytes() == WEIGHTS


# Google Drive


@pytest.mark.parametrize("large", [10**9, 1000])
def test_google_drive(drive, fetch, cache, large):
    drive.large = large
    path = fetch("gdrive:1aB-c_d")
    assert path.name == "model.pth"
    assert path.read_bytes() == WEIGHTS
    asked = "confirm" in drive.requests[-1].query
    assert asked == (large == 1000)
    assert cache.find("model", "gdrive:1aB-c_d").source == f"{drive.url}/file/d/1aB-c_d"


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ('filename="geolink vit (1).pth"', "geolink vit (1).pth"),
        ("filename*=UTF-8''g%C3%A9o.pth", "géo.pth"),
        ('filename="../../evil.pth"', "model.pth"),
        ('filename=".hidden.pth"', "model.pth"),
        ('filename="entry.json"', "model.pth"),
        ('filename="x.exe"', "model.pth"),
        ("", "model.pth"),
    ],
)
def test_the_name_that_google_drive_suggests(drive, fetch, monkeypatch, given, name):
    reply = Reply(WEIGHTS, headers={"Content-Disposition": f"attachment; {given}"})
    monkeypatch.setattr(drive, "answer", lambda request: reply)
    assert fetch("gdrive:1aB-c_d").name == name


@pytest.mark.parametrize(
    ("page", "title"),
    [
        (b"<html><title>Sign in</title><form action='/login'></form>", "Sign in"),
        (b"<html><title>\n Quota  exceeded</title>", "Quota  exceeded"),
        (b"<form id='download-form' action='file:///etc/passwd'>", "untitled"),
        (b"\xff\xfe<<<&&&", "untitled"),
    ],
)
def test_pages_of_google_drive_that_lead_nowhere(drive, fetch, cache, page, title):
    drive.fail("*", Fault(page=page))
    with pytest.raises(UnavailableError, match=rf"shows a page \({title}\) instead of the file"):
        fetch("gdrive:1aB-c_d")
    assert cache.entries() == []


def test_google_drive_without_the_file(drive, fetch):
    with pytest.raises(NotFoundError, match="the model gdrive:none cannot be fetched"):
        fetch("gdrive:none")


def test_google_drive_has_no_room_for_a_card(drive, fetch, monkeypatch):
    reply = Reply(WEIGHTS, headers={"Content-Disposition": 'attachment; filename="m.safetensors"'})
    monkeypatch.setattr(drive, "answer", lambda request: reply)
    with pytest.raises(UnavailableError, match=r"has no card\.json"):
        fetch("gdrive:1aB-c_d")


def test_a_large_file_is_resumed(drive, fetch):
    drive.large = 1000
    drive.fail("/download", CUT, times=3)
    assert fetch("gdrive:1aB-c_d").read_bytes() == WEIGHTS
    assert drive.requests[-1].range is not None


# Text encoders


def test_the_text_encoder_of_a_model(tmp_path):
    assert text_encoder_of(tmp_path / "vit.pth") == "openai/clip-vit-base-patch16"
    weights = tmp_path / "model.safetensors"
    assert text_encoder_of(weights) is None
    for encoder, name in (
        ("clip-openai/clip-vit-base-patch16", "openai/clip-vit-base-patch16"),
        ("table-0123", None),
        ("clip-0123456789ab", None),
        ("clip-../../x/y", None),
        (3, None),
    ):
        (tmp_path / "card.json").write_text(json.dumps({"tag_encoder": encoder}))
        assert text_encoder_of(weights) == name
    (tmp_path / "card.json").write_bytes(b"\xff{")
    assert text_encoder_of(weights) is None


def test_a_text_encoder_with_safetensors(hub, cache):
    hub.repos["openai/clip"] = {**ENCODER, "model.safetensors": WEIGHTS}
    folder = fetch_text_encoder("openai/clip", cache=cache, network=Network())
    names = {"config.json", "tokenizer.json", "vocab.json", "merges.txt", "model.safetensors"}
    assert {path.name for path in folder.iterdir()} == {*names, "entry.json"}
    hub.stop()
    assert fetch_text_encoder("openai/clip", cache=cache, network=OFFLINE) == folder
    hub.start()


def test_a_damaged_text_encoder_is_fetched_again(hub, cache):
    hub.repos["openai/clip"] = {**ENCODER, "model.safetensors": WEIGHTS}
    folder = fetch_text_encoder("openai/clip", cache=cache, network=Network())
    damage(folder / "model.safetensors")
    fetch_text_encoder("openai/clip", cache=cache, network=Network())
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS


def test_a_text_encoder_that_the_hub_converted(hub, cache):
    hub.repos["openai/clip"] = ENCODER
    hub.converted["openai/clip"] = {"model.safetensors": WEIGHTS}
    folder = fetch_text_encoder("openai/clip", cache=cache, network=Network())
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    (entry,) = cache.entries()
    assert entry.details["commit"] == hub.commit("openai/clip", "refs/pr/1")
    assert not (folder / "pytorch_model.bin").exists()


def test_a_text_encoder_of_pickles_only(hub, cache):
    hub.repos["openai/clip"] = ENCODER
    with pytest.raises(NotFoundError, match="no text encoder with safetensors weights"):
        fetch_text_encoder("openai/clip", cache=cache, network=Network())


def test_a_text_encoder_offline(cache):
    with pytest.raises(UnavailableError, match="the text encoder openai/clip is not in the cache"):
        fetch_text_encoder("openai/clip", cache=cache, network=OFFLINE)

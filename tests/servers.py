"""Small real servers on 127.0.0.1, which answer as the public services do, or fail as they can.

Each is a context manager with a `url`, a log of `requests`, and `faults` by path:

    with FileServer({"/a.pbf": payload}) as server:
        server.fail("/a.pbf", CUT, times=1)

GDAL can read from them under GDAL_DISABLE_READDIR_ON_OPEN=EMPTY_DIR only: it would hold Python's
lock, and with it the servers, while it looks for side files.
"""

import hashlib
import io
import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from fnmatch import fnmatch
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qs, unquote, urlencode, urlsplit

import numpy as np
import rasterio
import shapely
from PIL import Image
from rasterio.enums import Resampling
from rasterio.transform import from_bounds
from rasterio.vrt import WarpedVRT
from rasterio.warp import transform_geom

CHUNK = 64 * 1024
MODIFIED = "Mon, 06 May 2024 10:00:00 GMT"
WEB_MERCATOR_EDGE = 20037508.342789244


@dataclass(frozen=True)
class Request:
    """What a client asked for, and how many bytes of a body it got."""

    method: str
    path: str
    query: dict[str, str]
    headers: Mapping[str, str]
    body: bytes = b""
    sent: list[int] = field(default_factory=list, compare=False)

    @property
    def range(self) -> str | None:
        return self.headers.get("Range")


@dataclass(frozen=True)
class Reply:
    """An answer; a 200 gets an ETag and can be had in ranges."""

    body: bytes
    type: str = "application/octet-stream"
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def etag(self) -> str:
        return f'"{hashlib.sha256(self.body).hexdigest()}"'


def json_reply(content: Any, status: int = 200, **headers: str) -> Reply:
    return Reply(json.dumps(content).encode(), "application/json", status, headers)


MISSING = Reply(b"Not Found", "text/plain", 404)


@dataclass(frozen=True)
class Fault:
    """What goes wrong with an answer."""

    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    page: bytes | None = None  # HTML in place of the body
    scrambled: bool = False  # as long as the right bytes, and announced as these
    delay_s: float = 0.0  # before each chunk
    cut: bool = False  # breaks off at half

    def __call__(self, reply: Reply) -> Reply:
        if self.status is not None:
            text = HTTPStatus(self.status).phrase.encode()
            return Reply(text, "text/plain", self.status, self.headers)
        if self.page is not None:
            return Reply(self.page, "text/html")
        if self.scrambled:
            body = bytes(byte ^ 0x55 for byte in reply.body)
            return replace(reply, body=body, headers={**reply.headers, "ETag": reply.etag})
        return reply


def slow(delay_s: float) -> Fault:
    return Fault(delay_s=delay_s)


CUT = Fault(cut=True)
NOT_FOUND, BROKEN = Fault(404), Fault(500)
BUSY = Fault(429, {"Retry-After": "1"})
HTML = Fault(page=b"<!DOCTYPE html><html>Please sign in</html>")
WRONG_BYTES = Fault(scrambled=True)


class Server(AbstractContextManager[Any]):
    """Answers what `answer` says, unless a fault is set for the path.

    Attributes:
        requests: all requests so far.
        ranges: whether parts of an answer can be had.
    """

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.ranges = True
        self._faults: list[tuple[str, Fault, list[int]]] = []
        self._lock = threading.Lock()

    def answer(self, request: Request) -> Reply:
        raise NotImplementedError

    def fail(self, pattern: str, fault: Fault, *, times: int = 10**9) -> None:
        """Lets the next `times` requests of the paths that match `pattern` go wrong."""
        self._faults.append((pattern, fault, [times]))

    def heal(self) -> None:
        """Ends all faults."""
        self._faults.clear()

    def fault_of(self, path: str) -> Fault | None:
        with self._lock:
            for pattern, fault, left in self._faults:
                if left[0] > 0 and fnmatch(path, pattern):
                    left[0] -= 1
                    return fault
        return None

    def paths(self, method: str = "GET") -> list[str]:
        """Paths asked for so far, in order."""
        return [request.path for request in self.requests if request.method == method]

    @property
    def bytes_sent(self) -> int:
        return sum(sum(request.sent) for request in self.requests)

    def __enter__(self) -> Self:
        self._port = 0  # any that is free
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Accepts connections, after `stop` at the same address as before."""
        self._http = _HttpServer(("127.0.0.1", self._port), _Handler)
        self._http.owner = self
        self._port = self._http.server_port
        self.url = f"http://127.0.0.1:{self._port}"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Refuses connections from now on, and ends those that are open."""
        self._http.shutdown()
        self._thread.join()
        self._http.close_all()


class _HttpServer(ThreadingHTTPServer):
    """An HTTP server that knows its open connections, so that it can end them."""

    daemon_threads = False  # waited for in server_close
    owner: Server

    def __init__(self, *args: Any) -> None:
        self._open: set[socket.socket] = set()
        super().__init__(*args)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def close_all(self) -> None:
        for connection in list(self._open):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients may leave whenever they like."""


class _Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server: _HttpServer

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        headers = {name.title(): value for name, value in self.headers.items()}
        request = Request(self.command, unquote(url.path), query, headers, body)
        owner = self.server.owner
        owner.requests.append(request)
        reply, fault = owner.answer(request), owner.fault_of(request.path) or Fault()
        reply = fault(reply)
        if reply.status == 200:
            headers = {"ETag": reply.etag, "Last-Modified": MODIFIED, **reply.headers}
            reply = replace(reply, headers=headers)
            if request.headers.get("If-None-Match") == headers["ETag"]:
                reply = Reply(b"", reply.type, 304, headers)
            elif owner.ranges:
                reply = _part(reply, request)
        self._send(reply, request, fault)

    do_HEAD = do_POST = do_GET

    def _send(self, reply: Reply, request: Request, fault: Fault) -> None:
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Type", reply.type)
        self.send_header("Content-Length", str(len(reply.body)))
        self.end_headers()
        if request.method == "HEAD":
            return
        end = len(reply.body) // 2 if fault.cut else len(reply.body)
        for start in range(0, end, CHUNK):
            time.sleep(fault.delay_s)
            chunk = reply.body[start : min(start + CHUNK, end)]
            self.wfile.write(chunk)
            request.sent.append(len(chunk))
        self.close_connection = self.close_connection or fault.cut

    def log_message(self, *_: Any) -> None:
        """Nothing on stderr; the server keeps a log of its own."""


def _part(reply: Reply, request: Request) -> Reply:
    """The range of an answer that was asked for."""
    whole = replace(reply, headers={"Accept-Ranges": "bytes", **reply.headers})
    found = re.fullmatch(r"bytes=(\d*)-(\d*)", request.range or "")
    known = request.headers.get("If-Range") in (None, reply.headers["ETag"], MODIFIED)
    if not found or found.groups() == ("", "") or not known:
        return whole
    size, (first, last) = len(reply.body), found.groups()
    start = int(first) if first else max(size - int(last), 0)
    end = min(int(last) + 1, size) if first and last else size
    if start >= end:
        return Reply(b"", reply.type, 416, {"Content-Range": f"bytes */{size}"})
    headers = {**whole.headers, "Content-Range": f"bytes {start}-{end - 1}/{size}"}
    return replace(reply, body=reply.body[start:end], status=206, headers=headers)


@contextmanager
def black_hole() -> Iterator[str]:
    """The URL of a host that drops every packet: a queue of connections that is full."""
    with ExitStack() as held:
        listener = held.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            waiting = held.enter_context(socket.socket())
            waiting.setblocking(False)
            with suppress(BlockingIOError):
                waiting.connect(listener.getsockname())
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


class FileServer(Server):
    """Files by path, from memory or from disk."""

    def __init__(self, files: Mapping[str, bytes | Path] | None = None) -> None:
        super().__init__()
        self.files: dict[str, bytes | Path] = dict(files or {})

    def answer(self, request: Request) -> Reply:
        content = self.files.get(request.path)
        if content is None:
            return MISSING
        return Reply(content.read_bytes() if isinstance(content, Path) else content)


class StacServer(FileServer):
    """A STAC API over scenes on disk, whose assets it serves too.

    Attributes:
        items: the items, newest first as they are searched.
    """

    CONFORMS = (
        "https://api.stacspec.org/v1.0.0/core",
        "https://api.stacspec.org/v1.0.0/collections",
        "https://api.stacspec.org/v1.0.0/item-search",
        "https://api.stacspec.org/v1.0.0/item-search#query",
        "https://api.stacspec.org/v1.0.0/item-search#sort",
        "https://api.stacspec.org/v1.0.0/item-search#filter",
        "http://www.opengis.net/spec/cql2/1.0/conf/cql2-json",
        "http://www.opengis.net/spec/ogcapi-features-1/1.0/conf/core",
    )

    def __init__(self, page_size: int = 10, licence: str = "proprietary") -> None:
        super().__init__()
        self.items: list[dict[str, Any]] = []
        self.page_size, self.licence = page_size, licence

    def add_scene(
        self,
        name: str,
        assets: Mapping[str, Path],
        *,
        date: str,
        cloud_cover: float,
        collection: str = "sentinel-2-l2a",
        **properties: Any,
    ) -> None:
        """One item; assets are cloud-optimised GeoTIFFs by asset name, date is ISO 8601 UTC."""
        described = {}
        for key, path in assets.items():
            with rasterio.open(path) as raster:
                footprint = shapely.box(*raster.bounds)
                geometry = transform_geom(raster.crs, "EPSG:4326", footprint.__geo_interface__)
                described[key] = {
                    "href": f"/assets/{name}/{path.name}",
                    "type": "image/tiff; application=geotiff; profile=cloud-optimized",
                    "roles": ["data"],
                    "proj:shape": raster.shape,
                    "proj:transform": list(raster.transform)[:6],
                    "raster:bands": [
                        {"nodata": raster.nodata, "data_type": raster.dtypes[0]}
                        for _ in raster.indexes
                    ],
                }
                epsg = raster.crs.to_epsg()
            self.files[f"/assets/{name}/{path.name}"] = path
        item = {
            "type": "Feature",
            "stac_version": "1.0.0",
            "stac_extensions": [
                "https://stac-extensions.github.io/eo/v1.0.0/schema.json",
                "https://stac-extensions.github.io/projection/v1.0.0/schema.json",
                "https://stac-extensions.github.io/raster/v1.1.0/schema.json",
            ],
            "id": name,
            "collection": collection,
            "geometry": geometry,
            "bbox": list(shapely.geometry.shape(geometry).bounds),
            "properties": {
                "datetime": date,
                "eo:cloud_cover": cloud_cover,
                "proj:epsg": epsg,
                **properties,
            },
            "links": [],
            "assets": described,
        }
        self.items = sorted(
            [*self.items, item], key=lambda i: i["properties"]["datetime"], reverse=True
        )

    def answer(self, request: Request) -> Reply:
        parts = request.path.strip("/").split("/")
        if parts == [""]:
            return json_reply(self._landing())
        if parts == ["conformance"]:
            return json_reply({"conformsTo": self.CONFORMS})
        if parts == ["search"]:
            return self._search(request)
        if parts[0] == "collections":
            return self._collections(parts[1:])
        return super().answer(request)

    def _landing(self) -> dict[str, Any]:
        links = {"self": "", "root": "", "data": "/collections", "conformance": "/conformance"}
        href = f"{self.url}/search"
        searches = [
            {"rel": "search", "href": href, "method": method, "type": "application/geo+json"}
            for method in ("GET", "POST")
        ]
        return {
            "type": "Catalog",
            "stac_version": "1.0.0",
            "id": "local",
            "description": "Scenes on this machine",
            "conformsTo": self.CONFORMS,
            "links": [{"rel": r, "href": self.url + path} for r, path in links.items()] + searches,
        }

    def _collections(self, names: list[str]) -> Reply:
        collections = {i["collection"]: self._collection(i["collection"]) for i in self.items}
        if not names:
            return json_reply({"collections": list(collections.values()), "links": []})
        if names[0] not in collections:
            return json_reply({"code": "NotFound", "description": "no such collection"}, 404)
        return json_reply(collections[names[0]])

    def _collection(self, name: str) -> dict[str, Any]:
        return {
            "type": "Collection",
            "stac_version": "1.0.0",
            "id": name,
            "description": name,
            "license": self.licence,
            "extent": {
                "spatial": {"bbox": [[-180, -90, 180, 90]]},
                "temporal": {"interval": [["2015-01-01T00:00:00Z", None]]},
            },
            "links": [{"rel": "self", "href": f"{self.url}/collections/{name}"}],
        }

    def _search(self, request: Request) -> Reply:
        asked = json.loads(request.body) if request.method == "POST" else _parsed(request.query)
        found = [item for item in self.items if _matches(item, asked)]
        for key in reversed(asked.get("sortby", [])):
            path = key["field"].removeprefix("properties.")
            found.sort(key=lambda i: i["properties"][path], reverse=key["direction"] == "desc")
        start, size = int(asked.get("token", 0)), int(asked.get("limit") or self.page_size)
        end = start + min(size, self.page_size)
        links = []
        if end < len(found):
            link = {"rel": "next", "method": request.method, "href": f"{self.url}/search"}
            if request.method == "POST":
                link |= {"body": {**asked, "token": str(end)}}
            else:
                link["href"] += "?" + urlencode({**request.query, "token": end})
            links = [link]
        page = {"type": "FeatureCollection", "links": links}
        return json_reply(page | {"features": [self._absolute(i) for i in found[start:end]]})

    def _absolute(self, item: dict[str, Any]) -> dict[str, Any]:
        assets = {k: a | {"href": self.url + a["href"]} for k, a in item["assets"].items()}
        home = {"rel": "root", "href": self.url, "type": "application/json"}
        return item | {"assets": assets, "links": [home]}


def _parsed(query: Mapping[str, str]) -> dict[str, Any]:
    """The parameters of a search by GET, as by POST."""
    asked: dict[str, Any] = dict(query)
    for name in ("query", "filter", "intersects"):
        if name in asked:
            asked[name] = json.loads(asked[name])
    for name in ("collections", "ids"):
        if name in asked:
            asked[name] = asked[name].split(",")
    if "bbox" in asked:
        asked["bbox"] = [float(edge) for edge in asked["bbox"].split(",")]
    if "sortby" in asked:
        keys = (re.fullmatch(r"([+-]?)(.+)", key) for key in asked["sortby"].split(","))
        signs = {"-": "desc"}
        asked["sortby"] = [{"field": k[2], "direction": signs.get(k[1], "asc")} for k in keys if k]
    return asked


def _matches(item: dict[str, Any], asked: Mapping[str, Any]) -> bool:
    """Whether a search finds an item."""
    footprint = shapely.geometry.shape(item["geometry"])
    area = shapely.box(*asked["bbox"]) if asked.get("bbox") else None
    if asked.get("intersects"):
        area = shapely.geometry.shape(asked["intersects"])
    return (
        item["collection"] in (asked.get("collections") or [item["collection"]])
        and item["id"] in (asked.get("ids") or [item["id"]])
        and (area is None or footprint.intersects(area))
        and _within(item["properties"]["datetime"], asked.get("datetime"))
        and _holds(asked.get("filter"), item["properties"])
        and all(
            _COMPARE[op](item["properties"][name], value)
            for name, tests in (asked.get("query") or {}).items()
            for op, value in tests.items()
        )
    )


_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    **dict.fromkeys(("lt", "<"), lambda a, b: a < b),
    **dict.fromkeys(("lte", "<="), lambda a, b: a <= b),
    **dict.fromkeys(("gt", ">"), lambda a, b: a > b),
    **dict.fromkeys(("gte", ">="), lambda a, b: a >= b),
    **dict.fromkeys(("eq", "="), lambda a, b: a == b),
}


def _holds(condition: Any, properties: Mapping[str, Any]) -> bool:
    """Whether a CQL2 condition (comparisons, joined by `and`) holds."""
    if condition is None:
        return True
    if condition["op"] == "and":
        return all(_holds(part, properties) for part in condition["args"])
    left, right = condition["args"]
    return _COMPARE[condition["op"]](properties[left["property"]], right)


def _within(date: str, interval: str | None) -> bool:
    if not interval:
        return True
    start, _, end = interval.partition("/")
    first = _instant(start) if start not in ("", "..") else datetime.min.replace(tzinfo=UTC)
    last = _instant(end or start) if end not in ("..",) else datetime.max.replace(tzinfo=UTC)
    return first <= _instant(date) <= last


def _instant(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


class TileServer(Server):
    """PNG tiles `/z/x/y.png` of a raster, or of a function of (zoom, column, row).

    A tile is an array (256, 256, 3 or 4) of bytes; None has none, and is a 404.
    """

    def __init__(self, source: Path | Callable[[int, int, int], np.ndarray | None]) -> None:
        super().__init__()
        self._draw = source if callable(source) else lambda *tile: raster_tile(source, *tile)

    @property
    def template(self) -> str:
        return f"{self.url}/{{z}}/{{x}}/{{y}}.png"

    def answer(self, request: Request) -> Reply:
        asked = re.fullmatch(r"/(\d+)/(\d+)/(\d+)\.png", request.path)
        pixels = self._draw(*map(int, asked.groups())) if asked else None
        if pixels is None:
            return MISSING
        packed = io.BytesIO()
        Image.fromarray(pixels).save(packed, "PNG")
        return Reply(packed.getvalue(), "image/png")


def raster_tile(path: Path, zoom: int, col: int, row: int) -> np.ndarray | None:
    """A web map tile of a raster's first three bands, transparent outside; None without data."""
    side = 2 * WEB_MERCATOR_EDGE / 2**zoom
    west, north = col * side - WEB_MERCATOR_EDGE, WEB_MERCATOR_EDGE - row * side
    with (
        rasterio.open(path) as raster,
        WarpedVRT(
            raster,
            crs="EPSG:3857",
            transform=from_bounds(west, north - side, west + side, north, 256, 256),
            width=256,
            height=256,
            resampling=Resampling.bilinear,
            add_alpha=True,
        ) as view,
    ):
        pixels: np.ndarray = view.read([1, 2, 3, view.count]).transpose(1, 2, 0)
    return pixels if pixels[..., 3].any() else None


class HubServer(Server):
    """A model hub as huggingface-hub's client speaks to it: repositories of files by revision.

    A revision is `main`, `refs/pr/1`, or the commit of their present files.

    Attributes:
        repos: {owner/name: {file: bytes}}.
        converted: {owner/name: files that the hub's converter adds in pull request 1}.
    """

    def __init__(
        self,
        repos: Mapping[str, Mapping[str, bytes]],
        converted: Mapping[str, Mapping[str, bytes]] | None = None,
    ) -> None:
        super().__init__()
        self.repos = {name: dict(files) for name, files in repos.items()}
        self.converted = dict(converted or {})

    def commit(self, repo: str, revision: str = "main") -> str:
        """The commit of a revision's present files."""
        digest = hashlib.sha1()
        for name, content in sorted(self._files(repo, revision).items()):
            digest.update(name.encode() + hashlib.sha1(content).digest())
        return digest.hexdigest()

    def answer(self, request: Request) -> Reply:
        api = re.fullmatch(
            r"/api/models/([^/]+/[^/]+)(?:/(revision|tree|discussions)(?:/(.+))?)?", request.path
        )
        file = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", request.path)
        found = api or file
        repo = found[1] if found else ""
        if repo not in self.repos:
            return json_reply({"error": "Repository not found"}, 404, **_hub_error("RepoNotFound"))
        if api and api[2] == "discussions":
            return self._discussions(repo)
        names = {name for name in ("main", "refs/pr/1") if self._files(repo, name)}
        commits = {self.commit(repo, name): name for name in names}
        revision = (api[3] or "main") if api else file[2]
        if revision not in {*names, *commits}:
            return json_reply({"error": "No revision"}, 404, **_hub_error("RevisionNotFound"))
        name = commits.get(revision, revision)
        files, commit = self._files(repo, name), self.commit(repo, name)
        if api:
            return self._listing(repo, files, commit, tree=api[2] == "tree")
        if file[3] not in files:
            return json_reply({"error": "No file"}, 404, **_hub_error("EntryNotFound"))
        return Reply(files[file[3]], headers={"X-Repo-Commit": commit})

    def _files(self, repo: str, revision: str) -> dict[str, bytes]:
        if revision == "main":
            return self.repos[repo]
        return {**self.repos[repo], **self.converted[repo]} if repo in self.converted else {}

    def _discussions(self, repo: str) -> Reply:
        offer = {"num": 1, "author": {"name": "SFconvertbot"}, "isPullRequest": True}
        offers = [offer | {"status": "open"}] if repo in self.converted else []
        return json_reply({"discussions": offers, "count": len(offers), "start": 0})

    def _listing(self, repo: str, files: dict[str, bytes], commit: str, *, tree: bool) -> Reply:
        if tree:
            rows = [
                {"type": "file", "path": n, "size": len(c), "oid": hashlib.sha1(c).hexdigest()}
                for n, c in files.items()
            ]
            return json_reply(rows)
        siblings = [
            {
                "rfilename": name,
                "size": len(content),
                "lfs": {
                    "sha256": hashlib.sha256(content).hexdigest(),
                    "size": len(content),
                    "pointerSize": 134,
                },
            }
            for name, content in files.items()
        ]
        return json_reply({"id": repo, "sha": commit, "siblings": siblings, "private": False})


def _hub_error(code: str) -> dict[str, str]:
    return {"X-Error-Code": code, "X-Error-Message": code}


class Geocoder(Server):
    """Nominatim's `/search`: results are found by words of their names.

    Attributes:
        results: as Nominatim's jsonv2 lists them; `geocoded` makes one.
    """

    def __init__(self, *results: dict[str, Any]) -> None:
        super().__init__()
        self.results = list(results)

    def answer(self, request: Request) -> Reply:
        if request.path != "/search":
            return MISSING
        words = re.findall(r"\w+", request.query.get("q", "").casefold())
        found = [
            result
            for result in self.results
            if all(word in result["display_name"].casefold() for word in words)
        ]
        if request.query.get("polygon_geojson") != "1":
            found = [{k: v for k, v in result.items() if k != "geojson"} for result in found]
        return json_reply(found[: int(request.query.get("limit", 10))])


def geocoded(name: str, area: shapely.Geometry, kind: str = "city") -> dict[str, Any]:
    """A place as Nominatim describes it."""
    west, south, east, north = area.bounds
    return {
        "place_id": sum(name.encode()),
        "licence": "Data © OpenStreetMap contributors, ODbL 1.0. http://osm.org/copyright",
        "osm_type": "relation",
        "osm_id": sum(name.encode()),
        "lat": str(area.centroid.y),
        "lon": str(area.centroid.x),
        "category": "boundary",
        "type": "administrative",
        "addresstype": kind,
        "importance": 0.5,
        "name": name.split(",")[0],
        "display_name": name,
        "boundingbox": [str(edge) for edge in (south, north, west, east)],
        "geojson": json.loads(shapely.to_geojson(area)),
    }


class Overpass(Server):
    """`/api/interpreter`, which answers every query alike.

    Attributes:
        content: the answer.
        queries: what was asked.
    """

    def __init__(self, content: bytes, kind: str = "application/json") -> None:
        super().__init__()
        self.content, self.kind = content, kind

    @property
    def queries(self) -> list[str]:
        return [
            parse_qs(request.body.decode()).get("data", [request.body.decode()])[0]
            for request in self.requests
        ]

    def answer(self, request: Request) -> Reply:
        found = request.path == "/api/interpreter" and request.method == "POST"
        return Reply(self.content, self.kind) if found else MISSING


class GDrive(Server):
    """Google Drive's download addresses, with the question that it asks before large files.

    Attributes:
        files: {id: bytes}.
        large: from how many bytes on it asks.
    """

    _PAGE = (
        "<!DOCTYPE html><html><head><title>Google Drive - Virus scan warning</title></head><body>"
        '<form id="download-form" action="{url}/download" method="get">'
        '<input type="submit" value="Download anyway"/>'
        '<input type="hidden" name="id" value="{id}">'
        '<input type="hidden" name="export" value="download">'
        '<input type="hidden" name="confirm" value="t">'
        '<input type="hidden" name="uuid" value="0f0f"></form></body></html>'
    )

    def __init__(self, files: Mapping[str, bytes], large: int = 100 * 2**20) -> None:
        super().__init__()
        self.files, self.large = dict(files), large

    def answer(self, request: Request) -> Reply:
        name = request.query.get("id", "")
        content = self.files.get(name)
        if content is None or request.path not in ("/uc", "/download"):
            return MISSING
        if len(content) >= self.large and "confirm" not in request.query:
            page = self._PAGE.format(url=self.url, id=name)
            return Reply(page.encode(), "text/html; charset=utf-8")
        return Reply(content, headers={"Content-Disposition": f'attachment; filename="{name}"'})

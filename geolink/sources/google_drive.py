"""Released models on Google Drive, which asks a question before it hands out a large file."""

import os
from dataclasses import dataclass
from email.message import Message
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urlencode, urljoin, urlsplit

import requests

from geolink.errors import UnavailableError
from geolink.sources.model_files import FoundModel, is_released, no_card, weights_name
from geolink.sources.network import Network

_GDRIVE = "https://drive.google.com"
_PAGE_BYTES = 2**20


@dataclass(frozen=True)
class DriveModel:
    """A released weight file on Google Drive; `GEOLINK_GDRIVE_URL` names a mirror.

    Attributes:
        id: of the shared file.
    """

    id: str

    @property
    def name(self) -> str:
        """The specification."""
        return f"gdrive:{self.id}"

    def fetch(self, folder: Path, network: Network) -> FoundModel:
        """See `ModelOrigin`."""
        host = os.environ.get("GEOLINK_GDRIVE_URL", _GDRIVE).rstrip("/")
        url = f"{host}/uc?{urlencode({'export': 'download', 'id': self.id})}"
        what = f"the model {self.name}"
        with network.open(url, what=what) as response:
            page = _page_of(response)
            given = _given_name(response)
        if page:
            url = self._confirmed(page, response.url)
            with network.open(url, what=what) as response:
                given = _given_name(response)
        weights = weights_name(given) or "model.pth"
        if not is_released(weights):
            raise no_card(self.name)
        path = network.download(url, folder / weights, what=what)
        return FoundModel(path.name, f"{host}/file/d/{self.id}")

    def _confirmed(self, page: str, url: str) -> str:
        """The address behind the question that is asked before a large file."""
        form = _DownloadForm()
        form.feed(page)
        target = urljoin(url, form.action)
        if not form.action or urlsplit(target).scheme not in ("https", urlsplit(url).scheme):
            raise UnavailableError(
                f"the model {self.name} cannot be fetched: Google Drive shows a page "
                f"({form.title.strip()[:80] or 'untitled'}) instead of the file; is it shared with "
                "everyone, and not over its quota?"
            )
        return f"{target}?{urlencode(form.fields)}"


class _DownloadForm(HTMLParser):
    """The form of a page that leads to a download.

    Attributes:
        action: its address, empty where the page has no such form.
        fields: its hidden inputs.
        title: of the page.
    """

    def __init__(self) -> None:
        super().__init__()
        self.action = self.title = ""
        self.fields: dict[str, str] = {}
        self._in_title = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        of = {name: value or "" for name, value in attrs}
        self._in_title = tag == "title"
        if tag == "form" and of.get("id") == "download-form":
            self.action = of.get("action", "")
        elif tag == "input" and of.get("type") == "hidden" and "name" in of:
            self.fields[of["name"]] = of.get("value", "")

    def handle_data(self, data: str) -> None:
        if self._in_title:
            self.title += data
        self._in_title = False


def _page_of(response: requests.Response) -> str:
    """The web page that an answer is, empty where it is a file."""
    if "text/html" not in response.headers.get("Content-Type", "").lower():
        return ""
    start: bytes = next(response.iter_content(_PAGE_BYTES), b"")
    return start.decode("utf-8", "replace")


def _given_name(response: requests.Response) -> str:
    """The file name that an answer suggests."""
    head = Message()
    head["Content-Disposition"] = response.headers.get("Content-Disposition", "")
    return head.get_filename("")

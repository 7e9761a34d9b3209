"""Find one file on simple indexes (PEP 503 pages, PEP 691 JSON) and in `--find-links` places."""

import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urljoin, urlsplit
from urllib.request import url2pathname

from studies.archives.archive import Archive
from studies.archives.sources import Sources
from studies.archives.web import Unreachable, Web, without_credentials

ACCEPT = "application/vnd.pypi.simple.v1+json, text/html;q=0.5"


def find(archive: Archive, sources: Sources, web: Web) -> Iterator[str]:
    """Addresses under which the archive's file is offered, local places first.

    The pinned sha256 makes all places equal, so the nearest may serve it. A place that cannot be
    read or lacks the file is remembered in `web.troubles` and passed over.
    """
    project = re.sub(r"[-_.]+", "-", archive.package).lower()
    pages = [(f"{base.rstrip('/')}/{project}/", "index") for base in sources.indexes]
    pages += [(_as_address(place), "links") for place in sources.find_links]
    for page, kind in sorted(pages, key=lambda item: not item[0].startswith("file:")):
        try:
            links = dict(_links(page, kind, web))
        except Unreachable as error:
            web.troubles.append(str(error))
            continue
        if archive.filename in links:
            yield links[archive.filename]
        else:
            web.troubles.append(f"{without_credentials(page)} does not list {archive.filename}")


def _as_address(place: str) -> str:
    return place if "://" in place or place.startswith("file:") else Path(place).resolve().as_uri()


def _links(page: str, kind: str, web: Web) -> Iterator[tuple[str, str]]:
    """(file name, address) of every link on a page or in a folder."""
    if page.startswith("file:"):
        path = Path(url2pathname(urlsplit(page).path))
        if kind == "links" and path.is_dir():
            yield from ((file.name, file.as_uri()) for file in path.iterdir() if file.is_file())
            return
        if path.is_dir():
            page = path.joinpath("index.html").as_uri()
    text, content_type, base = web.read(page, accept=ACCEPT)
    if "json" in content_type:
        for file in json.loads(text)["files"]:
            yield file["filename"], urljoin(base, file["url"])
        return
    parser = _Anchors()
    parser.feed(text)
    for href in parser.hrefs:
        address = urldefrag(urljoin(parser.base or base, href)).url
        yield unquote(urlsplit(address).path.rsplit("/", 1)[-1]), address


class _Anchors(HTMLParser):
    """Collects the links of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.hrefs: list[str] = []
        self.base: str | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Remember `<a href>` and `<base href>`."""
        href = dict(attrs).get("href")
        if href and tag == "a":
            self.hrefs.append(href)
        elif href and tag == "base":
            self.base = href

"""Read http, https and file addresses the way pip is configured to."""

import base64
import netrc
import ssl
from http.client import HTTPException
from urllib.error import HTTPError
from urllib.parse import unquote, urlsplit, urlunsplit
from urllib.request import HTTPSHandler, OpenerDirector, ProxyHandler, Request, build_opener
from urllib.response import addinfourl

from studies.archives.sources import Sources


class Unreachable(Exception):
    """An address could not be read; the message names it, without credentials, and the reason."""


class Web:
    """Opens addresses for one fetch and remembers what went wrong."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self._logins = {
            parts.hostname: (unquote(parts.username), unquote(parts.password or ""))
            for parts in map(urlsplit, (*sources.indexes, *sources.find_links))
            if parts.hostname and parts.username
        }
        self.troubles: list[str] = []
        """Why places were passed over, for the message when nothing is found."""

    def open(self, address: str, accept: str = "*/*") -> addinfourl:
        """A stream of the content behind `address`.

        Raises:
            Unreachable: no connection, no such page, or not allowed.
        """
        host = urlsplit(address).hostname
        request = Request(without_credentials(address), headers={"Accept": accept})
        request.add_header("User-Agent", "basis-zoo")
        login = self._login(host)
        if login:
            token = base64.b64encode(":".join(login).encode()).decode()
            request.add_unredirected_header("Authorization", f"Basic {token}")
        try:
            # what http, https and file give
            page: addinfourl = self._opener(host).open(request, timeout=self._sources.timeout)
            return page
        except HTTPError as error:
            raise Unreachable(f"{request.full_url}: HTTP {error.code} {error.reason}") from error
        except (OSError, HTTPException) as error:
            reason = getattr(error, "reason", error)
            raise Unreachable(f"{request.full_url}: {reason}") from error

    def read(self, address: str, accept: str) -> tuple[str, str, str]:
        """Text, content type and final address of a page.

        Raises:
            Unreachable: as `open`.
        """
        try:
            with self.open(address, accept) as stream:
                text = stream.read().decode("utf-8", errors="replace")
                return text, stream.headers.get("Content-Type", ""), stream.url
        except (OSError, HTTPException) as error:
            raise Unreachable(f"{without_credentials(address)}: {error}") from error

    def _login(self, host: str | None) -> tuple[str, str] | None:
        if host is None:
            return None
        if host in self._logins:
            return self._logins[host]
        try:
            entry = netrc.netrc().authenticators(host)
        except (FileNotFoundError, netrc.NetrcParseError):
            return None
        return (entry[0], entry[2]) if entry else None

    def _opener(self, host: str | None) -> OpenerDirector:
        context = ssl.create_default_context(cafile=self._sources.certificate)
        if host and any(t.split(":")[0] == host for t in self._sources.trusted_hosts):
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        proxy = self._sources.proxy
        handlers = [ProxyHandler({"http": proxy, "https": proxy})] if proxy else []
        return build_opener(HTTPSHandler(context=context), *handlers)


def without_credentials(address: str) -> str:
    """`address` without `user:password@`, fit for a message."""
    parts = urlsplit(address)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))

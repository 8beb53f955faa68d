"""The files of `/dump/` for visitors, before Flask, so that they need no database.

Hands out what was published under the few names that there are, and nothing else: all
other addresses below `/dump/` are answered 404 here, whatever is in the directory.
Needs no application context.
"""

import hashlib
import logging
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO, Any
from xml.etree.ElementTree import Element, SubElement, tostring

from werkzeug.wrappers import Response
from werkzeug.wsgi import FileWrapper

from ..engine.errors import Refused
from ..engine.layout import SUMS
from ..engine.words import size
from ..portal.config import Options
from ..portal.directories import public_dir, sendfile
from ..records import published
from ..records.published import Published
from .address import Prefixes
from .conditional import FRESH, finished, plain

Start = Callable[..., Any]
_log = logging.getLogger(__name__)
FEED = "feed.atom"
_BLOCK = 1 << 18
#: how often the list is read for one request, should a new set appear meanwhile
_LOOKS = 3


class DumpFiles:
    """A WSGI application that answers for the public dumps before another one."""

    def __init__(self, app: Callable[..., Any], options: Options) -> None:
        self._app = app
        try:
            self._directory: Path | None = public_dir(options)
            self._path = options.public_path
            self._sendfile = sendfile(options)
        except Refused as error:  # the site is served all the same
            self._directory = None
            _log.info("no public dumps: %s", error)
        self._prefixes = Prefixes(options)
        self._known: tuple[Any, Published | None, bytes] | None = None

    def __call__(
        self, environ: dict[str, Any], start_response: Start
    ) -> Iterable[bytes]:
        if self._directory is None:
            return self._app(environ, start_response)
        _, path = self._prefixes.split(environ)
        name = path.removeprefix(f"{self._path}/")
        if name in (path, ""):
            return self._app(environ, start_response)
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            response = plain("405 Method Not Allowed", "only GET and HEAD")
            response.headers["Allow"] = "GET, HEAD"
        else:
            response = self._answer(self._directory, name, environ) or plain(
                "404 Not Found", "no such file is published here"
            )
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response(environ, start_response)

    def _answer(
        self, directory: Path, name: str, environ: dict[str, Any]
    ) -> Response | None:
        """The answer for a name; None when no such file is published."""
        if name not in (*published.NAMES, published.INDEX, SUMS, FEED):
            return None
        # while a new set is moved up, a file is no longer what the list of a moment ago
        # says: the list is read anew then
        for _ in range(_LOOKS):
            try:
                found, index = self._look(directory)
                if found is None:
                    return None
                if name not in published.NAMES:
                    return _text(found, index, name, environ)
                response = self._file(directory, found, name, environ)
            except (FileNotFoundError, NotADirectoryError):
                return None
            except OSError as error:
                _log.warning("%s cannot be read: %s", directory / name, error)
                refused = plain("503 Service Unavailable", "try again in a moment")
                refused.headers["Retry-After"] = "5"
                return refused
            if response is not None:
                return response
            self._known = None
        return None

    def _file(
        self,
        directory: Path,
        found: Published,
        name: str,
        environ: dict[str, Any],
    ) -> Response | None:
        listed = found.files.get(name)
        opened = published.find(directory, listed) if listed else None
        if listed is None or opened is None:
            return None
        place, file = opened
        header, prefix = self._sendfile
        # what is not moved up yet may be before the web server opens it
        if header and place == name:
            file.close()
            response = Response(content_type=listed.type)
            response.headers[header] = prefix + name
            response.headers["Cache-Control"] = FRESH
            return response
        response = Response(
            _Body(file, listed.bytes), content_type=listed.type, direct_passthrough=True
        )
        response.call_on_close(file.close)
        return finished(response, listed.sha256, listed.modified, listed.bytes, environ)

    def _look(self, directory: Path) -> tuple[Published | None, bytes]:
        """What is published, and the bytes of its list. Raises OSError."""
        about = os.stat(directory / published.INDEX)
        seen = (about.st_ino, about.st_mtime_ns, about.st_size)
        known = self._known
        if known is None or known[0] != seen:
            self._known = known = seen, *published.read_with_bytes(directory)
        return known[1:]


class _Body(FileWrapper):
    """The bytes of a file, as many as were announced.

    Of a file that somebody cut short while it is read, the answer breaks off: a client
    that was told of more bytes takes what it has for a part, and asks for the rest.
    """

    def __init__(self, file: IO[bytes], size: int) -> None:
        super().__init__(file, _BLOCK)  # type: ignore[arg-type]
        self._size = size

    def __next__(self) -> bytes:
        left = self._size - self.file.tell()
        if left <= 0:
            raise StopIteration
        block = self.file.read(min(self.buffer_size, left))
        if not block:
            raise OSError("a published file was cut short while it was read")
        return block


def _text(
    found: Published, index: bytes, name: str, environ: dict[str, Any]
) -> Response:
    """What is told of the published files, under one of three names."""
    kind, body = {
        published.INDEX: ("application/json", index),
        SUMS: ("text/plain; charset=utf-8", found.sums),
        FEED: ("application/atom+xml; charset=utf-8", _feed(found)),
    }[name]
    response = Response(body, content_type=kind)
    moment = found.document["published"]
    return finished(
        response, hashlib.sha256(body).hexdigest(), moment, len(body), environ
    )


def _feed(found: Published) -> bytes:
    """An Atom feed: an entry for each file, a new one when its content changes."""
    address = str(found.document.get("url") or "")
    title = str(found.document.get("title") or "")
    feed = Element("feed", xmlns="http://www.w3.org/2005/Atom")
    _add(feed, "title", title)
    _add(feed, "id", address)
    _add(SubElement(feed, "author"), "name", title)
    _add(feed, "link", href=address)
    _add(feed, "link", rel="self", href=f"{address}{FEED}")
    _add(feed, "updated", found.document["published"])
    for file in found.files.values():
        entry, link = SubElement(feed, "entry"), f"{address}{file.name}"
        _add(entry, "title", file.name)
        _add(entry, "id", f"urn:sha256:{file.sha256}")
        _add(entry, "updated", file.modified)
        _add(entry, "summary", f"{file.rows} {file.kind}, {size(file.bytes)}")
        _add(entry, "link", rel="alternate", href=link)
        _add(
            entry, "link", rel="enclosure", type=file.type, length=str(file.bytes),
            href=link,
        )  # fmt: skip
    return tostring(feed, "utf-8", xml_declaration=True) + b"\n"


def _add(parent: Element, tag: str, text: str | None = None, **more: str) -> None:
    SubElement(parent, tag, more).text = text

"""Doors by which people are told: CKAN's mail, whatever Apprise reaches, a ping URL.

Each has little time, and what it raises says what the door answered, without a secret:
addresses of Apprise and of pings hold tokens, so they are read from files that only
their owner may read, and stand in no argument, log or message. Must not know what is
told.
"""

import json
import logging
import os
import re
import smtplib
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import copy_context
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from ..engine.errors import DbmanageError, Refused
from ..engine.printable import one_line
from .config import PREFIX, Options
from .remote import read_secret

#: seconds in which a door answers, and of one try of a ping
LIMIT, _TRY = 30.0, 10.0
#: CKAN's options without which no mail is sent
_NEEDED = ("smtp.server", "smtp.mail_from")
#: bytes of a ping's body
_MOST = 8000

_setting_up = threading.Lock()


class Shut(DbmanageError):
    """A door took nothing; the message says why, without a secret."""


def bounded(calls: Sequence[Callable[[], None]]) -> list[str]:
    """Calls all at the same time; why each has failed, empty where it has not.

    What has not ended when the time is over is left to itself: it ends with the
    process.
    """
    answers: list[str] = [_hangs()] * len(calls)

    def call(number: int) -> None:
        try:
            calls[number]()
            answers[number] = ""
        except Shut as error:
            answers[number] = one_line(error)
        except Exception as error:  # of a plugin, which may say anything
            answers[number] = type(error).__name__

    threads = [
        # the context has CKAN's configuration
        threading.Thread(target=copy_context().run, args=(call, n), daemon=True)
        for n in range(len(calls))
    ]
    end = time.monotonic() + LIMIT
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(end - time.monotonic(), 0))
    return list(answers)  # what answers later has hung


def _hangs() -> str:
    return f"no answer in {LIMIT:.0f} seconds"


# ---------------------------------------------------------------------- e-mail


def mail(options: Options, app: Any, address: str, subject: str, text: str) -> None:
    """Sends a mail by CKAN's mailer, and so by what plugins have put in its place.

    Without CKAN's application it is set up as the configuration file says. Raises Shut.
    """
    from ckan import plugins
    from ckan.common import config
    from ckan.lib import mailer

    try:
        with _configured(options, app), _hushed("ckan.lib.mailer"):
            # of what is missing the mailer says nothing, or nothing that helps
            lacks = [name for name in _NEEDED if not config.get(name)]
            if lacks and not list(plugins.PluginImplementations(plugins.INotifier)):
                raise Shut(f"{' and '.join(lacks)} is not set")
            mailer.mail_recipient("", address, one_line(subject), text)
    except Shut:
        raise
    except Exception as error:
        raise Shut(_of_mail(error)) from None


@contextmanager
def _configured(options: Options, app: Any) -> Iterator[None]:
    if app is not None:
        with app.app_context():
            yield
        return
    from ckan.common import config, config_declaration

    with _setting_up:  # other mails wait: half of it would be taken for all
        if "smtp.server" not in config:  # CKAN has not started
            settings: Any = dict(options.settings)
            config_declaration.setup()
            config_declaration.make_safe(settings)
            config_declaration.normalize(settings)
            config.update(settings)
    yield


def _of_mail(error: Exception) -> str:
    """What a mail server answered; its own words may repeat what it was told."""
    cause = error.__cause__ or error.__context__ or error
    code = getattr(cause, "smtp_code", "")
    if isinstance(cause, smtplib.SMTPRecipientsRefused):
        code = next((said[0] for said in cause.recipients.values()), "")
    if isinstance(cause, smtplib.SMTPException):
        return f"the mail server: {type(cause).__name__} {code}".rstrip()
    if isinstance(cause, OSError):
        return f"the mail server: {cause.strerror or type(cause).__name__}"
    return f"CKAN's mailer: {type(error).__name__}"


# --------------------------------------------------------------------- Apprise


def apprise_urls(options: Options) -> list[tuple[str, str]]:
    """The URLs that Apprise is to tell, each with what people call it. Raises Refused.

    That is its kind, which is no secret, and its place in the file.
    """
    name = options.notify_apprise_file
    lines = (
        read_secret(name, f"{PREFIX}notify.apprise_file").splitlines() if name else []
    )
    found = [line.strip() for line in lines if line.strip()]
    urls = [line for line in found if line[0] not in "#;"]
    if name and not urls:
        raise Refused(f"{PREFIX}notify.apprise_file: {name} has no URL on any line")
    for number, url in enumerate(urls, 1):
        if not re.match(r"[a-z0-9+.-]{1,20}://", url, re.IGNORECASE):
            raise Refused(
                f"{PREFIX}notify.apprise_file: URL {number} of {name} does not begin "
                "with a kind such as slack:// or json://"
            )
    kinds = (url.partition("://")[0] for url in urls)
    names = [f"Apprise {number} ({kind})" for number, kind in enumerate(kinds, 1)]
    return list(zip(urls, names, strict=True))


#: a process of its own, for what it logs has the URLs in it, and to be killed
_APPRISE = """
import json, logging, sys
logging.disable(logging.CRITICAL)
asked = json.load(sys.stdin)
try:
    import apprise
except ImportError:
    sys.exit(3)
door = apprise.Apprise()
if not door.add(asked["url"]):
    sys.exit(4)
sys.exit(0 if door.notify(title=asked["title"], body=asked["body"]) else 5)
"""
_ANSWERS = {
    3: "Apprise is not installed: `pip install 'ckanext-dbmanage[notify]'`",
    4: "Apprise knows no such URL: look at this line of the file",
    5: "it took nothing, or answered with an error",
}


def tell_by_apprise(url: str, subject: str, text: str) -> None:
    """Tells what a URL of Apprise's leads to. Raises Shut."""
    asked = json.dumps({"url": url, "title": one_line(subject), "body": text})
    try:
        done = subprocess.run(
            [sys.executable, "-c", _APPRISE],
            input=asked.encode(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=LIMIT - 2,  # killed before its time is over
            env=os.environ | {"PYTHONWARNINGS": "ignore"},
        )
    except subprocess.TimeoutExpired:
        raise Shut(_hangs()) from None
    if done.returncode:
        raise Shut(_ANSWERS.get(done.returncode, "Apprise ended with an error"))


# ------------------------------------------------------------------------ ping


def ping_url(options: Options) -> str:
    """The URL that a night asks for, empty where there is none. Raises Refused."""
    name = options.notify_ping_file
    if not name:
        return ""
    url = read_secret(name, f"{PREFIX}notify.ping_file").strip()
    with suppress(ValueError):  # whose message has the URL
        parts = urlsplit(url) if url.isprintable() and " " not in url else None
        if parts and parts.scheme in ("http", "https") and parts.hostname:
            return url
    raise Refused(f"{PREFIX}notify.ping_file: {name} has no URL of http or https")


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect is an answer: a ping goes where it is meant to, and nowhere else."""

    def redirect_request(
        self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> None:
        return None


def ping(url: str, what: str = "", body: str = "") -> None:
    """Asks for a ping URL, as Healthchecks.io has it: `what` is `start`, `fail`, `log`.

    Tries twice. Raises Shut, with the status and nothing of the URL.
    """
    parts = urlsplit(url)
    path = parts.path.rstrip("/") + (f"/{what}" if what else "")
    asked = urllib.request.Request(  # noqa: S310
        urlunsplit(parts._replace(path=path or "/", fragment="")),
        body.encode()[:_MOST],
        {"Content-Type": "text/plain; charset=utf-8", "User-Agent": "ckanext-dbmanage"},
        method="POST",
    )
    # no word of it is logged, unlike by the libraries above this one
    opener = urllib.request.build_opener(_NoRedirect)
    for tries in (1, 0):
        try:
            with opener.open(asked, timeout=_TRY) as answer:
                answer.read(1)
            return
        except urllib.error.HTTPError as error:
            error.close()
            if error.code < 500 or not tries:
                raise Shut(f"it answered {error.code}") from None
        except (OSError, ValueError) as error:
            why = getattr(error, "reason", error)
            told = getattr(why, "strerror", None) or type(why).__name__
            if not tries:
                raise Shut(f"it does not answer: {told}") from None
        except Exception as error:  # http.client says what it was sent
            raise Shut(f"it does not answer: {type(error).__name__}") from None
        time.sleep(1)


# ---------------------------------------------------------------------- silence


@contextmanager
def _hushed(name: str) -> Iterator[None]:
    """A logger says nothing of what this thread does: who asked is told."""
    thread = threading.get_ident()

    def other(record: logging.LogRecord) -> bool:
        return record.thread != thread

    logger = logging.getLogger(name)
    logger.addFilter(other)
    try:
        yield
    finally:
        logger.removeFilter(other)

"""Web servers, and visitors who ask them."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from portals import TABLE, Portal
from tools import BENCH, NGINX, run, say, started


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@contextmanager
def web(portal: Portal, port: int, ini: str = "") -> Iterator[subprocess.Popen[bytes]]:
    """A site's web process, in threads."""
    command = (portal.program, "-c", ini or portal.ini, "run", "-H", "127.0.0.1")
    options = ("-p", str(port), "--disable-reloader", "--threaded")
    with (
        open(BENCH / "portal.log", "ab") as log,
        started(*command, *options, stdout=log, stderr=log) as process,
    ):
        yield process


def nginx(servers: str) -> AbstractContextManager[subprocess.Popen[bytes]]:
    """nginx with these servers."""
    assert NGINX is not None
    configuration = BENCH / "nginx.conf"
    configuration.write_text(f"""daemon off; pid {BENCH}/nginx.pid; error_log {BENCH}/nginx.log;
    {"user root;" if os.getuid() == 0 else ""}
    events {{}} http {{ access_log off; sendfile on; client_body_temp_path {BENCH}/tmp;
      proxy_temp_path {BENCH}/tmp; {servers} }}""")
    return started(NGINX, "-c", str(configuration), stderr=subprocess.DEVNULL)


@contextmanager
def before_two() -> Iterator[tuple[int, int, int]]:
    """nginx before two CKANs: ports of the first, the second and the site.

    The second is asked when the first fails.
    """
    old, new, site = free_port(), free_port(), free_port()
    with nginx(f"""
      upstream ckan {{ server 127.0.0.1:{old} max_fails=0;
                       server 127.0.0.1:{new} max_fails=0 backup; }}
      server {{ listen 127.0.0.1:{site}; location / {{ proxy_pass http://ckan;
        proxy_next_upstream error timeout http_500 http_502 http_503; }} }}"""):
        yield old, new, site


class Served(NamedTuple):
    """Addresses of the same files, and CKAN's process."""

    ckan: str  # CKAN alone
    static: str  # nginx alone
    accel: str  # CKAN behind nginx, which sends the files
    process: subprocess.Popen[bytes]


@contextmanager
def served(
    portal: Portal, path: str, directory: Path, sendfile: str
) -> Iterator[Served]:
    """A directory served in three ways, below `path` by nginx alone.

    `sendfile` is the extension's option, nginx knows the directory as `/sent/`.
    """
    ports = {name: free_port() for name in ("ckan", "static", "behind", "accel")}
    inis = {}
    for name, more in (
        ("ckan", ""),
        ("behind", f"ckanext.dbmanage.sendfile = {sendfile}"),
    ):
        inis[name] = BENCH / f"{name}.ini"
        before = Path(portal.ini).read_text()
        inis[name].write_text(before.replace("[app:main]", f"[app:main]\n{more}"))
    servers = f"""
      server {{ listen 127.0.0.1:{ports["static"]}; location {path} {{ alias {directory}/; }} }}
      server {{ listen 127.0.0.1:{ports["accel"]};
        location / {{ proxy_pass http://127.0.0.1:{ports["behind"]}; }}
        location /sent/ {{ internal; alias {directory}/; }} }}"""
    with (
        web(portal, ports["ckan"], str(inis["ckan"])) as process,
        web(portal, ports["behind"], str(inis["behind"])),
        nginx(servers),
    ):
        urls = {name: f"http://127.0.0.1:{port}" for name, port in ports.items()}
        end = time.monotonic() + 60
        for name in ("ckan", "accel"):
            while time.monotonic() < end:
                with suppress(OSError):
                    url = f"{urls[name]}/api/3/action/status_show"
                    urllib.request.urlopen(url, timeout=60)
                    break
                time.sleep(0.2)
        yield Served(urls["ckan"], urls["static"], urls["accel"], process)


def fetched(url: str, *options: str) -> tuple[float, int]:
    """Seconds until the last byte, and bytes, of a download."""
    out = run(
        "curl", "-sf", "-o", "/dev/null", "-w", "%{time_total} %{size_download}",
        *options, url,
    ).out  # fmt: skip
    seconds, size = out.split()
    return float(seconds), int(size)


def resident(pid: int, key: str = "VmRSS") -> float:
    """MB of a process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(e.split()[1]) / 1024 for e in lines if e.startswith(f"{key}:"))


class Answer(NamedTuple):
    moment: float
    path: str
    seconds: float
    result: str  # "good", "away" or what went wrong


class Visitors:
    """A site that runs, and four who ask it for 20 answers a second all the while.

    Pages, `package_show` and `datastore_search`, each looked at: a good answer is 200
    and the right thing, 503 is maintenance, all else is an error. With `port` the site
    runs already.
    """

    RATE, NUMBER = 20, 4

    def __init__(self, portal: Portal, port: int = 0) -> None:
        self.portal, self.stop = portal, threading.Event()
        self.answers: list[Answer] = []
        self.port = port or free_port()
        self.is_up = bool(port)
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Visitors:
        with ExitStack() as stack:
            if not self.is_up:
                stack.enter_context(web(self.portal, self.port))
            end = time.monotonic() + 90
            while time.monotonic() < end and self.ask(*self.paths()[0]) != "good":
                time.sleep(0.2)
            for number in range(self.NUMBER):
                thread = threading.Thread(target=self.work, args=(number,))
                thread.start()
                stack.callback(thread.join)
            stack.callback(self.stop.set)
            self.wait_for(40)
            self.answers.clear()
            self.wait_for(4)  # an outage is between two good answers
            self.stack = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self.stack:
            if kind is None:
                self.wait_for(40)

    @staticmethod
    def paths() -> list[tuple[str, str]]:
        """Addresses, and words that the answer holds."""
        names = [f"dataset-{n}" for n in range(1, 20)]  # each twentieth is private
        search = f"/api/3/action/datastore_search?limit=3&resource_id={TABLE}"
        found = []
        for name in names:
            found += [(f"/dataset/{name}", name), (search, '"total": 500')]
            found += [(f"/api/3/action/package_show?id={name}", name)]
        return found

    def ask(self, path: str, words: str) -> str:
        try:
            with urllib.request.urlopen(self.url + path, timeout=60) as answer:
                whole = answer.read().decode()
            return "good" if answer.status == 200 and words in whole else "a wrong page"
        except urllib.error.HTTPError as error:
            with error:
                return "away" if error.code == 503 else str(error.code)
        except OSError as error:
            return type(error).__name__

    def work(self, number: int) -> None:
        paths, turn = self.paths(), number
        due = time.monotonic() + number / self.RATE
        while not self.stop.is_set():
            path, words = paths[turn % len(paths)]
            begun = time.monotonic()
            result = self.ask(path, words)
            ended = time.monotonic()
            self.answers.append(Answer(ended, path, ended - begun, result))
            turn += self.NUMBER
            due = max(due + self.NUMBER / self.RATE, time.monotonic())
            self.stop.wait(max(due - time.monotonic(), 0))

    def wait_for(self, count: int) -> None:
        """Until that many more good answers have come, 90 seconds at most."""

        def good() -> int:
            return sum(answer.result == "good" for answer in self.answers)

        end, wanted = time.monotonic() + 90, good() + count
        while good() < wanted and time.monotonic() < end:
            time.sleep(0.05)
        if good() < wanted:
            say(f"the site does not answer, see {BENCH.name}/portal.log")

    def seen(self) -> tuple[float, int]:
        """The longest time between two good answers, and the number of errors."""
        times = sorted(a.moment for a in self.answers if a.result == "good")
        longest = max(b - a for a, b in zip(times, times[1:], strict=False))
        results = [answer.result for answer in self.answers]
        counts = {result: results.count(result) for result in sorted(set(results))}
        say(f"answers: {counts}, longest gap {longest:.2f} s")
        return longest, len(results) - counts.get("good", 0) - counts.get("away", 0)

    def median(self, prefix: str) -> float:
        """Seconds of an answer below that address."""
        found = sorted(a.seconds for a in self.answers if a.path.startswith(prefix))
        return found[len(found) // 2]

"""CKAN on copies of the databases: a process of its own, no live service in its reach.

It has the site's configuration, but only the plugins that are asked for. The caller
needs neither CKAN's application nor its database.
"""

import json
import os
import re
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alembic.config import Config as AlembicConfig
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from ..engine.errors import ToolFailed, summary_of
from ..engine.postgres.again import passes
from ..engine.postgres.database import Database, closing, no_limits
from ..engine.postgres.programs import running
from .config import Options
from .installed import core_plugins

#: when a line was said on stderr, and the line; an empty one at a program's good end
Heard = list[tuple[float, str]]

#: CKAN 2.10 and 2.11 do not start without these
_LOGGING = """
[loggers]
keys = root, alembic
[handlers]
keys = console
[formatters]
keys = plain
[logger_root]
level = ERROR
handlers = console
[logger_alembic]
level = INFO
handlers =
qualname = alembic.runtime.migration
[handler_console]
class = StreamHandler
args = (sys.stderr,)
formatter = plain
[formatter_plain]
format = %(levelname)s %(message)s
"""

_NEED_DATASTORE = {"datastore", "datapusher", "datatables_view", "recline_view"}

#: nothing listens there: a copy's CKAN must not touch a live service
_CLOSED = "127.0.0.1:9"
#: how the address of a service begins, and how options of one without a scheme end
_SERVICE = re.compile(r"(postgres|mysql|redis|amqp|mongodb|memcache)[\w+]*://", re.I)
_HOST = (".host", ".hostname", ".server")
#: the same in the names of what the environment says
_LIVE = re.compile("SOLR|REDIS|SMTP|DATAPUSHER|STORAGE_PATH|HOST(NAME)?$|SERVER$")
#: how much later than others what runs beside a site that serves has its turn
NICE = 10


@dataclass(frozen=True)
class Isolated:
    """CKAN on copies of a site's databases, every live service out of its reach.

    What it says on stderr is added to `heard`.
    """

    options: Options
    copies: Mapping[str, Database]
    heard: Heard = field(default_factory=list)

    def command(self, plugins: list[str], *arguments: str) -> str:
        """What a command of CKAN printed, run with these plugins. Raises ToolFailed."""
        return self.code("from ckan.cli.cli import ckan; ckan()", plugins, *arguments)

    def code(
        self,
        code: str,
        plugins: list[str],
        *arguments: str,
        beside: Callable[[Callable[[], None]], None] | None = None,
        doing: str = "",
    ) -> str:
        """What Python code printed, run with the site's configuration, but only these
        plugins; `-c` and the configuration file stand before its arguments.

        What is done `beside`, in this process, is handed what ends the code's stdin: so
        it can wait for copies that are not ready yet. `doing` is what it does, for
        messages. Raises ToolFailed, and what that raises.
        """
        if "datastore" not in self.copies:  # one database for both: CKAN refuses that
            plugins = [name for name in plugins if name not in _NEED_DATASTORE]
        is_live = self.copies["database"] == self.options.databases["database"]
        with tempfile.TemporaryDirectory(prefix="dbmanage") as directory:
            ini = Path(directory) / "ckan.ini"
            base = os.path.abspath(self.options.settings["__file__"])
            closed = "".join(f"{k} = {v}\n" for k, v in self._addresses())
            ini.write_text(
                f"[app:main]\nuse = config:{base}\n"
                f"ckan.plugins = {' '.join(plugins)}\nckan.storage_path = {directory}\n"
                f"{closed}{_LOGGING}"
            )
            module = f"from {__name__} import allow_percent; allow_percent()"
            if beside:  # beside a site that serves: its visitors go first
                module = f"import os; os.nice({NICE})\n{module}"
            printed, lines, failed = _run(
                [f"{module}\n{code}", "-c", str(ini), *arguments],
                self._environment(directory, is_live),
                self.heard,
                beside,
            )
        if failed:
            where = "the live database" if is_live else "the copy"
            calm = "" if is_live else "; all that is live is as it was"
            raise ToolFailed(
                f"CKAN failed on {where} ({doing or ' '.join(arguments)})"
                f"{calm}:\n  " + "\n  ".join(_gist(lines))
            )
        return printed

    def _environment(self, directory: str, is_live: bool) -> dict[str, str]:
        """The addresses of CKAN's services: it wins over every configuration file."""
        main = self.copies["database"]
        store = self.copies.get("datastore", main)
        with closing(main.connect()) as connection:
            flags = no_limits(connection)
        if is_live:  # a migration that waits for a lock has all others wait behind it
            flags += " -c lock_timeout=10s"
        environment = dict(self._inherited())
        own = environment.pop("PGOPTIONS", "")
        if own or flags:
            environment["PGOPTIONS"] = f"{own} {flags}"
        return environment | {
            "CKAN_SQLALCHEMY_URL": _rendered(main.url, flags),
            "CKAN_DATASTORE_WRITE_URL": _rendered(store.url, flags),
            "CKAN_DATASTORE_READ_URL": _rendered(store.read_url or store.url, flags),
            "CKAN_REDIS_URL": f"redis://{_CLOSED}/0",
            "CKAN_SOLR_URL": f"http://{_CLOSED}/solr/none",
            "CKAN_DATAPUSHER_URL": f"http://{_CLOSED}",
            "CKAN_SMTP_SERVER": _CLOSED,
            "CKAN_STORAGE_PATH": directory,
        }

    def _inherited(self) -> Iterator[tuple[str, str]]:
        """This process's environment, in which a plugin may look for options too."""
        for name, value in os.environ.items():
            if not name.startswith("CKAN"):
                yield name, value
            elif _SERVICE.match(value):
                if new := self._elsewhere(value):
                    yield name, new
            elif not _LIVE.search(name):
                yield name, value

    def _addresses(self) -> Iterator[tuple[str, str]]:
        """Options of plugins that name a live service: a copy's or a closed address."""
        for option, value in self.options.settings.items():
            value = str(value or "")
            if _SERVICE.match(value):
                if new := self._elsewhere(value):
                    yield option, new.replace("%", "%%")
            elif value and option.endswith(_HOST):
                yield option, "closed.invalid"

    def _elsewhere(self, address: str) -> str:
        """The copy of a live database, or a closed address; empty for none at all."""
        with suppress(ArgumentError, ValueError):
            url = make_url(address)
            for part, live in self.options.databases.items():
                there = (live.url.host, live.url.database)
                if there == (url.host, url.database) and part in self.copies:
                    return _rendered(url.set(database=self.copies[part].name))
            return f"{address.partition(':')[0]}://{_CLOSED}/none"
        return ""


def _rendered(url: URL, flags: str = "") -> str:
    """The URL, these options after those that it has: libpq takes only its own then."""
    own = url.query.get("options")
    if own and flags:
        url = url.update_query_dict({"options": f"{own} {flags}"})
    return url.render_as_string(hide_password=False)


def allow_percent() -> None:
    """Lets core migrate a database whose URL holds a `%`, of a password or a socket.

    alembic, and core's reader of files for what is in the environment, take it for an
    interpolation.
    """
    import ckan.cli
    import ckan.model

    if ckan.cli.CKANConfigLoader.__module__ == __name__:
        return  # that was done before

    class Config(AlembicConfig):
        def set_main_option(self, name: str, value: str) -> None:
            try:
                super().set_main_option(name, value)
            except ValueError:
                super().set_main_option(name, value.replace("%", "%%"))

    class Loader(ckan.cli.CKANConfigLoader):
        def _update_defaults(self, new_defaults: dict[str, Any]) -> None:
            super()._update_defaults(
                {k: str(v).replace("%", "%%") for k, v in new_defaults.items()}
            )

    ckan.model.AlembicConfig = Config  # type: ignore[misc]
    ckan.cli.CKANConfigLoader = Loader  # type: ignore[misc]


def _run(
    arguments: list[str],
    environment: dict[str, str],
    heard: Heard,
    beside: Callable[[Callable[[], None]], None] | None = None,
) -> tuple[str, list[str], int]:
    """What a Python program printed, its lines on stderr, and its exit code."""

    def listen(file: Any) -> None:
        for line in without_values(file):
            if line.strip():
                heard.append((time.monotonic(), line.rstrip()))

    before = len(heard)
    with running(
        [sys.executable, "-c", *arguments], environment, listen=False, text=True,
        stdin=-1 if beside else -3, stdout=-1,
    ) as process:  # fmt: skip
        thread = threading.Thread(target=listen, args=(process.stderr,), daemon=True)
        thread.start()
        if beside and process.stdin:
            beside(process.stdin.close)
            process.stdin.close()
        printed = str(process.stdout.read()) if process.stdout else ""
        code = process.wait()
        thread.join()
    if not code:
        heard.append((time.monotonic(), ""))
    return printed, [line for _, line in heard[before:]], code


_ROW = re.compile(r"DETAIL: +Failing row contains|LINE \d+: |\s*\^\s*$")
_KEY = re.compile(r"(Key \([^)]*(?:key|pass|token|secret|hash)[^)]*\)=)\(.*\)", re.I)


def without_values(lines: Iterable[str]) -> Iterator[str]:
    """What a program said of an error, without the values of its statement.

    SQLAlchemy tells the statement and its parameters, PostgreSQL the row and the line:
    hashes of passwords and keys are among them.
    """
    inside = False
    for line in lines:
        inside = inside or line.startswith(("[SQL: ", "[parameters: "))
        if inside and line.startswith(("(Background on", "Traceback ")):
            inside = False
        if not inside and not _ROW.match(line):
            yield _KEY.sub(r"\1(…)", line)


def _gist(lines: list[str]) -> list[str]:
    """The error in what a program said, without the statement that follows it."""
    errors = re.compile(r"[\w.]+(Error|Exception|Failed|Mismatch): ")
    begins = [n for n, line in enumerate(lines) if errors.match(line)]
    return lines[begins[-1] :][:4] if begins else lines[-6:]


def sample(
    options: Options,
) -> Callable[[Mapping[str, Database]], dict[str, Any]]:
    """What reads a sample of copies through CKAN, as `print_sample` says it."""
    code = f"from {__name__} import print_sample; print_sample()"

    def read(copies: Mapping[str, Database]) -> dict[str, Any]:
        printed = Isolated(options, copies).code(
            code, core_plugins(options.plugins), doing="reading a sample"
        )
        return json.loads(printed.splitlines()[-1])

    return read


#: how many of each kind a proof reads
SAMPLE = 50


def print_sample() -> None:
    """Reads random datasets, organizations and users through CKAN; prints JSON.

    `{"read": {kind: count}, "problems": [sentence]}`. For a process of its own, with
    `-c` and a configuration file as its arguments.
    """
    from ckan import model
    from ckan.cli import load_config
    from ckan.config.middleware import make_app
    from ckan.logic import get_action
    from sqlalchemy import func

    made: Any = make_app(load_config(sys.argv[2]))
    package, group, user = model.Package, model.Group, model.User
    kinds = {
        "datasets": ("package_show", package.id, package.state == "active"),
        "organizations": (
            "organization_show",
            group.id,
            (group.state == "active") & group.is_organization,
        ),
        "users": ("user_show", user.id, user.state == "active"),
    }
    read, problems = {}, []
    with made._wsgi_app.test_request_context():
        for kind, (action, column, where) in kinds.items():
            chosen = model.Session.query(column).filter(where)
            ids = [row[0] for row in chosen.order_by(func.random()).limit(SAMPLE)]
            for id in ids:
                context: Any = {"ignore_auth": True, "use_cache": False}
                # what needs the search index is left out: there is none
                data = {"id": id}
                data |= {"include_dataset_count": False, "include_groups": False}
                try:
                    get_action(action)(context, data)
                except Exception as error:
                    if passes(error):  # it says nothing of what is read
                        raise
                    model.Session.rollback()
                    problems.append(
                        f"CKAN cannot read {kind} {id}: {summary_of(error)}"
                    )
            read[kind] = len(ids)
    print(json.dumps({"read": read, "problems": problems}))  # noqa: T201

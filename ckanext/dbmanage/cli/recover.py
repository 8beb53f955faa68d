"""`python -m ckanext.dbmanage recover`: a portal comes back on a new machine."""

import os
import shlex
from collections.abc import Iterator
from pathlib import Path

import click

from ..engine import words
from ..engine.errors import Damaged, Refused
from ..engine.printable import one_line
from ..operations.context import Portal
from ..operations.elsewhere import address_of
from ..operations.recover import (
    Candidate,
    Recovery,
    follow,
    holds,
    is_restored,
    is_root,
    run_recover,
)
from ..operations.restore import run_restore
from ..portal.config import Options
from ..portal.remote import place, place_at
from .base import (
    TALK,
    Command,
    ask_name,
    quiet_option,
    refuse_without_terminal,
    yes_option,
)
from .output import Talk, result, when
from .restore import restore_as_asked


@click.command(cls=Command)
@click.argument("id", required=False)
@click.option(
    "--from",
    "address",
    default="",
    metavar="REPOSITORY",
    help="The other place, as restic writes it. Without it RESTIC_REPOSITORY counts.",
)
@click.option(
    "--password-file",
    default="",
    metavar="FILE",
    help="The file with its password. Without it restic's own variables count.",
)
@click.option(
    "--to",
    default="",
    metavar="DIR",
    help="Keep the backups in DIR. Without it they go where ckan.ini says.",
)
@click.option(
    "--host", default="", metavar="SITE", help="Which site, where several are there."
)
@click.option(
    "--admin",
    default="",
    metavar="URL",
    help="Connect as this role to make those that are missing: postgresql://USER@HOST:PORT.",
)
@yes_option
@quiet_option
@click.pass_context
def recover(
    ctx: click.Context,
    id: str | None,
    address: str,
    password_file: str,
    to: str,
    host: str,
    admin: str,
    yes: bool,
    quiet: bool,
) -> None:
    """Bring a portal back on a new machine.

    PostgreSQL, CKAN with its plugins, and restic are installed; nothing else is needed
    but the other place and its password. Without ID it is the newest backup that is
    whole. ckan.ini comes along: it is written where none is, at -c, CKAN_INI or
    ./ckan.ini, and never written over. Missing roles are made where this user may, or
    the SQL is shown. Then the backup is restored, and the search index built. Killed,
    the same command goes on.
    """
    talk = ctx.meta[TALK] = Talk(quiet)
    ini = Path(ctx.find_root().obj.ini or os.environ.get("CKAN_INI") or "ckan.ini")
    if not yes:
        refuse_without_terminal()
    try:
        there = place_at(address, password_file)
        mighty = address_of(admin) if admin else None
    except Refused as error:
        raise click.UsageError(str(error)) from None

    def ask(recovery: Recovery, chosen: Candidate) -> None:
        options = chosen.options
        made = when(chosen.made) if chosen.made else chosen.snapshot.id
        talk.say(
            f"backup {chosen.snapshot.id} at {there.shown} is signed with the secret "
            "of its ckan.ini, so who has not that secret has changed nothing in it. "
            "That does not prove who made the two: whoever has the password of the "
            "place could have written both, and CKAN does what ckan.ini says"
        )
        if not yes:
            verb = "uses" if recovery.own else "writes"
            ask_name(
                f"Bring {options.site_address} back on this machine, from the backup "
                f"of {made}? It {verb} {ini}, and goes to {_targets(options)}.",
                options,
            )

    portal, backup = run_recover(
        talk, there, ini.expanduser().absolute(), to=to, id=id or "", host=host,
        admin=mighty, ask=ask,
    )  # fmt: skip
    _restore(portal, backup.id, yes)
    result(f"recovered {one_line(portal.options.site_address)} from backup {backup.id}")
    for sentence in _next(portal):
        talk.say(sentence)


def _targets(options: Options) -> str:
    """What the question names: databases with their servers, and the uploads."""
    databases = options.databases.values()
    found = [f"the database {d.name!r} at {d.server}" for d in databases]
    if options.storage_path:
        found.append(f"the uploads in {options.storage_path}")
    return words.listed(found)


def _restore(portal: Portal, id: str, yes: bool) -> None:
    """Restores it, but over nothing that is live and that nobody was asked about."""
    if is_restored(portal, id):
        portal.talk.say(f"backup {id} is restored already: what is live stays")
        follow(portal)
        return
    live = holds(portal)
    if not live:
        try:
            run_restore(portal, id, attended=True, no_backup=True)
        except Damaged as error:  # what came was looked at: it was there before
            raise Refused(
                f"{error}\nIt was in the repository already. `ckan db forget --newest "
                f"{id}` takes it away there alone; this command brings it anew then"
            ) from error
    elif yes:
        raise Refused(
            f"{portal.options.site_address} may be here already, for "
            f"{'; '.join(live)}: --yes writes over nothing that is live. Without it "
            f"you are asked; or `ckan db restore {id}`"
        )
    else:
        restore_as_asked(portal, id, (), False, False, False)


def _next(portal: Portal) -> Iterator[str]:
    """What is left to do by hand."""
    options = portal.options
    if is_root():
        ini, storage = options.text("__file__"), options.storage_path
        yield (
            "all of it belongs to root now: give it to CKAN's user, `chown -R USER "
            f"{shlex.join(filter(None, [ini, storage, options.repository]))}`"
        )
    try:
        place(options)
    except Refused as error:
        yield f"the next `ckan db push` will fail: {error}"
    yield (
        "next: start CKAN's web server and workers, look at a dataset that you know, "
        "let `ckan db doctor` tell what is missing, and let backups run each night"
    )

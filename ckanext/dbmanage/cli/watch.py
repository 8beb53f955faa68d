"""`ckan db metrics` and `notify`."""

import click

from ..engine.disk import whole
from ..engine.errors import Refused
from ..engine.words import many
from ..operations.metrics import metrics as written
from ..operations.notify import run_notify, try_doors
from .base import Command, portal_of, quiet_option
from .output import Talk, echo, result


@click.command(cls=Command)
@click.option(
    "--textfile",
    "file",
    type=click.Path(dir_okay=False),
    help="Write them to this file, for node_exporter to read.",
)
@click.pass_context
def metrics(ctx: click.Context, file: str | None) -> None:
    """Print what Prometheus is to know of the backups.

    No database is asked. --textfile writes a file whole or not at all, which all may
    read; its name is to end in .prom.
    """
    portal = portal_of(ctx, Talk(quiet=True))
    text = written(portal)
    if file is None or file == "-":
        echo(text.decode().rstrip("\n"))
        return
    if not file.endswith(".prom"):
        raise Refused(f"{file}: node_exporter reads files whose names end in .prom")
    with whole(file, 0o644) as out:
        out.write(text)


@click.command(cls=Command)
@click.option("--test", is_flag=True, help="Try each door, and say what it answers.")
@quiet_option
@click.pass_context
def notify(ctx: click.Context, test: bool, quiet: bool) -> None:
    """Tell people what is not well, and its end.

    Each once, by e-mail and by what Apprise reaches, as the options
    ckanext.dbmanage.notify.* say. A timer runs it each hour. --test tries each door,
    and the ping URL too.
    """
    talk = Talk(quiet)
    portal = portal_of(ctx, talk)
    if test:
        answers = try_doors(portal)
        for each in answers:
            result(f"{each.door}: {each.error or 'took it'}")
    else:
        troubles, answers = run_notify(portal)
        for each in answers:
            if not each.error:
                result(f"{each.door} was told: {each.subject}")
        if not answers:
            said = "; ".join(each.english for each in troubles)
            talk.say(f"told before: {said}" if said else "all is well, as before")
    if failed := [each for each in answers if each.error]:
        again = "" if test else ", and are told again the next time"
        said = "; ".join(f"{each.door}: {each.error}" for each in failed)
        doors = many(len(failed), "door")
        raise click.ClickException(f"{doors} took nothing{again}: {said}")

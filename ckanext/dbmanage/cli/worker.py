"""`ckan db worker`: core's worker, for the jobs of this site's page."""

from typing import Any

import click
from ckan.cli.jobs import worker as core

from ..jobs.queue import Jobs
from ..operations.context import find_site, refuse_root
from .base import Told, portal_of
from .output import Talk


@click.command(cls=Told)
@click.pass_context
def worker(ctx: click.Context, /, **options: Any) -> None:
    """Do the jobs of the sysadmin page.

    What the page asks for waits until one runs. It is `ckan jobs worker` for the queue
    of this site, and ends as that does. Run it as CKAN's user, for as long as the site
    runs.
    """
    portal = portal_of(ctx, Talk(quiet=False))
    site, _ = find_site(portal)
    refuse_root(site)
    ctx.invoke(core, queues=[Jobs(portal.options).queue], **options)


#: core's own options; the queue is no choice here
worker.params = [each for each in core.params if each.name != "queues"]

"""The check of the other place: by what is noted here, which takes no network."""

from ..engine.offsite.look import remembered
from ..engine.offsite.restic import at
from ..engine.repository.repository import Repository
from ..engine.site import Site
from ..operations import ages
from ..operations.context import Portal
from ..operations.safety import GOOD, first_of
from ..portal.remote import place
from .checks import aged
from .finding import HINT, Found


def other_place(portal: Portal, _: Site, repository: Repository) -> Found:
    where = place(portal.options)  # which looks at the files of secrets
    if where is None:
        return
    with at(where):  # restic is there, and new enough
        pass
    seen = remembered(repository)
    good = [d for b in repository.backups() if (d := b.describe())["state"] in GOOD]
    first = first_of([each for each in good if not each["future"]])
    age = ages.of_copy(portal.options, seen, first)
    if age is None or age.state == ages.NEVER:
        yield HINT, f"no backup was copied to {where.shown} yet: `ckan db push`"
    elif seen.place != where.shown:
        yield (
            HINT,
            f"nobody has looked at {where.shown} yet, the last copy went to "
            f"{seen.place}: `ckan db push`",
        )
    else:
        what = f"the newest backup at {where.shown}"
        yield aged(age, what, "is {} old", "`ckan db push`")

"""The check of the other place: by what is noted here, which takes no network."""

from ..engine.clock import has_come, parse_id, stamp
from ..engine.offsite.look import remembered
from ..engine.offsite.restic import at
from ..engine.repository.repository import Repository
from ..engine.site import Site
from ..operations.context import Portal
from ..operations.safety import FRESH, STALE
from ..portal.remote import place
from .finding import HINT, OK, PROBLEM, Found, age_since, in_words


def other_place(portal: Portal, _: Site, repository: Repository) -> Found:
    where = place(portal.options)  # which looks at the files of secrets
    if where is None:
        return
    with at(where):  # restic is there, and new enough
        pass
    seen = remembered(repository)
    whole = [id for id in seen.whole if has_come(id)]
    if not whole:
        yield PROBLEM, f"no backup was copied to {where.shown} yet: `ckan db push`"
    elif seen.place != where.shown:
        yield (
            HINT,
            f"nobody has looked at {where.shown} yet, the last copy went to "
            f"{seen.place}: `ckan db push`",
        )
    else:
        age = age_since(stamp(parse_id(max(whole))))
        state = OK if age < FRESH else HINT if age < STALE else PROBLEM
        text = f"the newest copy at {where.shown} is of a backup {in_words(age)} old"
        yield state, text if state == OK else f"{text}: `ckan db push`, nightly"

"""The checks by name, and all that they find."""

from psycopg2.errors import UndefinedTable

from ..engine.errors import explanation_of, summary_of
from ..engine.repository.repository import Repository
from ..engine.site import Site
from ..operations.context import Portal
from ..operations.journal import TOLD
from . import checks, offsite, portal_checks
from .finding import HINT, PROBLEM, Check, Finding

CHECKS: dict[str, Check] = {
    "databases": checks.databases,
    "rights": checks.rights,
    "programs": checks.programs,
    "configuration": checks.configuration,
    "plugin": checks.plugin,
    "repository": checks.repository_directory,
    "backups": checks.backups,
    "proof": checks.proof,
    "other place": offsite.other_place,
    "uploads": checks.uploads,
    "public dumps": checks.public_dumps,
    "told": checks.told,
    "switch": checks.switch,
    "maintenance": checks.maintenance,
    "migrations": portal_checks.migrations,
    "users": portal_checks.users,
    "search index": portal_checks.search_index,
    "datastore": portal_checks.permissions,
    "datastore tables": portal_checks.datastore_tables,
    "upload files": portal_checks.upload_files,
    "secrets": portal_checks.secrets,
}


def examine(portal: Portal, site: Site, repository: Repository) -> list[Finding]:
    """All that the checks find, in their order; one fault is told once."""
    found, told = [], dict[str, str]()
    for name, check in CHECKS.items():
        try:
            found += [Finding(name, *each) for each in check(portal, site, repository)]
        except Exception as error:  # a check that fails is itself a problem
            text = reason(error)
            if _lacks_a_table(error):
                text = f"CKAN's tables are not there{site.advise('empty')}"
            # both databases of a server that is down fail alike
            first = told.setdefault(getattr(error, "reason", "") or text, name)
            if first == name:
                found.append(Finding(name, PROBLEM, text, not _could_not_look(error)))
            else:
                same = f"not checked, for the reason that stands at {first}"
                found.append(Finding(name, HINT, same))
    return found


def _could_not_look(error: Exception) -> bool:
    """Whether the check is at fault, or the user that it runs as, and not the site."""
    behind = error.__cause__ or error.__context__
    return not isinstance(error, TOLD) or any(
        isinstance(each, PermissionError) for each in (error, behind)
    )


def _lacks_a_table(error: Exception) -> bool:
    """Whether PostgreSQL knows no such table: the database is empty, or half of one."""
    return isinstance(getattr(error, "orig", None) or error, UndefinedTable)


def reason(error: Exception) -> str:
    """Why a check failed; of an error that nobody foresaw its name too."""
    if isinstance(error, TOLD):
        return explanation_of(error)
    return f"this check failed: {summary_of(error)}"

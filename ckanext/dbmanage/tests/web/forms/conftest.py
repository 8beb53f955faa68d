"""One site for all tests of forms: to start CKAN takes seconds."""

from __future__ import annotations

import os
from collections.abc import Iterator

import ckan
import pytest

from ...support.cluster import SUPERUSER, query
from ...support.pages import ROLE
from ...support.portal import Portal, install_plugin
from ...support.site import SYSADMIN, Session, Site, hosted_with_redis

#: signs in by a cookie of its own, as a plugin for single sign-on does
SSO = """
import ckan.plugins as p
from ckan import model
from ckan.common import request
from flask import current_app

class Plugin(p.SingletonPlugin):
    p.implements(p.IAuthenticator, inherit=True)

    def identify(self):
        if name := request.cookies.get("sso"):
            user = model.User.get(name)
            current_app.login_manager._update_request_context_with_user(user)
"""


#: the plugins of CKAN 2.10 are made otherwise
_SSO = "" if ckan.__version__.startswith("2.10") else " sso"


@pytest.fixture(scope="package")
def site(template: Portal, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    directory = tmp_path_factory.mktemp("forms")
    with pytest.MonkeyPatch.context() as patch:
        found = install_plugin(
            directory / "sso", "sso", {"__init__.py": SSO}, "__init__:Plugin"
        )
        patch.setenv("PYTHONPATH", found["PYTHONPATH"], prepend=os.pathsep)
        at = f"{SUPERUSER.host}:{SUPERUSER.port}"
        options = {
            "ckan.plugins": f"dbmanage datastore activity{_SSO}",
            "ckanext.dbmanage.sendfile": "X-Accel-Redirect /public /inside",
            "ckanext.dbmanage.admin_url": f"postgresql://{ROLE}:other@{at}/postgres",
        }
        query(f"CREATE ROLE {ROLE} LOGIN CREATEDB PASSWORD 'other'")
        query(f"GRANT ckan_default TO {ROLE}")
        try:
            with hosted_with_redis(template, directory, **options) as made:
                yield made
        finally:
            query(f"DROP ROLE {ROLE}")


@pytest.fixture(scope="package")
def backup(site: Site) -> str:
    """The one that is there when a test begins."""
    return site.portal.backup().name


@pytest.fixture(scope="package")
def token(site: Site) -> str:
    return site.token


@pytest.fixture(scope="package")
def me(site: Site) -> Session:
    return site.session(SYSADMIN)


@pytest.fixture(autouse=True)
def as_it_was(site: Site, backup: str) -> Iterator[None]:
    """Each test finds one backup and nothing in Redis; what it adds goes with it."""
    with site.left_as_it_was():
        yield

"""Files of secrets, as options name them."""

import pytest

from ckanext.dbmanage.engine.errors import Refused
from ckanext.dbmanage.portal.remote import read_secret


@pytest.mark.parametrize(
    "secret", ["hunter2", "https://hc.example/ping/hunter2", "json://h:hunter2@x/y"]
)
def test_a_secret_in_the_place_of_its_file_is_not_shown(secret: str) -> None:
    with pytest.raises(Refused, match="the path of a file") as refused:
        read_secret(secret, "ckanext.dbmanage.notify.ping_file")
    assert "hunter2" not in str(refused.value)
    assert refused.value.__cause__ is None


def test_a_file_that_is_missing_is_named() -> None:
    with pytest.raises(Refused, match="^--password-file: /nowhere/pw: No such file"):
        read_secret("/nowhere/pw", "--password-file")

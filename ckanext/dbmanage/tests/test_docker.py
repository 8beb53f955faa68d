"""What is shipped for ckan-docker: each line runs on the package set of its image."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from .support.image import SLIM, Image, instructions, service
from .support.manual import ROOT
from .support.portal import Portal

SHIPPED = ROOT / "contrib/ckan-docker"
DOCKERFILE = (SHIPPED / "Dockerfile").read_text()
COMPOSE = yaml.safe_load((SHIPPED / "compose.override.yml").read_text())
#: the night sleeps twice: before what it makes up, and until the next
_SLEEP = """#!/bin/sh
[ "$1" = 120 ] || { echo "sleeps $1"; kill $PPID; }
"""


@pytest.mark.skipif(not SLIM.exists(), reason="no package set of Debian slim")
def test_the_image_takes_and_proves_backups_by_its_worker_and_nights(
    portal: Portal, tmp_path: Path
) -> None:
    image = Image(tmp_path / "image", portal)
    image.build(DOCKERFILE)
    # nothing of the image is root's that a container is to write
    assert image.user == "ckan" and image.run("id -un") == "ckan\n"
    image.run("touch /var/backups/ckan/x && rm /var/backups/ckan/x")
    assert "16." in image.run("/usr/lib/postgresql/16/bin/pg_dump --version")
    services = COMPOSE["services"]
    sleep = image.root / "clock/sleep"
    sleep.parent.mkdir()
    sleep.write_text(_SLEEP)
    sleep.chmod(0o755)
    path = f"/clock:{image.environment['PATH']}"
    night = image.start(service(services, "nightly"), PATH=path)
    *report, until = night.stdout.splitlines()
    assert [line.split()[:2] for line in report][:2] == [
        ["backup", "done"],
        ["prove", "done"],
    ], night.stderr
    assert 0 < int(until.removeprefix("sleeps ")) <= 24 * 60 * 60
    assert night.stderr in ("", "Terminated\n")  # by what stands for `sleep`
    # what the container of CKAN does whenever it starts
    image.run("ckan db init")
    # as another container finds it, for all have one secret
    (backup,) = json.loads(image.run("ckan db backups --json"))
    assert backup["state"] == "proven"
    assert Path(backup["path"]).parent == Path("/var/backups/ckan")
    image.run(f"{service(services, 'worker')} --burst")


def test_the_image_and_the_services_fit_ckan_docker() -> None:
    words = [word for word, _ in instructions(DOCKERFILE)]
    assert len(words) <= 12
    first, *_, last = instructions(DOCKERFILE)
    assert first[0] == "FROM" and first[1].startswith("ckan/ckan-base:2.")
    assert last == ("USER", "ckan")
    (volume,) = COMPOSE["volumes"]
    repository = re.search(r"dbmanage\.repository = ([\w/]+)", DOCKERFILE)
    assert repository and set(COMPOSE["services"]) == {"ckan", "worker", "nightly"}
    for each in COMPOSE["services"].values():
        assert each["volumes"] == [f"{volume}:{repository[1]}"]


#: what the services stand beside, in the form of ckan-docker's own file
_BASE = """
services:
  ckan:
    build: {context: ckan/}
    networks: [dbnet]
    env_file: [.env]
    depends_on: {db: {condition: service_healthy}}
    volumes: ["ckan_storage:/var/lib/ckan"]
    restart: unless-stopped
    healthcheck: {test: [CMD, "true"]}
  db: {build: {context: postgresql/}, networks: [dbnet]}
networks: {dbnet: {internal: true}}
volumes: {ckan_storage: }
"""
_DOCKER_COMPOSE = SLIM.parent / "docker-compose/docker-compose"


@pytest.mark.skipif(not _DOCKER_COMPOSE.exists(), reason="no Docker Compose")
def test_docker_compose_puts_the_services_beside_ckan_docker_s(tmp_path: Path) -> None:
    (tmp_path / "docker-compose.yml").write_text(_BASE)
    shutil.copy2(SHIPPED / "compose.override.yml", tmp_path)
    (tmp_path / ".env").touch()

    def config() -> subprocess.CompletedProcess[str]:
        command = [_DOCKER_COMPOSE, "config", "--format", "json"]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)

    # not without a secret: each container would make its own
    assert "CKAN_SECRET_KEY" in config().stderr and "into .env" in config().stderr
    (tmp_path / ".env").write_text("CKAN_SECRET_KEY=secret\nCKAN__PLUGINS=dbmanage\n")
    services = json.loads(config().stdout)["services"]
    ckan = services["ckan"]
    assert {"worker", "nightly", "ckan", "db"} == set(services)
    for name in ("worker", "nightly"):
        each = services[name]
        for part in ("build", "networks", "volumes", "restart"):
            assert each[part] == ckan[part]
        assert {"target": "/var/backups/ckan", "source": "ckan_backups"}.items() <= (
            each["volumes"][1].items()
        )
        assert each["environment"].items() >= ckan["environment"].items()
        assert each["environment"]["CKAN__PLUGINS"] == "dbmanage"
        assert each["healthcheck"]["disable"] and not ckan["healthcheck"].get("disable")
        assert each["depends_on"]["ckan"]["condition"] == "service_healthy"
        assert "db" in each["depends_on"]


def test_the_shell_of_the_night_is_sh_s() -> None:
    *_, script = COMPOSE["services"]["nightly"]["command"]
    subprocess.run(
        ["dash", "-n"], input=script.replace("$$", "$"), check=True, text=True
    )

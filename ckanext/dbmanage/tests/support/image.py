"""ckan-docker's image without Docker: Debian's slim package set, and a CKAN in it.

`bin/services versions` makes the package set. A Dockerfile's lines are run in a copy of it
that is the root directory of a namespace of its own; needs root, as CI has.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from .cluster import PG16
from .portal import Portal
from .released import put_ckan, released, write_ckan

SLIM = Path(os.environ["DBMANAGE_SERVICES"]) / "slim"

#: what is run in the namespace: root directory, user, line of shell
_ENTER = """
mount --rbind /dev "$1/dev" && mount -t proc proc "$1/proc" &&
exec chroot --userspec="$2" "$1" /bin/sh -c "$3"
"""
#: as ckan-docker's image has them
_USERS = """
groupadd -g 502 ckan-sys
useradd -rm -d /srv/app -s /bin/bash -g ckan-sys -u 502 ckan-sys
useradd -rM -d /srv/app -s /bin/bash -g ckan-sys -u 503 ckan
"""


def instructions(text: str) -> Iterator[tuple[str, str]]:
    """The instructions of a Dockerfile: the word, and what stands after it."""
    for line in text.replace("\\\n", "").splitlines():
        if line and not line.startswith("#"):
            word, _, rest = line.partition(" ")
            yield word, rest.strip()


class Image:
    """A copy of the package set, with the CKAN of these tests and its configuration."""

    def __init__(self, root: Path, portal: Portal) -> None:
        self.root, self.user = root, "root"
        subprocess.run(["cp", "-a", "--reflink=auto", SLIM, root], check=True)
        python = f"python3.{sys.version_info.minor}"
        packages = root / f"usr/local/lib/{python}/dist-packages"
        put_ckan(packages, "pip", "setuptools", put=_copy)
        # the image's Python is no package of Debian's, so pip may install beside it
        (root / f"usr/lib/{python}/EXTERNALLY-MANAGED").unlink()
        write_ckan(root / "usr/local/bin/ckan", "/usr/bin/python3")
        pip = root / "usr/local/bin/pip3"
        pip.write_text('#!/bin/sh\nexec python3 -m pip "$@"\n')
        pip.chmod(0o755)
        shutil.copy2("/etc/resolv.conf", root / "etc/resolv.conf")
        shutil.copytree(released(), root / "release")
        shutil.copy2("/etc/ssl/certs/ca-certificates.crt", root / "release/trusted.crt")
        #: what a container of ckan-docker is given by its image and by `.env`
        self.environment = {
            "PATH": "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "LC_ALL": "C.UTF-8",
            "DEBIAN_FRONTEND": "noninteractive",
            "CKAN_INI": "/srv/app/ckan.ini",
            "CKAN__PLUGINS": portal.options["ckan.plugins"],
            "CKAN_SECRET_KEY": portal.options["SECRET_KEY"],
            "CKAN_SQLALCHEMY_URL": portal.options["sqlalchemy.url"],
            "CKAN_DATASTORE_WRITE_URL": portal.options["ckan.datastore.write_url"],
            "CKAN_DATASTORE_READ_URL": portal.options["ckan.datastore.read_url"],
            "CKAN_STORAGE_PATH": "/var/lib/ckan",
            "PYTHONWARNINGS": "ignore",
            # packages as this machine reaches them; the release is at hand
            **{k: v for k, v in os.environ.items() if k.startswith("PIP_")},
            "PIP_CERT": "/release/trusted.crt",
            "PIP_FIND_LINKS": "/release",
            "PIP_ROOT_USER_ACTION": "ignore",
        }
        self.run(_USERS)
        shutil.copytree(portal.storage, root / "var/lib/ckan")
        # as an image has it: of other containers, without plugins, without a secret
        lines = portal.ini.read_text().splitlines()
        own = ("ckan.plugins", "SECRET_KEY", "ckanext.", "sqlalchemy", "ckan.storage")
        kept = [line for line in lines if not line.startswith(own)]
        (root / "srv/app/ckan.ini").write_text("\n".join([*kept, "SECRET_KEY =", ""]))
        self.run("chown -R ckan:ckan-sys /var/lib/ckan /srv/app/ckan.ini")

    def start(self, line: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Runs a line as the user of the moment; what became of it."""
        user = "root:root" if self.user == "root" else f"{self.user}:ckan-sys"
        return subprocess.run(
            ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c",
             _ENTER, "sh", self.root, user, line],
            env=self.environment | environment, capture_output=True, text=True,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def run(self, line: str, **environment: str) -> str:
        """What a line says that has to work."""
        done = self.start(line, **environment)
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
        return done.stdout

    def build(self, dockerfile: str) -> None:
        """Runs the lines of a Dockerfile, one after the other."""
        for word, rest in instructions(dockerfile):
            if word == "USER":
                self.user = rest
            elif word == "RUN":
                self.run(rest)
                self._lead_to_here()
            else:
                assert word == "FROM", word

    def _lead_to_here(self) -> None:
        """PostgreSQL's own packages are out of reach, so their address is another one."""
        script = self.root / "usr/share/postgresql-common/pgdg/apt.postgresql.org.sh"
        if script.exists() and not (self.root / "pgdg").exists():
            text, address = script.read_text(), "https://$HOST/pub/repos/apt"
            assert address in text
            script.write_text(text.replace(address, "file:/pgdg"))
            _archive(self.root)


def _copy(source: Path, copy: Path) -> None:
    """For everybody to read, and as old: what Python has compiled is for that file."""
    shutil.copyfile(source, copy)
    about = source.stat()
    os.utime(copy, ns=(about.st_atime_ns, about.st_mtime_ns))


def _archive(root: Path) -> None:
    """An archive of packages with PostgreSQL 16's own programs in one."""
    made = root / "package"
    shutil.copytree(PG16.parent, made / "usr/lib/postgresql/16", symlinks=True)
    for libraries in PG16.parent.resolve().parent.parent.glob("*.libs"):
        shutil.copytree(libraries, made / "usr/lib" / libraries.name)
    (made / "DEBIAN").mkdir()
    arch = subprocess.run(
        ["dpkg", "--print-architecture"], check=True, capture_output=True, text=True
    ).stdout.strip()
    about = (
        f"Package: postgresql-client-16\nVersion: 16.0\nArchitecture: {arch}\n"
        "Maintainer: test <test@test.invalid>\nDescription: client programs\n"
    )
    (made / "DEBIAN/control").write_text(about)
    codename = (root / "etc/os-release").read_text().split("VERSION_CODENAME=")[1]
    there = root / f"pgdg/dists/{codename.split()[0]}-pgdg"
    lists = there / f"main/binary-{arch}/Packages"
    lists.parent.mkdir(parents=True)
    file = root / "pgdg/client.deb"
    build = ["dpkg-deb", "-Znone", "--root-owner-group", "--build", made, file]
    subprocess.run(build, check=True, capture_output=True)
    shutil.rmtree(made)
    lists.write_text(
        f"{about}Filename: client.deb\nSize: {file.stat().st_size}\n"
        f"SHA256: {hashlib.sha256(file.read_bytes()).hexdigest()}\n"
    )
    told = lists.read_bytes()
    (there / "Release").write_text(
        f"Suite: {there.name}\nComponents: main\nArchitectures: {arch}\nSHA256:\n"
        f" {hashlib.sha256(told).hexdigest()} {len(told)} {lists.relative_to(there)}\n"
    )
    (root / "etc/apt/apt.conf.d/99here").write_text(
        'Acquire::AllowInsecureRepositories "true";\n'
        'APT::Get::AllowUnauthenticated "true";\n'
    )


def service(services: Mapping[str, dict], name: str) -> str:
    """The command of a service of a compose file, as a line of shell."""
    import shlex

    return shlex.join(word.replace("$$", "$") for word in services[name]["command"])

"""The pages' texts: all extracted, all of them translated.

To bring the catalogues up to date, from the checkout's root:
`python -m ckanext.dbmanage.tests.test_translation`, then translate what is missing in
the .po files and run it again, which compiles them.
"""

from __future__ import annotations

import re
from pathlib import Path

from babel.messages.catalog import Catalog
from babel.messages.extract import extract_from_dir
from babel.messages.mofile import read_mo, write_mo
from babel.messages.pofile import read_po, write_po

PACKAGE = Path(__file__).parent.parent
I18N = PACKAGE / "i18n"
DOMAIN = "ckanext-dbmanage"
METHODS = [
    ("tests/**.py", "ignore"),
    ("**.py", "python"),
    ("templates/**.html", "ckan"),
]


def extracted() -> Catalog:
    """The texts of the code and the templates."""
    found = Catalog(project=DOMAIN, domain=DOMAIN)
    keywords = {"_": None, "ungettext": (1, 2)}
    for _, _, message, comments, _ in extract_from_dir(PACKAGE, METHODS, {}, keywords):
        found.add(message, None, auto_comments=comments)
    return found


def catalogues() -> list[Path]:
    return sorted(I18N.glob(f"*/LC_MESSAGES/{DOMAIN}.po"))


def fields(text: str) -> set[str]:
    return set(re.findall(r"\{\w*\}", text))


def texts(catalogue: Catalog) -> list[str]:
    """A catalogue's texts with their translations."""
    pairs = ((m.id, m.string) for m in catalogue if m.id)
    words = [[list(e) if isinstance(e, (list, tuple)) else e for e in p] for p in pairs]
    return sorted(map(str, words))


def test_every_text_is_translated() -> None:
    wanted = {m.id: m for m in extracted() if m.id}
    with open(I18N / f"{DOMAIN}.pot", "rb") as file:
        assert {m.id for m in read_po(file) if m.id} == set(wanted)
    assert [path.parts[-3] for path in catalogues()] == ["de"]
    for path in catalogues():
        with open(path, "rb") as file:
            known = read_po(file)
        assert {m.id for m in known if m.id} == set(wanted)
        for message in known:
            if not message.id:
                continue
            words = message.id if message.pluralizable else (message.id,)
            said = message.string if message.pluralizable else (message.string,)
            assert all(said) and not message.fuzzy, message.id
            for word, each in zip(words, said, strict=True):
                assert fields(word) == fields(each), each
        with open(path.with_suffix(".mo"), "rb") as file:
            compiled = read_mo(file)
        assert texts(compiled) == texts(known)


if __name__ == "__main__":
    template = extracted()
    with open(I18N / f"{DOMAIN}.pot", "wb") as out:
        write_po(out, template, no_location=True, width=100)
    for path in catalogues():
        with open(path, "rb") as file:
            known = read_po(file)
        known.update(template, no_fuzzy_matching=True)
        known.obsolete.clear()
        with open(path, "wb") as out:
            write_po(out, known, no_location=True, width=100)
        with open(path.with_suffix(".mo"), "wb") as out:
            write_mo(out, known)

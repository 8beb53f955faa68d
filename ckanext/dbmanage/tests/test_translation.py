"""The pages' texts: all extracted; all in German, the headline in any language.

To bring the catalogues up to date, from the checkout's root:
`python -m ckanext.dbmanage.tests.test_translation`, then translate what is missing in
the .po files and run it again, which compiles them. A new language is begun with
`pybabel init -D ckanext-dbmanage -i ckanext/dbmanage/i18n/ckanext-dbmanage.pot
-d ckanext/dbmanage/i18n -l fr`.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import ckan
import pytest
from babel import Locale
from babel.messages.catalog import Catalog, Message
from babel.messages.extract import extract_from_dir
from babel.messages.mofile import read_mo, write_mo
from babel.messages.pofile import read_po, write_po
from markupsafe import escape

from ckanext.dbmanage.engine.offsite.prune import decide as decide_there
from ckanext.dbmanage.engine.offsite.snapshots import Snapshot
from ckanext.dbmanage.engine.repository.retention import decide
from ckanext.dbmanage.engine.repository.rules import RULES
from ckanext.dbmanage.web import helpers, told

from .support.shelf import NOON, Shelf

PACKAGE = Path(__file__).parent.parent
I18N = PACKAGE / "i18n"
TEMPLATE = I18N / "ckanext-dbmanage.pot"
DOMAIN = "ckanext-dbmanage"
#: as setup.py has them, without the tests
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


def read(path: Path) -> Catalog:
    with open(path, "rb") as file:
        return (read_mo if path.suffix == ".mo" else read_po)(file)


def texts(catalogue: Catalog) -> dict[str | tuple[str, ...], Message]:
    """A catalogue's texts by what they are in English, with their plurals."""
    return {_key(m.id): m for m in catalogue if m.id}


def _key(words: str | list[str] | tuple[str, ...]) -> str | tuple[str, ...]:
    return words if isinstance(words, str) else tuple(words)


def pairs(catalogue: Catalog) -> Iterator[tuple[str, str]]:
    """English and translation, a plural's forms each."""
    for message in texts(catalogue).values():
        if message.pluralizable:
            # the first form is the singular, or has what the singular has
            english = [message.id[0]] + [message.id[1]] * (len(message.string) - 1)
            yield from zip(english, message.string, strict=True)
        else:
            yield message.id, message.string


@pytest.fixture(params=catalogues(), ids=lambda path: path.parts[-3])
def path(request: pytest.FixtureRequest) -> Path:
    """Each language's .po file."""
    return request.param


UPDATE = "run python -m ckanext.dbmanage.tests.test_translation"


def test_every_text_is_extracted() -> None:
    assert set(texts(read(TEMPLATE))) == set(texts(extracted())), UPDATE


def test_there_is_a_german_translation() -> None:
    assert "de" in [path.parts[-3] for path in catalogues()]


#: what a language has at least: whether all is well, in which state something is, and
#: what the first page offers
HEADLINE = (
    "Protected.", "A job is running.", "The last backup failed.", "No backup yet.",
    "A backup is overdue.", "Backed up, but not proven.", "Back up now", "All backups",
    "The background worker does not answer.", "Last backup", "Last proven backup",
    "Held", "Times are {zone}.", *helpers._WORDS["state"].values(),
    *helpers._WORDS["part"].values(),
)  # fmt: skip


def test_every_text_is_translated(path: Path) -> None:
    known, wanted = texts(read(path)), set(texts(read(TEMPLATE)))
    assert set(known) >= wanted, UPDATE
    assert [key for key, message in known.items() if message.fuzzy] == []
    lacking = [word for word, said in pairs(read(path)) if not said]
    if path.parts[-3] == "de":
        assert set(known) == wanted and lacking == []
    assert [word for word in HEADLINE if word in lacking] == []


def test_a_translation_keeps_the_fields(path: Path) -> None:
    def fields(text: str) -> list[str]:
        return sorted(re.findall(r"\{\w*\}", text))

    wrong = [p for p in pairs(read(path)) if p[1] and fields(p[0]) != fields(p[1])]
    assert wrong == []


def test_a_translation_ends_and_begins_as_the_text(path: Path) -> None:
    # a translation that stands at its neighbour's text has every field right
    def end(text: str) -> str:
        last = text[-1].replace("\u061f", "?")  # as Arabic writes it
        return last if last in ".:…?" else ""

    known = [(word, said) for word, said in pairs(read(path)) if word and said]
    assert [p for p in known if end(p[0]) != end(p[1])] == []
    assert [p for p in known if p[0][0].isupper() and p[1][0].islower()] == []


def test_what_ckan_says_too_is_said_as_ckan_does(path: Path) -> None:
    # a plugin's translation replaces core's, on every page of the portal
    language = path.parts[-3]
    core = Path(ckan.__file__).parent / f"i18n/{language}/LC_MESSAGES/ckan.mo"
    known = {word: said for word, said in pairs(read(core)) if said}
    own = [(w, s, known[w]) for w, s in pairs(read(path)) if s and w in known]
    assert ("Datasets", known["Datasets"]) in [each[:2] for each in own]
    assert [each for each in own if each[1] != each[2]] == []


def test_the_compiled_file_says_the_same(path: Path) -> None:
    compiled = [*pairs(read(path.with_suffix(".mo")))]
    said = [pair for pair in pairs(read(path)) if pair[1]]
    # a plural that nobody has translated is compiled as it is in English
    assert sorted(p for p in compiled if p[0] != p[1] or p in said) == sorted(said), (
        UPDATE
    )


def test_german_has_german_quotes() -> None:
    for word, said in pairs(read(I18N / f"de/LC_MESSAGES/{DOMAIN}.po")):
        marks = re.findall(r"[„“”\"]", said)
        assert marks == ["„", "“"] * word.count("“"), said


def test_no_page_writes_a_time_by_itself() -> None:
    """`web/helpers.py` does, as the visitor's language writes it, in the site's zone."""
    own = re.compile(r"\[\d+:\d+\]|strftime|datetimeformat|render_datetime|time_ago")
    found = [
        (file.name, match[0])
        for file in PACKAGE.glob("templates/**/*.html")
        if (match := own.search(file.read_text()))
    ]
    written = re.compile(r"strftime|:%[HdY]|format_datetime\(")
    found += [
        (file.name, match[0])
        for file in PACKAGE.glob("web/*.py")
        if file.name != "helpers.py" and (match := written.search(file.read_text()))
    ]
    assert found == []


def test_what_a_page_translates_is_said_somewhere() -> None:
    """As it stands there, with what is filled in: else the page would show English."""
    said = set()
    for file in PACKAGE.rglob("*.py"):
        if file.name == "told.py" or "tests" in file.relative_to(PACKAGE).parts:
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.JoinedStr):
                filled = [getattr(each, "value", "") for each in node.values]
                said.add("".join(e if isinstance(e, str) else "{}" for e in filled))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                said.add(node.value)
    assert [each for each in told.SENTENCES if each not in said] == []


def test_a_sentence_of_the_engine_is_told_in_the_visitor_s_language(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    german = texts(read(I18N / f"de/LC_MESSAGES/{DOMAIN}.po"))
    monkeypatch.setattr(told.tk, "_", lambda text: german[text].string)
    text = "another job is under way, backup {0} 20261126T064400Z-1: let it end"
    assert told.told(text) == (
        "ein anderer Auftrag läuft, backup {0} 20261126T064400Z-1: Warten Sie sein Ende ab"
    )
    for other in ("", "pg_dump said {no}", "it is damaged: " + "x" * 3000):
        assert told.told(other) == other


def test_the_reasons_of_retention_are_told_in_the_visitor_s_language(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    german = texts(read(I18N / f"de/LC_MESSAGES/{DOMAIN}.po"))
    monkeypatch.setattr(told.tk, "_", lambda text: german[text].string)
    monkeypatch.setattr(told, "get_locale", lambda: Locale("de"))
    assert told.told(
        "the last 3, within 2 days 1 hour, day 2026-11-25, week 2026-W48, "
        "the newest proven of database, DataStore and uploads, held"
    ) == (
        "die letzten 3, innerhalb von 2 Tage 1 Stunde, Tag 2026-11-25, Woche 2026-W48, "
        "die neueste bewiesene von Datenbank, DataStore und Uploads, festgehalten"
    )
    text = "damaged: a, b; was changed; stays until 1 newer verified one is there"
    assert told.told(text) == (
        "beschädigt: a, b; was changed; bleibt, bis 1 neuere geprüfte da ist"
    )
    for other in ("the last 3, and what nobody knows", "held; <b>"):
        assert str(told.told(other)) == str(escape(other))
    # all that retention says of a shelf with one of each
    shelf = Shelf(tmp_path / "backups")
    for number, state in enumerate(
        ("damaged", "foreign", "unverified", *["verified"] * 9)
    ):
        shelf.add(NOON - timedelta(days=number * 20, hours=1), state, keep=number == 4)
    shelf.add(NOON + timedelta(days=365 * 100))
    (shelf.path / "99991399T000000Z").mkdir()
    policy = dict.fromkeys((*RULES, "last"), 1) | {"min": 9, "within": 90_000}
    every = decide(shelf.repository.backups(), policy, 7)
    assert [e.reason for e in every if not told._pieces(e.reason)] == []
    rules = decide_there([Snapshot("20201130T120000Z", "", "")], set(), policy, set())
    assert all(told._pieces(each.reason) for each in rules)


def update() -> None:
    """Extracts, merges into each language, compiles."""
    template = extracted()
    # a run that finds nothing new changes no file
    template.creation_date = read(TEMPLATE).creation_date
    with open(TEMPLATE, "wb") as out:
        write_po(out, template, no_location=True, width=100)
    for path in catalogues():
        known = read(path)
        known.update(template, no_fuzzy_matching=True)
        known.obsolete.clear()
        with open(path, "wb") as out:
            write_po(out, known, no_location=True, width=100)
        with open(path.with_suffix(".mo"), "wb") as out:
            write_mo(out, known)


if __name__ == "__main__":
    update()

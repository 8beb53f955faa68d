"""What is odd in an archive: the SQL of its entries, read as PostgreSQL reads it.

Only an archive that nobody signed is looked at. Its SQL is cut into statements and
words by the rules of PostgreSQL's own scanner (src/backend/parser/scan.l), so that what
stands in a quoted name, a literal or a comment is told from what is executed. Each
statement must be one that pg_dump writes. A lint and not a wall: the body of a function
can hide anything. Must not know how an archive is read or loaded.
"""

import re
from itertools import pairwise

from ..errors import Refused
from .contents import Contents, Entry
from .statements import Odd, Statement, Statements, Token, makes, word_set

#: every kind that pg_dump 14 to 18 writes (ArchiveEntry in its pg_dump.c), and BLOB
#: COMMENTS of older ones
KINDS = frozenset({
    "ACCESS METHOD", "ACL", "AGGREGATE", "BLOB", "BLOB COMMENTS", "BLOB METADATA",
    "BLOBS", "CAST", "CHECK CONSTRAINT", "COLLATION", "COMMENT", "CONSTRAINT",
    "CONVERSION", "DATABASE", "DATABASE PROPERTIES", "DEFAULT", "DEFAULT ACL", "DOMAIN",
    "ENCODING", "EVENT TRIGGER", "EXTENSION", "FK CONSTRAINT", "FOREIGN DATA WRAPPER",
    "FOREIGN TABLE", "FUNCTION", "INDEX", "INDEX ATTACH", "MATERIALIZED VIEW",
    "MATERIALIZED VIEW DATA", "OPERATOR", "OPERATOR CLASS", "OPERATOR FAMILY", "POLICY",
    "PROCEDURAL LANGUAGE", "PROCEDURE", "PUBLICATION", "PUBLICATION TABLE",
    "PUBLICATION TABLES IN SCHEMA", "ROW SECURITY", "RULE", "SCHEMA", "SEARCHPATH",
    "SECURITY LABEL", "SEQUENCE", "SEQUENCE OWNED BY", "SEQUENCE SET", "SERVER",
    "SHELL TYPE", "STATISTICS", "STATISTICS DATA", "STDSTRINGS", "SUBSCRIPTION",
    "SUBSCRIPTION TABLE", "TABLE", "TABLE ATTACH", "TABLE DATA",
    "TEXT SEARCH CONFIGURATION", "TEXT SEARCH DICTIONARY", "TEXT SEARCH PARSER",
    "TEXT SEARCH TEMPLATE", "TRANSFORM", "TRIGGER", "TYPE", "USER MAPPING", "VIEW",
})  # fmt: skip

#: left out of every restore of an unsigned archive, see `faithful`
_SKIPPED = frozenset(
    k for k in KINDS if k.startswith(("EVENT TRIGGER", "SUBSCRIPTION"))
)

#: of the database itself, which pg_restore makes only with -C; so what others say of it
_OF_DATABASE = ("DATABASE", "DATABASE PROPERTIES")
_SAID_OF = ("ACL", "COMMENT", "SECURITY LABEL")
_NOT_HERE = r"database|role|user(?! mapping)|group|tablespace|subscription|system"

_STARTS = re.compile(
    r"create (?:or replace )?(?:(?:unlogged|foreign|materialized|unique|constraint"
    r"|trusted|procedural|default|recursive)\b )*"
    r"(?:access method|aggregate|cast|collation|conversion|data wrapper|domain"
    r"|extension|function|index|language|operator|policy|procedure|publication|rule"
    r"|schema|sequence|server|statistics|table|text search|transform|trigger|type"
    r"|user mapping|view)\b"
    r"|alter (?:aggregate|collation|default privileges|domain|extension|foreign table"
    r"|function|index|large object|materialized view|operator|policy|procedure"
    r"|publication|schema|sequence|statistics|table|text search|trigger|type|view)\b"
    rf"|(?:comment|security label) on (?!{_NOT_HERE})"
    r"|(?:grant|revoke)\b|refresh materialized view\b"
)

#: the settings that pg_restore makes, and what an archive's own may be
_SETTINGS = word_set(
    """
    check_function_bodies client_encoding client_min_messages
    default_table_access_method default_tablespace default_with_oids
    escape_string_warning idle_in_transaction_session_timeout lock_timeout row_security
    search_path standard_conforming_strings statement_timeout transaction_timeout
    xmloption
    """
)

_CALLS = word_set(
    """
    setval lo_create lo_open lowrite lo_close pg_restore_relation_stats
    pg_restore_attribute_stats
    """
)

_HAVE_RIGHTS = word_set(
    """
    table sequence schema function procedure type domain language large foreign tables
    sequences functions types schemas
    """
)

#: literals in literals that a function's body is looked at in
_NESTED = 4

#: what a rule and a function with BEGIN ATOMIC are made of
_IN_BODY = word_set(
    "select insert update delete merge values with return notify table end"
)

#: functions that reach beyond the database, or run SQL out of a text
_NEVER = re.compile(
    r"pg_terminate_backend|pg_cancel_backend|pg_reload_conf|pg_rotate_logfile"
    r"|pg_promote|lo_import|lo_export|ts_stat|ts_rewrite"
    r"|query_to_xml(?:schema|_and_xmlschema)?|pg_file_(?:write|rename|unlink|sync)"
)

#: the same, where they are called: a table may have such a name
_NEVER_CALLED = re.compile(
    r"connectby|crosstab[234]?|xpath_table"
    r"|dblink(?:_(?:connect(?:_u)?|exec|open|fetch|send_query|get_result|close))?"
)

_FILES = re.compile(r"pg_(?:read|write|ls|stat)_")
_LANGUAGE = re.compile(r"c|internal|pl\w*u")

_PAIRS = re.compile(
    rf"\b(?:create|alter|drop) (?:{_NOT_HERE})\b|\breassign owned\b"
    r"|\bset (?:local |session )?role\b"
    r"|\bset (?:local |session )?session authorization\b"
)

_QUOTED_NAME = r'(?:"[^"]*(?:""[^"]*)*"|[^\W\d][\w$]*)'

COPY = re.compile(
    rf"COPY {_QUOTED_NAME}(?:\.{_QUOTED_NAME})?"
    rf" (?:\({_QUOTED_NAME}(?:, {_QUOTED_NAME})*\))? ?FROM stdin;\s*"
)

#: in all others a byte of a sign may be part of a letter, or nobody knows them
_ENCODINGS = word_set(
    """
    EUC_CN EUC_JIS_2004 EUC_JP EUC_KR EUC_TW ISO_8859_5 ISO_8859_6 ISO_8859_7
    ISO_8859_8 KOI8R KOI8U LATIN1 LATIN10 LATIN2 LATIN3 LATIN4 LATIN5 LATIN6 LATIN7
    LATIN8 LATIN9 SQL_ASCII UTF8 WIN1250 WIN1251 WIN1252 WIN1253 WIN1254 WIN1255
    WIN1256 WIN1257 WIN1258 WIN866 WIN874
    """
)


def refuse_odd(found: Contents, name: str) -> None:
    """Refuses an archive with an entry that a site's dump does not have, by name.

    A lint and not a wall: SQL can hide from every scan, so who says `--trust` is told
    what that means. Raises Refused.
    """
    for entry in found.entries:
        try:
            _refuse_entry(entry)
        except Odd as odd:
            raise Refused(refusal(name, f"its entry {str(entry)!r} {odd}")) from None
    if found.encoding not in _ENCODINGS:
        raise Refused(
            f"{name} is refused: it is encoded in {found.encoding!r}, in which letters "
            "can hide signs of SQL. Dump it again with `pg_dump -E UTF8`"
        )


def refusal(name: str, what: str) -> str:
    """The sentence that refuses an archive for `what` is odd in it."""
    return f"{name} is refused: {what}, which no dump of such a site has"


def _refuse_entry(entry: Entry) -> None:
    if entry.kind not in KINDS:
        raise Odd("is of a kind that no pg_dump writes")
    if "\0" in "".join((entry.statement, entry.copy, entry.schema, entry.name)):
        raise Odd("has a zero byte")
    if entry.copy and not COPY.fullmatch(entry.copy):
        raise Odd("has more than a COPY")
    if entry.kind == "TABLE DATA" and not entry.copy:
        raise Odd("has rows as INSERT and not as COPY (dump without --inserts)")
    if entry.copy and entry.kind != "TABLE DATA":
        raise Odd("has a COPY")
    if entry.has_data and entry.kind not in ("TABLE DATA", "BLOBS", "BLOB COMMENTS"):
        raise Odd("has rows")
    if entry.kind in _SKIPPED or entry.kind in _OF_DATABASE:  # never restored
        return
    if entry.kind in _SAID_OF and entry.name.startswith("DATABASE "):
        return
    if entry.kind == "BLOB METADATA":  # a number a line: pg_restore makes SQL of them
        if not re.fullmatch(r"[0-9\n]*", entry.statement):
            raise Odd("has more than numbers")
        return
    statements = Statements()
    for statement in (*statements.feed(entry.statement), *statements.end()):
        refuse_statement(statement, acl=entry.kind == "ACL")


def refuse_statement(statement: Statement, *, acl: bool = False) -> None:
    """Refuses a statement that pg_restore would not send. Raises Odd.

    With `acl` those are let through that pg_dump puts around another role's grants:
    they are looked at again when they are sent.
    """
    tokens, start = statement.tokens, statement.words(6)
    if start == "reset session authorization" or start.startswith(
        "set session authorization"
    ):
        if not acl:
            raise Odd(f"says {_shown(tokens)!r}")
        return
    if start.startswith("set"):
        _refuse_setting(tokens)
    elif start.startswith("select"):
        _refuse_call(tokens)
    elif start and not _STARTS.match(start) or not start and tokens != [("sign", ";")]:
        raise Odd(f"says {_shown(tokens)!r}")
    if makes(tokens, "function", "procedure") or start.startswith("alter "):
        _refuse_routine(tokens)
    if start.startswith(("grant", "revoke")):
        _refuse_right(tokens)
    for before, (_, value) in pairwise(tokens):
        # what stands in a rule's or a function's own body
        if before == ("sign", ";") and value not in _IN_BODY | {"(", ")"}:
            raise Odd(f"says {value!r}")
    _refuse_names(tokens, bool(re.match(r"create (?:\w+ )?table\b", start)))
    for kind, value in tokens:
        # pg_dump doubles backslashes and writes no other escape
        if kind == "escaped" and "\\" in value.replace("\\\\", ""):
            raise Odd("has a literal with escapes")


def _shown(tokens: list[Token]) -> str:
    return " ".join(value for _, value in tokens)[:40].upper()


def _refuse_setting(tokens: list[Token]) -> None:
    name = tokens[1][1] if len(tokens) > 3 and tokens[1][0] == "word" else ""
    allowed = name in _SETTINGS and tokens[2][1] in ("=", "to")
    value = tokens[3][1] if allowed else ""
    if name == "standard_conforming_strings":
        allowed = allowed and value == "on"
    if name == "client_encoding":
        allowed = allowed and value in _ENCODINGS
    if not allowed:
        raise Odd(f"says {_shown(tokens)!r}")


def _refuse_call(tokens: list[Token]) -> None:
    values = [value for _, value in tokens]
    if values[1:5] == ["pg_catalog", ".", "set_config", "("]:
        if tokens[5] == ("text", "search_path") and values.count("(") == 1:
            return
    elif all(
        name in _CALLS for (_, name), sign in pairwise(tokens) if sign == ("sign", "(")
    ) and ("pg_catalog", ".") in pairwise(values):
        return
    raise Odd(f"says {_shown(tokens)!r}")


def _refuse_right(tokens: list[Token]) -> None:
    for token, (_, what) in pairwise(tokens):
        if token == ("word", "on") and what in _HAVE_RIGHTS:
            return
    raise Odd(f"says {_shown(tokens)!r}")


def _refuse_names(tokens: list[Token], table: bool) -> None:
    """Refuses the names of functions that no site calls; a table may have some."""
    for (kind, value), (_, after) in pairwise([*tokens, ("", "")]):
        called = after == "(" and not table
        table = table and after != "("
        if kind not in ("word", "name"):
            continue
        file = _FILES.match(value) and ("file" in value or "dir" in value)
        if (
            file
            or _NEVER.fullmatch(value)
            or (called and _NEVER_CALLED.fullmatch(value))
        ):
            raise Odd(f"says {value.upper()!r}")


def _refuse_routine(tokens: list[Token]) -> None:
    parentheses = 0
    for (kind, value), (after, following) in pairwise(tokens):
        if kind == "sign":
            parentheses += {"(": 1, ")": -1}.get(value, 0)
        elif kind != "word" or parentheses:
            continue
        elif value == "language" and _LANGUAGE.fullmatch(following.lower()):
            raise Odd(f"says {f'language {following}'.upper()!r}")
        elif value == "set" and following.lower() in ("role", "session_authorization"):
            raise Odd(f"says {f'set {following}'.upper()!r}")
        elif value == "as" and after in ("text", "escaped"):
            _refuse_body(following)


def _refuse_body(text: str, depth: int = 0) -> None:
    """Looks at the SQL, or whatever language it is, of a function."""
    tokens: list[Token] = []
    statements = Statements(lenient=True)
    try:
        for statement in (*statements.feed(text), *statements.end()):
            tokens += statement.tokens
    except Odd:  # of another language: its words as they stand, and what is called
        found = re.findall(r"\w+|\(", text.lower())
        tokens = [("sign" if each == "(" else "word", each) for each in found]
    _refuse_names(tokens, False)
    words = [value if kind == "word" else ";" for kind, value in tokens]
    never = _PAIRS.search(" ".join(words))
    if never:
        raise Odd(f"says {never.group().upper()!r}")
    for before, (kind, value) in pairwise([("", ""), *tokens]):
        if before == ("word", "load") and kind == "text":
            raise Odd("says 'LOAD'")
        if kind in ("text", "escaped") and depth < _NESTED:
            _refuse_body(value, depth + 1)

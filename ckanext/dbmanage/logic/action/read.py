"""Actions that change nothing."""

from contextlib import suppress
from os.path import lexists

from ckan.plugins import toolkit as tk

from ...engine.backup.by_hand import by_hand
from ...engine.backup.downloads import names, sizes
from ...engine.clock import parse_stamp
from ...engine.repository.backup import Backup
from ...jobs.record import QUEUED
from ...operations.allowed import (
    having,
    lacking_rights,
    must_stay,
    newest_good,
    of_a_restore,
    unfit,
    wanted,
)
from ...operations.history import find_history
from ...portal.changed import datasets
from ...portal.indexed import KINDS
from .. import hindrances, listing, live, retention, schema
from ..call import Call, Data, action, refused_at
from ..known import backups, history, journal_lines
from ..status import read_status


@tk.side_effect_free
@action(tables=schema.flag, journal=schema.number(0, 0, 1000), undo=schema.flag)
def dbmanage_status(call: Call, data: Data) -> Data:
    """Whether the portal's data is safe.

    :param tables: also what fills the databases (queries them), default false
    :param journal: so many of the journal's last lines, default 0
    :param undo: also what would make an undo fail now, and in ``undo`` how many
        datasets ``changed`` since (queries the database), default false

    :returns: ``{state, headline: {text, sentence, colour, n}, away, site, count,
        damaged, unreadable, future, newest, proven, expected_by, failed: {time, error},
        bytes, uploads_bytes, one_more, needed, disk: {total, free}, undo: {operation,
        what, source, user, time, until, way, of, things, kinds}, worker: {count,
        others, seen, waiting, command}, jobs, ended, maintenance, armed: {backup, to,
        until, by}, web_restore, redis, half_way, exports, export_sizes, wanted, nights,
        undo_days,
        retention, pruned, remote: {place, time, count, newest, only}, night,
        night_running, next_night: {time, known}, year, forecast: {known, nights, bytes,
        day}, thinned: [{id, reason}], blockers}`` and, when asked for, ``tables`` and
        ``journal``.
        ``state`` is the worst of ``away`` (why says ``away``: the repository was in
        use, and is empty now), ``failed``, ``empty``, ``lacking`` (none is whole and
        sound), ``damaged``, ``disproved``, ``overdue``, ``full``, ``push-failed``,
        ``uncopied`` (the copy elsewhere is late), ``unended`` (the last night),
        ``unreadable``, ``unproven``, ``stale`` (proven long ago), ``proof-failed``,
        ``publish-failed``, ``unpublished`` (the dumps are late), ``prune-failed``,
        ``future`` (a clock was wrong), ``offline``, ``running``, ``ok``;
        ``headline`` says it in a sentence, ``red``, ``amber`` or ``green``, with ``n``
        backups that it is about.
        ``remote`` is the other place as it was seen at ``time``, empty when nobody has
        looked: ``count`` backups, those in ``only`` not here; None where none is set.
        ``bytes`` (databases) and ``uploads_bytes`` are what all backups take on the
        disk, nearly; ``one_more`` what another takes that adds as much as the newest
        one, ``needed`` if no piece could be used again; ``pruned`` is when ``prune``
        was last run by a timer, None when never within a month.
        ``night`` is the last night that ended, or was killed, as ``ckan db nightly
        --json`` tells; ``night_running`` since when one is at work; ``next_night`` is
        known from the ``timer`` of systemd, or from the ``rhythm`` of the last ones;
        ``year`` has a ``[day, state]`` for each day of twelve months, ``proven``,
        ``verified``, ``failed``, ``none``, or empty where there could be none;
        ``forecast`` is when the disk is full: ``known`` is ``day``, or ``few`` (nights
        to say), ``steady``, ``far``; ``thinned`` is what ``prune`` would forget now.
        ``newest`` and ``proven`` have all parts that a backup of this site has, which
        are ``wanted``; ``nights`` are the last 30 backups, ``[{id, created, seconds,
        sizes}]``, the oldest first; ``jobs`` wait or run, ``ended`` is the last one of
        all when it failed or was lost; ``redis`` says why Redis does not answer, then
        ``worker``, ``jobs``, ``maintenance`` and ``armed`` are not known; ``exports``
        are names for ``dbmanage_backup_download``, ``export_sizes`` their bytes;
        ``blockers`` is what would make any restore or undo fail now; ``way`` is
        ``redo`` where an undo brings back what the last one took away, ``of`` what was
        done first, ``restore`` or ``upgrade``, ``things`` the single ones that came
        back, else empty. ``tables`` are by part ``{bytes, tables,
        largest: [{table, bytes, rows, resource: {name, dataset, title}}]}``,
        ``resource`` None where a table has no resource's data; ``journal`` is as
        ``lines`` of ``dbmanage_journal``.

    Raises ValidationError for ``tables`` that PostgreSQL does not tell of.
    """
    status = read_status(call.site, call.repository, call.options)
    if armed := status["armed"]:
        status["armed"] = {k: armed[k] for k in ("backup", "to", "until", "by")}
    if data["tables"]:
        status["tables"] = live.table_sizes(call.site)
    if data["undo"]:
        status["blockers"] += lacking_rights(call.site)
        if last := status["undo"]:
            last["changed"] = datasets(call.site, parse_stamp(last["time"]))
    if data["journal"]:
        status["journal"] = journal_lines(call.repository, data["journal"])
    return status


@tk.side_effect_free
@action(there=schema.flag, **dict.fromkeys(retention.RULES, schema.optional))
def dbmanage_retention_show(call: Call, data: Data) -> Data:
    """What rules of retention would keep and forget, before anybody writes them down.

    :param there: of the other place, as it was seen last; default false
    :param last: how many of the newest, instead of what the configuration says; as
        ``within`` (``48h``, ``30d``), ``hourly``, ``daily``, ``weekly``, ``monthly``,
        ``yearly``, and ``min`` (not there)

    :returns: ``{there, rules, lines, backups: [{id, forget, reason}], forgets, now}``:
        ``rules`` by name as they are looked at, ``lines`` of the configuration file
        that make them so, none where they are so now; ``forgets`` is how many backups
        ``prune`` would forget by them, ``now`` by those of the configuration

    Raises ValidationError for a rule that is no number, or no time.
    """
    given = {name: data[name] for name in retention.RULES if data.get(name)}
    return retention.preview(call.repository, call.options, data["there"], given)


@tk.side_effect_free
@action(
    limit=schema.number(1000, 1, 100_000), before=schema.optional, q=schema.optional,
    state=schema.optional, parts=schema.parts, held=schema.flag_or_none,
    reason=schema.optional,
)  # fmt: skip
def dbmanage_backup_list(call: Call, data: Data) -> list[Data]:
    """The backups, the newest first.

    :param limit: at most so many, default 1000
    :param before: only those older than this id
    :param q: only those with all of these words in their id, note, reason or day
        (``2026-11-23``, or as the caller's language writes it)
    :param state: only those that are ``proven``, ``verified``, ``unverified``,
        ``damaged``, ``foreign`` or ``unreadable``
    :param parts: only those of exactly these parts, a list
    :param held: only those that are held, or with false those that are not
    :param reason: only those whose reason begins so: ``manual``, ``before restore``, …

    :returns: a list of ``{id, state, parts, bytes, sizes, created, seconds, verified,
        proved, reason, note, keep, versions, problems, files, path, future, stays,
        newest, added, where}``; ``sizes`` are what each part holds, ``added`` what it
        added to what the repository had; ``where`` is a list of ``here`` and ``there``,
        at the other place; ``state`` is ``proven``, ``verified``, ``unverified``,
        ``damaged``, ``foreign`` or ``unreadable``; ``future`` says that a clock was
        wrong when it was taken, such ones come last; ``stays`` is why it may not be
        deleted, or empty, ``newest`` why only with ``newest`` of
        ``dbmanage_backup_delete``

    Raises ValidationError for a repository that cannot be read, and for a ``state``
    that no backup can have.
    """
    every, before = backups(call.repository), data.get("before")
    # those of the future come last, whatever their ids
    listed = [e for e in every if not before or e["future"] or e["id"] < before]
    if before and before in (ids := [e["id"] for e in every]):
        listed = every[ids.index(before) + 1 :]
    listed = listing.backups(listed, data)
    return _with_stays(call, every, listed[: data["limit"]])


@tk.side_effect_free
@action(
    limit=schema.number(100, 1, 1000), what=schema.optional, who=schema.optional,
    since=schema.moment, until=schema.moment,
)  # fmt: skip
def dbmanage_journal(call: Call, data: Data) -> Data:
    """Who did what, when and from where: the journal's last lines, the newest first.

    :param limit: at most so many, default 100
    :param what: only of this: ``backup``, ``verify``, ``proof``, ``restore``,
        ``delete``, ``download``, … as ``what`` of a line
    :param who: only of this user, of the portal or of the server's system
    :param since: only from this day on (``2026-11-23``, of the site's time zone), or
        from this moment on (``2026-11-23T04:55:00Z``)
    :param until: only up to this day, or moment

    :returns: ``{count, lines: [{time, what, event, of, things, user, address,
        forwarded, by, error, note}], whats, whos}``; ``count`` is how many there are
        without a limit, ``whats`` and ``whos`` are all that the journal knows; ``note``
        is why it was done, ``things`` are the single ones that came back
    """
    every = journal_lines(call.repository, 100_000)
    found = listing.lines(every, data)
    return {
        "count": len(found),
        "lines": found[: data["limit"]],
        "whats": sorted({line["what"] for line in every}),
        "whos": sorted({line["user"] or line["by"] for line in every} - {""}),
    }


@tk.side_effect_free
@action(id=schema.needed, compare=schema.flag, parts=schema.parts, sizes=schema.flag)
def dbmanage_backup_show(call: Call, data: Data) -> Data:
    """One backup.

    :param id: the backup's id, ``latest`` or ``oldest``
    :param compare: also count the live rows, in 20 seconds at most, default false
    :param parts: a list of ``database``, ``datastore``, ``files``, of whose restore
        ``blockers`` tells; all by default
    :param sizes: also ``download_sizes``, default false; the first time it reads the
        whole list of uploads

    :returns: as ``dbmanage_backup_list``, and ``databases`` (rows by table),
        ``contents`` (bytes and sha256 by file), ``downloads`` (names for
        ``dbmanage_backup_download``, and with ``sizes`` their bytes by name in
        ``download_sizes``, without those that cannot be read), ``made`` (what made it),
        ``proof``, ``evidence`` (whether ``/ckan-admin/backups/ID/evidence`` is a page
        that tells of it), ``history`` (lines of the journal), ``fits`` (why it may not
        be restored, or empty),
        ``instead`` (the newest that may, where it may not), ``blockers`` (what would
        make its restore fail now), ``by_hand`` (shell commands that bring it back
        beside the live site, with stock tools alone), ``changed`` (datasets that
        changed since, or None where nobody knows); with ``compare``
        ``differing``: ``[{part, table, then, now}]``, or None where counting took too
        long: a preview of the restore (``dbmanage_restore``) takes its time

    Raises ObjectNotFound.
    """
    found = call.find(data["id"])
    manifest = found.manifest if found.signed else {}
    downloads: list[str] = []
    with suppress(OSError):  # another user's, which the page names as that
        downloads = names(call.repository, found)
    shown = described(call, found) | {
        "databases": {
            part: {"rows": known.get("rows") or {}, "bytes": known.get("bytes")}
            for part, known in manifest.get("databases", {}).items()
        },
        "contents": manifest.get("contents", {}),
        "downloads": downloads,
        "made": {key: manifest.get(key) for key in ("site", "by", "skew_seconds")},
        "proof": found.state().get("proved"),
        "evidence": lexists(call.repository.path / "state" / f"{found.id}.html"),
        "history": history(call.repository, found.id),
        "fits": unfit(call.options, found),
        "instead": "",
        "blockers": [],
        "by_hand": by_hand(str(found.path), call.site.main) if found.signed else "",
        "changed": None,
    }
    if shown["fits"]:
        shown["instead"] = hindrances.newest_that_fits(call.repository, call.options)
    else:
        status = read_status(call.site, call.repository, call.options)
        shown["blockers"] = status["blockers"] + of_a_restore(
            call.site, call.repository, found, data["parts"]
        )
        if found.moment:
            shown["changed"] = datasets(call.site, found.moment)
    if data["sizes"]:
        shown["download_sizes"] = sizes(call.repository, found)
    if data["compare"]:
        shown["differing"] = live.rows_now(call.site, found)
    return shown


def described(call: Call, found: Backup) -> Data:
    """One backup, as `dbmanage_backup_list` tells of it. Raises ObjectNotFound."""
    every = backups(call.repository)
    own = [each for each in every if each["id"] == found.id]
    if not own:
        gone = tk._("Backup {} was deleted meanwhile").format(found.id)
        raise tk.ObjectNotFound(gone)
    return _with_stays(call, every, own)[0]


def _with_stays(call: Call, every: list[Data], some: list[Data]) -> list[Data]:
    complete = having(every, wanted(call.site, call.options))
    return [
        each | {"stays": must_stay(each), "newest": newest_good(each, every, complete)}
        for each in some
    ]


@tk.side_effect_free
@action(kind=schema.choice(*KINDS), name=schema.needed)
def dbmanage_history(call: Call, data: Data) -> Data:
    """In which backups a record stands, what it was called, when it changed and went.

    :param kind: ``dataset``, ``organization``, ``group``, ``user``, ``resource`` or
        ``table`` (of the DataStore)
    :param name: its name or its id; one whose name has changed is followed by its id

    :returns: ``{kind, asked, backups, things: [{id, name, now, runs: [{from, to,
        backups, there, name, title, state, owner, modified, hash}]}], unknown:
        [{backup, why}], unsigned, damaged, ignored}``; ``things`` are more than one
        where a name was given to another record later. A run are backups one after the
        other in which it is the same, or not ``there``, the oldest run first; ``from``
        and ``to`` are their ids, ``backups`` how many they are; ``modified`` is the
        moment of its last change, ``hash`` tells a change where there is no such
        moment; ``now`` is as a run without its backups, None where nobody knows. Of
        ``unknown`` backups nobody knows whether it stands in them; ``unsigned`` ones
        this site has not signed, ``damaged`` ones the last look at all bytes found
        damaged, and ``ignored`` ones have lines of kinds that are not known here

    Raises ValidationError for a name that more than 20 records have.
    """
    return find_history(call.site, call.repository, data["kind"], data["name"])


@tk.side_effect_free
@action(id=schema.needed, log=schema.number(100, 0, 1000))
def dbmanage_job_show(call: Call, data: Data) -> Data:
    """One job: what it does, how far it is, and the end of its log.

    :param id: the job's id
    :param log: so many of the log's last lines, default 100

    :returns: ``{id, kind, arguments, state, asked, until, begun, ended, user, address,
        forwarded, phase, part, phases, ahead, done, about, unit, rate, share,
        seconds_left, seen, cancellable, armed, result, error, lines, log}``; ``share``
        (0 to 1) and ``seconds_left`` are of the whole job, ``ahead`` the phases that
        follow, ``done`` of ``about`` of this phase; ``state`` is ``queued``,
        ``running``, ``done``, ``failed``, ``cancelled`` or ``lost`` (its worker died);
        one that has not begun at ``until`` has failed; ``lines`` is how many the log
        has had, also those that are forgotten; ``worker`` is as in ``dbmanage_status``
        while it waits, else None

    Raises ValidationError for an ``id`` that is not known (any more).
    """
    with refused_at("id"):
        known = call.jobs.show(data["id"], data["log"])
        waits = known["state"] == QUEUED
        return known | {"worker": call.jobs.workers() if waits else None}


@tk.side_effect_free
@action(limit=schema.number(20, 1, 200))
def dbmanage_job_list(call: Call, data: Data) -> list[Data]:
    """The jobs, the newest first, without their logs; they are known for 30 days.

    :param limit: at most so many, default 20
    """
    return call.jobs.list(data["limit"])


@tk.side_effect_free
@action()
def dbmanage_maintenance_show(call: Call, data: Data) -> Data:
    """The maintenance: ``{level}``, and when it is on ``owner``, ``reason``, ``since``,
    ``until`` (empty while an operation holds it), ``seconds_left`` and ``held``:
    whether an operation renews and ends it. ``level`` is ``off``, ``read-only`` or
    ``away``.
    """
    return call.maintenance.status() or {"level": "off"}

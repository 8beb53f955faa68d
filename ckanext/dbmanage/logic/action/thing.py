"""One thing back: what would come back is looked at, then it is brought back."""

from ckan.plugins import toolkit as tk

from ...engine.errors import Refused
from ...operations.allowed import closed
from .. import schema
from ..call import Call, Data, action, refused_at
from ..confirm import confirm
from .restore import THING, enqueue_once

#: what can be brought back
KINDS = ("dataset", "organization", "group", "user", "table", "upload")
#: what a look at it is called as a job
_PREVIEW = "preview thing"


@action(
    id=schema.needed, kind=schema.choice(*KINDS), names=schema.names,
    with_datasets=schema.flag, as_name=schema.optional, preview=schema.flag,
    note=schema.line, password=schema.optional,
)  # fmt: skip
def dbmanage_bring_back(call: Call, data: Data) -> Data:
    """Bring one thing of a backup back, as a job, while the rest of the portal stays as
    it is. ``dbmanage_undo`` takes that back.

    What a sysadmin may edit anyway needs no arming; a user with the hash of the
    password does (``ckan db arm ID``). A worker must begin it within half an hour, or
    while it is armed.

    :param id: the backup's id
    :param kind: ``dataset``, ``organization``, ``group``, ``user``, ``table`` (of the
        DataStore) or ``upload``
    :param names: a name or an id, or a list of them, as the backup has them; of a
        table the id of its resource, of an upload its path in the backup
    :param with_datasets: of an organization its datasets too, default false
    :param as_name: another name for it, where its own is taken; of one thing only
    :param preview: only say what would come back: a job that needs no arming; its
        ``result`` is ``{source, moment, count, things: [{kind, id, name, then, now,
        fields: [{field, then, now}], lists: [{field, back, gone}], resources: [{id,
        name, change, fields}], tables, uploads: [{name, then, now, changed}], taken,
        needs: [{kind, name}], counts}], lacking}``: ``then`` and ``now`` of a thing are
        its state, None where it is not there; ``needs`` what is not there now;
        ``taken``, whether another has its name; of a list the first hundred, and in
        ``counts`` how many
    :param note: why, for the journal
    :param password: of a user the caller's own, again; not needed with an API token

    :returns: as ``dbmanage_job_show``; in the end ``result`` is ``{backup, things:
        [{kind, id, name, fate}]}``, where ``fate`` is ``created`` or ``changed``

    Raises ObjectNotFound for an ``id`` that is not known; NotAuthorized for a user when
    it is not armed; ValidationError for a backup that this site has not signed, and for
    a wrong ``password``. What fails later, the job tells.
    """
    found = call.find(data["id"])
    with refused_at("id"):
        if why := closed(found):
            raise Refused(why)
    if data["with_datasets"] and data["kind"] != "organization":
        only = tk._("Only an organization has datasets that come along")
        raise tk.ValidationError({"with_datasets": [only]})
    many = len(data["names"]) > 1 or data["with_datasets"]
    if data.get("as_name") and (many or data["kind"] in ("table", "upload")):
        one = tk._("Another name is for one thing only")
        raise tk.ValidationError({"as_name": [one]})
    chosen = {"id": found.id, "kind": data["kind"], "names": data["names"]}
    chosen["with_datasets"] = data["with_datasets"]
    if data["preview"]:
        return call.enqueue(_PREVIEW, chosen)
    chosen |= {"as_name": data.get("as_name") or "", "note": data["note"]}
    armed = data["kind"] == "user"
    if armed:
        confirm(call, data, THING, found.id)
    return enqueue_once(call, THING, chosen, found.id, armed)

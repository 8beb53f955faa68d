"""The exit codes of the commands; `docs/exit-codes.rst` is written out of this."""

import signal

DONE, FAILED, USAGE = 0, 1, 2
#: what each means, of all commands
MEANINGS = {
    DONE: "It is done.",
    FAILED: "It failed, or it was ended by Ctrl-C or by the answer to a question. The "
    "last line on stderr begins with ``Error:``, and says what failed and what to do.",
    USAGE: "The command was typed in a way that it does not know, or it has to ask and "
    "there is no terminal. Nothing was touched.",
    128 + signal.SIGHUP: "A terminal that was closed has ended it (SIGHUP).",
    128 + signal.SIGTERM: "It was told to end (SIGTERM), as by ``systemctl stop``.",
}
#: when a command ends with `FAILED` though it did its work to the end
FAILS = {
    "backup": "The backup is there, but uploads behind links are not in it.",
    "verify": "A backup is damaged, not proven, not signed by this site, or cannot be "
    "read.",
    "push": "A backup was not copied. The others were.",
    "nightly": "A step failed. The others were done, but for those that need it.",
    "notify": "A door took nothing. The others were told.",
    "doctor": "There is a problem. A hint is none.",
    "export": "A record could not be shown, or ``--check`` found a difference. All "
    "other records are written. Also when what reads the pipe has enough.",
    "import": "Lines were refused. All other records are imported.",
    "publish": "A record could not be shown. The dumps are published without it, if "
    "these are few.",
    "reindex": "A dataset could not be indexed, or the index has not as many as the "
    "database.",
}

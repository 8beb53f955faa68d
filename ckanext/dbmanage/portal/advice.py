"""What an operator of CKAN does about what the engine finds: the words of CKAN.

The engine says what is wrong, and knows neither CKAN's options nor its commands.
"""

#: by the case that the engine names; each ends a sentence
ADVICE = {
    "no datastore": "ckan.datastore.write_url is not set, or the plugin `datastore` is "
    "not enabled",
    "no files": "ckan.storage_path is not set",
    "empty": "`ckan db init` makes its tables, `ckan db load FILE` brings a dump back",
    "other secret": "SECRET_KEY was changed (then add the old one to "
    "SECRET_KEY_FALLBACKS)",
    "other token secret": "set the SECRET_KEY (or api_token.jwt.* options) that it was "
    "made with, or have its users make new tokens",
    "uploads not wanted": "set ckan.storage_path, or restore the rest with `--only "
    "database --only datastore`",
    "datastore not wanted": "enable the plugin `datastore`, or restore the rest with "
    "`--only database`",
    "not the main database": "the DataStore's goes by `--only datastore`",
    "not the datastore": "the main database's goes by `--only database`",
    "other part": "give --only database or datastore",
    "untrusted": "To restore it all the same, say --trust: this runs the SQL in it as "
    "CKAN's database role",
    "undo": "`ckan db undo` brings it back",
    "back": "`ckan db undo` goes back",
    "plain role": "Let CKAN connect as a plain role, as its manual says",
    "admin": "or set ckanext.dbmanage.admin_url to a connection of a role that may",
    "superuser": "or set ckanext.dbmanage.admin_url to a superuser's connection",
    "writers": "Stop CKAN's workers, harvesters and cron jobs, then try again",
}

#: tables that tell CKAN's main database from any other
MAIN_TABLES = ("package", "user")

from importlib.util import find_spec

from setuptools import setup

#: extracts the texts of Python and Jinja2 for translation; a keyword of Babel's, which
#: need not be there to build
EXTRACTORS = {
    "ckanext": [
        ("**.py", "python", None),
        ("**/templates/**.html", "ckan", None),
    ],
}

setup(**({"message_extractors": EXTRACTORS} if find_spec("babel") else {}))

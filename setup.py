from setuptools import setup

setup(
    # extracts the texts of Python and Jinja2 for translation
    message_extractors={
        "ckanext": [
            ("**.py", "python", None),
            ("**/templates/**.html", "ckan", None),
        ],
    }
)

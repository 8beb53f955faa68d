"""Where on the site a request goes, without the prefixes that CKAN gives addresses.

For what stands before Flask. Needs no application context.
"""

import re
from collections.abc import Mapping
from typing import Any

from ..portal.config import Options


class Prefixes:
    """`ckan.root_path` and the language, which stand before the path of a page."""

    def __init__(self, options: Options) -> None:
        offered = sorted(map(re.escape, options.locales), key=len, reverse=True)
        locales = "|".join(offered) or r"(?!api\b)[a-z]{2,3}(?:[_@][A-Za-z_@]+)?"
        root = options.text("ckan.root_path")
        before, _, after = map(re.escape, root.partition("/{{LANG}}"))
        self._patterns = [re.compile(f"(?:/({locales}))?(?=/|$)")]
        if root:
            rooted = re.compile(f"{before}(?:/({locales}))?{after}(?=/|$)")
            self._patterns.insert(0, rooted)

    def split(self, environ: Mapping[str, Any]) -> tuple[str | None, str]:
        """The language in a request's address, if there is one, and the page's path."""
        # what CKAN itself routes on; a proxy may have taken ckan.root_path off already
        path = environ.get("PATH_INFO", "")
        for pattern in self._patterns:
            if match := pattern.match(path):
                return match[1], path[match.end() :] or "/"
        return None, path

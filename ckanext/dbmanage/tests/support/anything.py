"""What anybody may have written: documents, bytes, and bytes that were changed."""

from __future__ import annotations

import os
from tempfile import TemporaryDirectory
from typing import Any

from hypothesis import strategies as st

#: texts of all letters, also of halves of letters and of what moves a cursor
TEXT = st.text(
    st.one_of(
        st.characters(codec=None),
        st.sampled_from("\0\n\r\t\v\x1b\x7f\x85\x9b\u2028\u202e\ud800\udcff/.~'\"\\ "),
    )
)
JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4)
    ),
    max_leaves=12,
)
_MEMORY = "/dev/shm"  # noqa: S108


@st.composite
def changed(draw: st.DrawFn, whole: bytes) -> bytes:
    """These bytes with some cut out, put in, or in the place of others."""
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(whole)))
        gone = draw(st.sampled_from((0, 1, 1, 4, 100, len(whole))))
        new = draw(st.binary(max_size=6) | st.just(whole[at : at + 40]))
        whole = whole[:at] + new + whole[at + gone :]
    return whole


def scratch() -> TemporaryDirectory[str]:
    """A directory for one example, in memory: hundreds wait for no disk."""
    return TemporaryDirectory(dir=_MEMORY if os.path.isdir(_MEMORY) else None)

"""Starts a program of the benchmarks again with the Python of `.services`.

It is imported for that, before what needs CKAN.
"""

import os
import sys
from pathlib import Path

S = Path(__file__).resolve().parent.parent / ".services"
if Path(sys.prefix) != S / "venv":
    if not (S / "env").exists():
        sys.exit("bench: first run bin/services install; bin/services start")
    start = '. "$0/env" && exec "$0/venv/bin/python" "$@"'
    os.execv("/bin/bash", ["bash", "-c", start, str(S), *sys.argv])

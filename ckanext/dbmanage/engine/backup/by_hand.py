"""How a backup comes back with stock tools alone: commands that a shell takes as such.

They make new databases and a new directory of uploads, and touch nothing that is there.
The manual shows the same `COMMANDS`.
"""

import re
from pathlib import PurePath
from shlex import quote

from ..postgres.database import Database

#: for `sh -eu`, with BACKUP, WORK, STORAGE and the PG… variables set
COMMANDS = r"""cd "$BACKUP"
sha256sum -c SHA256SUMS

for part in database datastore; do
  new=${NEW:-recovered}
  [ $part = database ] || new=${new}_datastore
  [ -e $part.list ] || continue
  cut -d' ' -f1,2 $part.list | tr ' ' '\n' | grep -v '^-$' | sort -u |
    sed 's|^\(..\).*|&  ../objects/\1/&|' | sha256sum -c --quiet
  while read -r object whole rest; do
    object=../objects/$(printf %.2s $object)/$object
    if [ $whole = - ]; then
      zstd -dcq $object
    else
      zstd -dcq ../objects/$(printf %.2s $whole)/$whole >"$WORK/whole"
      zstd -dcq --patch-from="$WORK/whole" $object
    fi
  done <$part.list >"$WORK/$part.dump"
  createdb -T template0 -E UTF8 "$new"
  pg_restore --no-owner --no-privileges --exit-on-error --single-transaction \
    -d "$new" "$WORK/$part.dump"
done

if [ -e files.jsonl.zst ]; then
  zstd -dcq files.jsonl.zst | LC_ALL=C sed -n \
    's/^{"path": "\(.*\)", "size": .*, "sha256": "\([0-9a-f]*\)"}$/\2 \1/p' |
  while read -r sum path; do
    case /$path/ in */../*) echo "not taken: $path" >&2; exit 1 ;; esac
    object=../objects/$(printf %.2s "$sum")/$sum
    echo "$sum  $object" | sha256sum -c --quiet
    mkdir -p "$STORAGE/$(dirname -- "$path")"
    cp "$object" "$STORAGE/$path"
  done
fi
"""


def by_hand(path: str, database: Database) -> str:
    """The commands for one backup, to be pasted into a shell in an empty directory.

    The parentheses have the shell read all of it before anything runs, and a failure
    end it. Names are new each time: what is there already ends it too. What the shell's
    own environment says of the server counts more than what the site does.
    """
    name = PurePath(path).name
    known = database.variables()
    lines = [
        f"BACKUP={quote(path)}",
        f"NEW=recovered_{re.sub('[^0-9a-z]', '_', name.lower())}",
        f"WORK=$PWD/{quote(name)}",
        'mkdir "$WORK"',
        "STORAGE=$WORK/uploads",
        *(f": ${{{variable}:={quote(value)}}}" for variable, value in known.items()),
        *([f"export {' '.join(known)}"] if known else []),
    ]
    done = 'echo "All of it is in new places: $NEW, $WORK"'
    return "\n".join(["(set -eu", *lines, "", COMMANDS, f"{done})"])

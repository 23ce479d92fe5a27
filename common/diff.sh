#!/bin/sh
# What a lesson changed against the one before: diff.sh BEFORE NOW
# The demo is left out: it is another one in each lesson.  DEMO=1 shows it, too.
set -eu

if [ -z "$1" ]; then
    echo 'There is no lesson before this one. Read schema.sql, queries.sql and main.c, in this order.'
    exit 0
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for lesson in "$1" "$2"; do
    name=$(basename "$(CDPATH='' cd -- "$lesson" && pwd -P)")
    mkdir -p "$work/$name"
    cp "$lesson/schema.sql" "$lesson/queries.sql" "$work/$name"
    if [ -n "${DEMO:-}" ]; then cp "$lesson/main.c" "$work/$name"
    else sed '/^\/\* ---- the demo ---- /,/^\/\* ---- the program ---- /{/ ---- /!d;}' "$lesson/main.c" >"$work/$name/main.c"
    fi
done
cd "$work"
for file in schema.sql queries.sql main.c; do
    set -- */"$file"
    if command -v git >/dev/null; then git --no-pager diff --no-index --no-prefix -- "$1" "$2" || :
    else diff -u "$1" "$2" || :
    fi
done

#!/bin/sh
# What a lesson changed against the one before: diff.sh BEFORE NOW
set -eu

if [ -z "$1" ]; then
    echo 'There is no lesson before this one. Read schema.sql, queries.sql and main.c, in this order.'
    exit 0
fi
for file in schema.sql queries.sql main.c; do
    if command -v git >/dev/null; then
        git --no-pager diff --no-index --no-prefix -- "$1/$file" "$2/$file" || :
    else
        diff -u "$1/$file" "$2/$file" || :
    fi
done

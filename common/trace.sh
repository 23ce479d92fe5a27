#!/bin/sh
# Draws a task of a lesson from 05 on: trace SCHEMA ID.
set -eu

case ${2:-} in '' | *[!0-9]*)
    echo 'make trace ID=1, with the number of a task (make show lists them).' >&2
    exit 1 ;;
esac
file=trace-$2.svg
here=$(dirname "$0")
{ echo "\\set id $2"; cat "$here/trace.sql"; } | PSQLRC=/dev/null "$here/tools" psql "$1" >"$file.new" || {
    rm -f "$file.new"
    echo 'If schema.sql is newer than the tables: make reset, or make run, makes them anew.' >&2
    exit 1
}
[ -s "$file.new" ] || { rm -f "$file.new"; echo "There is no task $2 (make show lists them)." >&2; exit 1; }
mv "$file.new" "$file"
echo "$PWD/$file (open it in a browser; the boxes say more when you point at them)"

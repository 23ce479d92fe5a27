#!/bin/sh
# Where does a function of main.c, a statement of queries.sql or a part of schema.sql stand, and where does it
# change from one lesson to the next: where NAME.
set -eu
cd "$(dirname "$0")/.."
name=${1:-}
[ -n "$name" ] || { echo 'make where NAME=claim_task, or NAME=ClaimTask, or NAME=give_permit_back' >&2; exit 1; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# A C function from its comment to its brace; a statement to the next one; of schema.sql what is created, to the blank
# line behind it.
piece() {
    awk -v name="$name" '
        function end() { if (found && !printed++) printf "%s", text; found = 0; text = "" }
        FILENAME ~ /\.c$/ {
            if (/^\/\*/ || (/^[a-z]/ && !comment)) { text = ""; found = 0 }
            comment = /^\/\*/ || (comment && !/^[a-z]/)
            text = text $0 "\n"
            if (/^[a-z].*\(/ && $0 ~ "[ *]" name "\\(" && !/;$/) found = 1
            if (/^}/) { end(); comment = 0 }
            next
        }
        FILENAME ~ /queries/ { if (/^-- name: /) { end(); found = $3 == name } if (found) text = text $0 "\n"; next }
        /^$/ { if (!quoted) { end(); text = ""; next } }
        /\$\$/ { if (gsub(/\$\$/, "$$") == 1) quoted = !quoted }
        { text = text $0 "\n"; if ($0 ~ "^create .*[ .]" name "([ (]|$)") found = 1 }
        END { end() }' "$1/main.c" "$1/queries.sql" "$1/schema.sql"
}

before='' seen=0
for lesson in lessons/[0-9]*; do
    number=$(basename "$lesson" | cut -d- -f1)
    piece "$lesson" >"$work/$number"
    if [ ! -s "$work/$number" ]; then [ -z "$before" ] || echo "$number: it is gone"; before=''; continue; fi
    seen=1
    if [ -z "$before" ]; then echo "$number: here it is new"; cat "$work/$number"
    elif cmp -s "$work/$before" "$work/$number"; then echo "$number: the same"
    else
        echo "$number: it differs"
        diff -u "$work/$before" "$work/$number" | sed 1,3d || :
    fi
    before=$number
done
[ "$seen" = 1 ] || { echo "No lesson has \"$name\"." >&2; exit 1; }

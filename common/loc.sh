#!/bin/sh
# How much there is to read, in lines that are neither blank nor comment: make loc.
set -eu
cd "$(dirname "$0")/.."

c() { # c FILE: all of it; with a second word only the demo's part: the functions it runs, and the demo itself
    awk -v only="${2:-}" '
        /^\/\* ---- functions/ { demo = 1 }
        /^\/\* ---- the program/ { demo = 0 }
        { line = $0 }
        inside { if (!sub(/.*\*\//, "", line)) next; inside = 0 }
        { while (sub(/\/\*([^*]|\*[^\/])*\*\//, "", line)); if (sub(/\/\*.*/, "", line)) inside = 1; sub(/\/\/.*/, "", line) }
        line ~ /[^[:space:]]/ { if (demo) its++; else engine++ }
        END { print only ? its + 0 : engine + 0 }' "$1"
}
sql() { grep -cvE '^[[:space:]]*(--.*)?$' "$1"; }

echo '| lesson | C: the engine | C: its functions and demo | schema.sql | queries.sql |'
echo '| --- | ---: | ---: | ---: | ---: |'
for lesson in lessons/0[1-9]-*; do
    echo "| $(basename "$lesson" | cut -d- -f1) | $(c "$lesson/main.c") | $(c "$lesson/main.c" demo) | $(sql "$lesson/schema.sql") | $(sql "$lesson/queries.sql") |"
done
total=0
for file in common/*.c common/*.h; do
    [ "$file" = common/tools.c ] || total=$((total + $(c "$file")))
done
echo
echo "Below all of them, in common/: $total lines of C (memory, JSON, the command line, SQL files, a connection)."
last=lessons/07-durable-tasks
echo "The whole engine: $(c $last/main.c) lines of C and $(($(sql $last/schema.sql) + $(sql $last/queries.sql))) lines of SQL."

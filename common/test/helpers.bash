# What the tests share.  Each starts in its lesson's folder, with DATABASE_URL set to the
# suite's own Postgres.

LESSON=${LESSON:-$(basename "$BATS_TEST_DIRNAME")}
[ -d "$GUIDE/lessons/$LESSON" ] || LESSON=01-prerequisites
SCHEMA=lesson_${LESSON%%-*}

setup() {
    cd "$GUIDE/lessons/$LESSON" || return
}

# Every test of a lesson with a queue ends with its invariants.
teardown() {
    [ -z "${STARTED:-}" ] || stop
    [ -z "${HOLDER:-}" ] || let_go
    [ ! -e check.sql ] || tools check "$SCHEMA"
}

# After `run`: what went wrong is shown, because bats shows only what a test prints.
succeeds() {
    [ "$status" -eq 0 ] || { echo "$output"; echo "exit $status, should be 0"; return 1; }
}

fails() { # fails STATUS TEXT...
    [ "$status" -eq "$1" ] || { echo "$output"; echo "exit $status, should be $1"; return 1; }
    shift
    prints "$@"
}

prints() {
    local text
    for text; do
        case $output in *"$text"*) ;; *) echo "$output"; echo "no such line: $text"; return 1 ;; esac
    done
}

prints_not() {
    case $output in *"$1"*) echo "$output"; echo "there is: $1"; return 1 ;; esac
}

one_line() {
    [ "$(printf '%s\n' "$output" | wc -l)" -eq 1 ] || { echo "$output"; echo 'should be one line'; return 1; }
}

tools() { "$GUIDE/common/tools" "$@"; }

fresh() { tools reset "$SCHEMA" >/dev/null; }

sql() { # sql STATEMENT: its answer, unaligned, in the lesson's schema
    PGOPTIONS="-c search_path=$SCHEMA" psql -XAtq -v ON_ERROR_STOP=1 "$DATABASE_URL" -c "$1"
}

# Runs a statement in a session that then does nothing, its transaction open, until let_go.
hold() { # hold STATEMENT
    PGAPPNAME=holder PGOPTIONS="-c search_path=$SCHEMA" psql -XAtq "$DATABASE_URL" \
        -c "$1; select pg_sleep(600)" >/dev/null 2>&1 3>&- &
    HOLDER=$!
    until [ "$(sql "select count(*) from pg_stat_activity where application_name = 'holder' and wait_event = 'PgSleep'")" = 1 ]; do
        sleep 0.05
    done
}

let_go() {
    sql "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'holder'" >/dev/null
    wait "$HOLDER" || :
    HOLDER=
}

# Starts a program in the background; its output goes to a file, its process id to STARTED.
start() {
    (exec "$@") >"$BATS_TMPDIR/said" 2>&1 3>&- &
    STARTED=$!
}

stop() {
    kill "$STARTED" 2>/dev/null || :
    wait "$STARTED" 2>/dev/null || :
    STARTED=
}

# Waits for what must come.  The limit is there against hanging only.
wait_until() { # wait_until STATEMENT, which answers t in the end
    local tries=0
    until [ "$(sql "$1")" = t ]; do
        [ $((tries += 1)) -lt "${PATIENCE:-1200}" ] || { echo "this did not become true: $1"; return 1; }
        sleep 0.05
    done
}

wait_until_said() {
    local tries=0
    until grep -qF "$1" "$BATS_TMPDIR/said"; do
        [ $((tries += 1)) -lt "${PATIENCE:-1200}" ] || { cat "$BATS_TMPDIR/said"; echo "nobody said: $1"; return 1; }
        sleep 0.05
    done
}

# Kills drain at every statement that it sends, in three ways, and freezes it there in a fourth,
# while another one does the work; then lets the work come to its end and compares the rows with
# those of an undisturbed run.
crash_everywhere() { # crash_everywhere NAME INPUT ROWS...: the rows, as statements
    local name=$1 input=$2 how n want points=
    shift 2
    end_at_once() { sql "update task set wake_at = now() where status in ('running', 'waiting') and wake_at is not null"; ./lesson drain >/dev/null; }
    rows() { for statement; do sql "$statement"; done; }
    begin() { # without any back-off, so that each run has the same statements
        fresh
        sql "create or replace function back_off(attempt int, first_ms int) returns interval language sql as \$\$ select interval '0' \$\$"
        ./lesson submit "$name" "$input" >/dev/null
    }
    begin
    until [ "$(sql "select count(*) from task where status in ('queued', 'running', 'waiting')")" -eq 0 ]; do end_at_once; done
    want=$(rows "$@")
    [ -n "$want" ] || { echo 'the undisturbed run left no rows'; return 1; }
    for how in '' :after :lost :freeze; do
        for n in $(seq 500); do
            begin
            die_at "$n$how" || break
            for _ in $(seq 20); do end_at_once; done_now && break; done
            [ "$how" != :freeze ] || thaw "$n$how"
            same "$n$how" "$want" "$(rows "$@")" || BAD=$((${BAD:-0} + 1))
            tools check "$SCHEMA" >/dev/null || { echo "$n$how: not healthy"; BAD=$((${BAD:-0} + 1)); }
            [ -z "${BROKEN:-}" ] || [ "${BAD:-0}" -eq 0 ] || break 2
        done
        echo "$name: $((n - 1)) points ${how:-:before}"
        points="${points:+$points, }$((n - 1)) ${how:-:before}"
        [ "$n" -gt 3 ] || return 1
    done
    [ "${BAD:-0}" -eq 0 ] || { echo "$BAD bad points"; return 1; }
    echo "# $name at each statement: $points; none bad" >&3
}

done_now() { [ "$(sql "select count(*) from task where status in ('queued', 'running', 'waiting')")" -eq 0 ]; }

# Fails when drain came to its end before that point.
die_at() { # die_at POINT
    local state
    CRASH_AT=$1 ./lesson drain >"$BATS_TMPDIR/died" 2>&1 3>&- &
    DRAIN=$!
    case $1 in
    *:freeze)
        while state=$(ps -o state= -p "$DRAIN"); do
            case $state in T*) return ;; Z*) break ;; esac
            sleep 0.01
        done ;;
    esac
    { ! wait "$DRAIN" || return 1; } 2>/dev/null      # bash would report the death
    grep -q CRASH_AT "$BATS_TMPDIR/died" || { cat "$BATS_TMPDIR/died"; return 1; }
}

# Whoever has lost the claim changes nothing at all.  (What it says then is its own affair.)
thaw() { # thaw POINT
    local before
    everything() {
        sql "select task::text from task order by id"
        [ -z "$(sql "select to_regclass('event')")" ] || sql "select event::text from event order by task_id, seq"
    }
    before=$(everything)
    kill -CONT "$DRAIN"
    wait "$DRAIN" || :
    same "$1, before the thaw and after" "$before" "$(everything)" || BAD=$((${BAD:-0} + 1))
}

same() { # same POINT WANT GOT
    [ "$2" = "$3" ] || { echo "$1: what should be <, what is >"; diff <(echo "$2") <(echo "$3"); return 1; }
}

# A folder that looks like the lesson's, to break things in.
lesson_copy() {
    COPY=$(mktemp -d "$BATS_TMPDIR/copy.XXXXXX")
    cp -R "$GUIDE/common" "$COPY/common"
    mkdir "$COPY/lessons"
    cp -R "$GUIDE/lessons/$LESSON" "$COPY/lessons/"
    cd "$COPY/lessons/$LESSON" || return
}

# A limit against hanging, where timeout(1) is there.
limited() {
    if command -v timeout >/dev/null; then timeout -k 5 60 "$@"; else "$@"; fi
}

# Applies a patch to a copy.  It must build, its demo must start, and the test that the
# patch names must fail with the words that the patch predicts: for that one bad point is enough,
# and no need to wait long for what does not come.
turns_red() {
    local patch=$PWD/$1 copy test says
    copy=$(mktemp -d "$BATS_TMPDIR/broken.XXXXXX")
    test=$(sed -n 's/^Test: //p' "$patch")
    says=$(sed -n 's/^Says: //p' "$patch")
    [ -n "$test" ] && [ -n "$says" ] || { echo "$1 has no Test: or no Says:"; return 1; }
    grep -qxF "@test \"$test\" {" test.bats || { echo "test.bats has no test \"$test\""; return 1; }
    sh "$GUIDE/common/break.sh" . "$patch" "$copy" || return
    cd "$copy/lessons/$LESSON" || return
    make -s build || return
    if grep -q '^--- a/common/' "$patch"; then make -s ../../common/tools || return
    else cp "$GUIDE/common/tools" "$copy/common/tools"
    fi
    limited ./lesson >demo.out 2>&1 3>&- || :
    [ -s demo.out ] || { echo "the demo did not start"; return 1; }
    GUIDE=$copy BROKEN=1 PATIENCE=300 run bats --tap --filter "^$test\$" test.bats
    cd "$BATS_TMPDIR" || return
    [ "$status" -ne 0 ] || { echo "$output"; echo "the test is green without the safety"; return 1; }
    prints 'not ok 1' "$says"
}

# The test that is the reason for a lesson, on a copy that has the program and the SQL of the
# lesson before: it must fail.  No need to wait long for what cannot come.
red_before() { # red_before TEST
    local before
    lesson_copy
    before=$(sed -n 's/^PREVIOUS = //p' Makefile)
    (cd "$GUIDE/lessons/$LESSON/$before" && cat Makefile && cp main.c schema.sql queries.sql "$COPY/lessons/$LESSON") >/dev/null
    rm -f check.sql
    make -s build || return
    GUIDE=$COPY PATIENCE=100 run bats --tap --filter "^$1\$" test.bats
    setup
    fresh
    [ "$status" -ne 0 ] || { echo "$output"; echo 'green without what this lesson adds'; return 1; }
    prints 'not ok 1'
}

# Statements are asked for by names in quotes: one(db, "ClaimTask", ...).
names_agree() {
    sed -n 's/^-- name: \([A-Za-z0-9_]*\) .*/\1/p' queries.sql | sort >"$BATS_TMPDIR/there"
    grep -o '"[A-Z][a-z][A-Za-z]*"' main.c | tr -d '"' | sort -u >"$BATS_TMPDIR/used"
    diff "$BATS_TMPDIR/there" "$BATS_TMPDIR/used"
}

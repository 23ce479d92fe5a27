# What the tests share.  Each starts in its lesson's folder, with DATABASE_URL set to the
# suite's own Postgres.

# The lesson that is tested.  A test of an earlier one, kept by the last: FROM says of which.
LESSON=${LESSON:-$(basename "$BATS_TEST_DIRNAME")}
[ -d "$GUIDE/lessons/$LESSON" ] || LESSON=01-prerequisites
SCHEMA=lesson_${LESSON%%-*}

setup() {
    cd "$GUIDE/lessons/$LESSON" || return
}

# Every test of a lesson with a queue ends with its invariants.
teardown() {
    [ -z "${HOLDER:-}" ] || let_go
    [ -z "${STARTED:-}" ] || stop
    for job in $(jobs -p); do kill -KILL -- "-$job" 2>/dev/null || kill -KILL "$job" 2>/dev/null || :; done
    ${AFTERWARDS:-true}
    # (Nothing to check if no test has made the tables yet.)
    [ ! -e check.sql ] || [ -z "$(sql "select to_regclass('task')")" ] || tools check "$SCHEMA"
}

# What was tried, for the end of the suite's output.
tally() { # tally NUMBER WHAT
    echo "# tally: $1 $2" >&3
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

# Plays a race: this lesson's, or that of the lesson from which a test was kept, in this lesson's
# words where they differ.
play() { # play NAME
    local file=race/$1.race
    [ -e "$file" ] || file=$GUIDE/common/test/kept/${FROM%%-*}-$1.race
    [ -e "$file" ] || file=${SOUND:-$GUIDE}/lessons/$FROM/race/$1.race
    run tools race "$SCHEMA" "$file"
    succeeds
    tally 1 'races played'
}

# The log of the server outlives it, as its counters do not.
no_deadlock() {
    ! grep 'deadlock detected' "$HARDWAY_STATE/log"
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

# Gently; a broken version may need more than that.
stop() {
    local tries=0
    kill "$STARTED" 2>/dev/null || :
    while kill -0 "$STARTED" 2>/dev/null && [ $((tries += 1)) -lt "${PATIENCE:-600}" ]; do sleep 0.05; done
    kill -KILL -- "-$STARTED" 2>/dev/null || kill -KILL "$STARTED" 2>/dev/null || :
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

# ---- crash points ----

OPEN="status in ('queued', 'running', 'waiting')"

# A task in empty tables, without any back-off: so that each run has the same statements.
begin() { # begin NAME INPUT
    sql "do \$\$ begin execute (
             select 'truncate ' || string_agg(relname, ', ') || ' restart identity cascade'
             from pg_class where relnamespace = current_schema::regnamespace and relkind = 'r'); end \$\$;
         insert into task (name, input) values ('$1', '$2')"
}

# Lets all alarms ring at once, and the work come to its end.
finish() {
    local _ left
    for _ in $(seq 30); do
        left=$(sql "update task set wake_at = now() where status in ('running', 'waiting') and wake_at is not null;
                    select count(*) from task where $OPEN or status in ('failed', 'cancelled') and wake_at is not null") || return
        [ "$left" -gt 0 ] || return 0
        ./lesson drain >/dev/null || return
    done
    echo 'it does not come to its end'
    return 1
}

rows() { # rows STATEMENT...
    local statement commands=()
    for statement; do commands+=(-c "$statement"); done
    PGOPTIONS="-c search_path=$SCHEMA" psql -XAtq -v ON_ERROR_STOP=1 "$DATABASE_URL" "${commands[@]}"
}

no_back_off() { sql "create or replace function back_off(attempt int, first_ms int) returns interval language sql as \$\$ select interval '0' \$\$"; }

# A point is bad if its rows are not those of the undisturbed run, or not healthy.
bad_if() { # bad_if POINT COMMAND...
    local point=$1
    shift
    ! "$@" || return 0
    echo "that was with CRASH_AT=$point, a bad point"
    BAD=$((${BAD:-0} + 1))
}

healthy() { tools check "$SCHEMA" >"$BATS_TMPDIR/checked" || { cat "$BATS_TMPDIR/checked"; return 1; }; }

# Kills drain at every statement that it sends, in three ways, and freezes it there in a fourth,
# while another one does the work; then lets the work come to its end and compares the rows with
# those of an undisturbed run.  With a broken version one bad point is enough.
crash_everywhere() { # crash_everywhere NAME INPUT ROWS...: the rows, as statements
    local name=$1 input=$2 how n want points=
    shift 2
    fresh
    no_back_off
    begin "$name" "$input"
    finish || return
    want=$(rows "$@")
    [ -n "$want" ] || { echo 'the undisturbed run left no rows'; return 1; }
    for how in ${BROKEN:+:freeze} '' :after :lost :freeze; do
        for n in $(seq 500); do
            begin "$name" "$input"
            die_at "$n$how" || break
            bad_if "$n$how" finish
            [ "$how" != :freeze ] || thaw "$n$how"
            bad_if "$n$how" same "$want" "$(rows "$@")"
            bad_if "$n$how" healthy
            [ -z "${BROKEN:-}" ] || [ "${BAD:-0}" -eq 0 ] || break 2
        done
        points="${points:+$points, }$((n - 1)) ${how:-:before}"
        [ "$n" -gt 3 ] || { echo "only $((n - 1)) points"; return 1; }
        tally $((n - 1)) "crash points ${how:-:before}"
    done
    echo "# $name at each statement: $points" >&3
    [ "${BAD:-0}" -eq 0 ] || { echo "bad points: $BAD"; return 1; }
}

# Stops drain at a point.  Fails when it came to its end before that.
die_at() { # die_at POINT
    local state status=0
    CRASH_AT=$1 ./lesson drain >"$BATS_TMPDIR/died" 2>&1 3>&- &
    DRAIN=$!
    case $1 in
    *:freeze)
        while state=$(ps -o state= -p "$DRAIN"); do
            case $state in T*) return ;; Z*) break ;; esac
            sleep 0.01
        done ;;
    esac
    { wait "$DRAIN" || status=$?; } 2>/dev/null      # bash would report the death
    case $1,$status in
    *,0) return 1 ;;
    *:lost,1 | *,137) grep -q CRASH_AT "$BATS_TMPDIR/died" || { cat "$BATS_TMPDIR/died"; echo "$1: no crash point"; exit 1; } ;;
    *) cat "$BATS_TMPDIR/died"; echo "$1: exit $status"; exit 1 ;;
    esac
}

# Whoever has lost the claim changes no task and no log.  (What it says then, or does to the world, is
# its own affair.)
thaw() { # thaw POINT
    local before
    everything() {
        sql "select task::text from task order by id"
        [ -z "$(sql "select to_regclass('event')")" ] || sql "select event::text from event order by task_id, seq"
    }
    before=$(everything)
    kill -CONT "$DRAIN"
    wait "$DRAIN" || :
    bad_if "$1, thawed," same "$before" "$(everything)"
}

same() { # same WANT GOT
    [ "$1" = "$2" ] || { echo 'rows that should be there are marked <, and what is there instead >'; diff <(echo "$1") <(echo "$2"); return 1; }
}

# ---- broken versions ----

# A folder that looks like the lesson's, to break things in.
lesson_copy() {
    COPY=$(mktemp -d "$BATS_TMPDIR/copy.XXXXXX")
    cp -R "$GUIDE/common" "$COPY/common"
    mkdir "$COPY/lessons"
    cp -R "$GUIDE/lessons/$LESSON" "$COPY/lessons/"
    cd "$COPY/lessons/$LESSON" || return
}

# Applies a patch to a copy.  It must build, its demo must start, and the test that the
# patch names must fail with the words that the patch predicts: for that one bad point is enough,
# and no need to wait long for what does not come.
turns_red() { # turns_red PATCH FILE [TEST]
    local patch=$1 file=$2 copy test says="" here=$PWD
    case $patch in /*) ;; *) patch=$PWD/$patch ;; esac
    test=${3:-$(sed -n 's/^Test: //p' "$patch")}
    [ $# -lt 3 ] || says=$(sed -n 's/^Says there: //p' "$patch")
    says=${says:-$(sed -n 's/^Says: //p' "$patch")}
    [ -n "$test" ] && [ -n "$says" ] || { echo "$1 has no Test: or no Says:"; return 1; }
    grep -qF "@test \"$test\" {" "$file" || { echo "$file has no test \"$test\""; return 1; }
    copy=$(mktemp -d "$BATS_TMPDIR/broken.XXXXXX")
    sh "$GUIDE/common/break.sh" . "$patch" "$copy" || return
    cd "$copy/lessons/$LESSON" || return
    make -s build || return
    if grep -q '^--- a/common/' "$patch"; then make -s ../../common/tools || return
    else cp "$GUIDE/common/tools" "$copy/common/tools"
    fi
    demo_starts || return
    case $file in "$GUIDE"/*) file=$copy${file#"$GUIDE"} ;; esac
    # shellcheck disable=SC2097,SC2098
    SOUND=$GUIDE GUIDE=$copy BROKEN=1 PATIENCE=150 run bats --tap --filter "^$test\$" "$file"
    cd "$here" || return
    cut_all
    fresh
    [ "$status" -ne 0 ] || { echo "$output"; echo "the test is green without the safety"; return 1; }
    prints 'not ok 1' "$says"
    rm -rf "$copy"
    tally 1 'broken versions caught'
}

# An exercise: its test is red on the lesson as it is, and green when its solution is applied.
solves() { # solves EXERCISE
    local copy here=$PWD
    PATIENCE=100 run bats --tap --filter "^$1\$" exercises.bats
    cut_all
    [ "$status" -ne 0 ] || { echo "$output"; echo 'there is nothing to solve'; return 1; }
    prints '1..1' 'not ok 1'
    copy=$(mktemp -d "$BATS_TMPDIR/solved.XXXXXX")
    sh "$GUIDE/common/break.sh" . "solution/$1.patch" "$copy" || return
    cd "$copy/lessons/$LESSON" || return
    make -s build || return
    cp "$GUIDE/common/tools" "$copy/common/tools"
    # shellcheck disable=SC2097,SC2098
    GUIDE=$copy run bats --tap --filter "^$1\$" exercises.bats
    cd "$here" || return
    cut_all
    fresh
    succeeds
    prints 'ok 1'
    rm -rf "$copy"
    tally 1 'exercises solved'
}

# Until nobody is connected who could still do something.
cut_all() {
    until [ "$(sql "select count(*) from (
            select pg_terminate_backend(pid) from pg_stat_activity where application_name = '$SCHEMA') gone")" -eq 0 ]; do
        sleep 0.05
    done
}

# It is enough that it starts: most of these would wait for what does not come.
demo_starts() {
    set -m
    (exec ./lesson) >demo.out 2>&1 3>&- &
    local demo=$! tries=0
    set +m
    until [ -s demo.out ]; do
        [ $((tries += 1)) -lt 600 ] || { echo 'the demo did not start'; break; }
        sleep 0.05
    done
    kill -KILL -- "-$demo" 2>/dev/null || :
    wait "$demo" || :
    cut_all
    [ -s demo.out ]
} 2>/dev/null

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

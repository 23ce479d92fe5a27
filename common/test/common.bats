# What no lesson is about: JSON, SQL files, calls, output, set-up.

load helpers

# As a lesson of its own.
build_probe() {
    SCHEMA=lesson_00
    cd "$GUIDE/lessons" || return
    if [ ! -d 00-probe ]; then
        cp -R ../common/test/probe 00-probe
        mv 00-probe/probe.c 00-probe/main.c
        echo 'include ../../common/lesson.mk' >00-probe/Makefile
        make -s -C 00-probe build || return
    fi
    cd 00-probe || return
}

# ---- JSON ----

@test "decode and encode take, refuse and write what they should" {
    cd "$BATS_TMPDIR"
    ${CC:-cc} -g -O1 -std=gnu17 -fsanitize=address,undefined -fno-sanitize-recover=undefined \
        "$GUIDE"/common/test/json_test.c "$GUIDE"/common/{json,memory,cli}.c -o json_test -lcjson -lm
    run ./json_test
    succeeds
    prints ' checks, 0 failed'
}

@test "Postgres takes all that encode writes, and gives it back" {
    cd "$BATS_TMPDIR"
    ./json_test accepts >accepted
    [ "$(wc -l <accepted)" -gt 20 ]
    while IFS= read -r text; do
        escaped=$(printf %s "$text" | sed "s/'/''/g")
        [ "$(sql "select '$escaped'::json")" = "$text" ]
        [ "$(sql "select '$escaped'::jsonb = ('$escaped'::json)::jsonb")" = t ]
    done <accepted
}

@test "the fuzzer finds no text that decode and encode disagree about" {
    cd "$BATS_TMPDIR"
    echo 'int LLVMFuzzerTestOneInput(void); int LLVMFuzzerTestOneInput(void) { return 0; }' >try.c
    clang -fsanitize=fuzzer try.c -o try 2>/dev/null || skip "it needs clang with libFuzzer"
    clang -g -O1 -std=gnu17 -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=undefined \
        "$GUIDE"/common/test/fuzz_json.c "$GUIDE"/common/{json,memory,cli}.c -o fuzz -lcjson -lm
    run ./fuzz -max_total_time="${FUZZ_SECONDS:-5}" -max_len=400 -timeout=20
    succeeds
    prints 'Done '
}

# ---- statements and calls ----

@test "statements run by name, and only parameters are parameters" {
    build_probe
    run ./lesson rightly
    succeeds
    prints '2 things, 1 same' "@name ';| @name ; | \$\$ @name |it's @name" "t t 5 7 ait's; @x" \
        '    id  label  input' '     1  ä      {"b":  1}' 'input is "{"b":  1}", then null' 'changed 2'
}

@test "a wrong call says where in C and where in queries.sql" {
    build_probe
    mistake() { run ./lesson wrongly "$1"; shift; fails 1 "$@" "main.c:"; }
    mistake 1 'there is no statement NoSuch in queries.sql'
    mistake 2 'queries.sql:8:10: CountThings: it is :one, and called as :many'
    mistake 3 'queries.sql:8:10: CountThings: @label is not given'
    mistake 4 'queries.sql:8:10: CountThings: there is no @lable in it'
    mistake 5 'queries.sql:8:10: CountThings: @label is given twice'
    mistake 6 'queries.sql:8:10: CountThings: Postgres takes @label for neither integer nor json: use Text(), or cast it there'
    mistake 7 'queries.sql:3:10: AddThing: Postgres takes @input for json: use Json()'
    mistake 8 'queries.sql:8:10: CountThings: it returns no column "m"'
    mistake 9 'queries.sql:3:10: AddThing: column "label" is not an integer'
    mistake 10 'queries.sql:8:10: CountThings: column "n" is not json'
    mistake 11 'queries.sql:24:10: TwoRows: a :one, and it returned 2 rows'
    mistake 12 'AddThing: new row for relation "thing" violates check constraint "label_is_short"'
    mistake 13 'AddThing: invalid input syntax for type json'
    mistake 15 'lost the connection to Postgres at '
}

@test "memory is forgotten between tasks" {
    build_probe
    run ./lesson forget
    succeeds
    prints kept
}

# ---- crash points ----

@test "CRASH_AT kills before the n-th statement, after it, or loses its answer" {
    build_probe
    run env CRASH_AT=3 ./lesson crash
    fails 137 'added 2' 'CRASH_AT: SIGKILL before AddThing'
    [ "$(sql 'select count(*) from thing')" -eq 2 ]
    run env CRASH_AT=3:after ./lesson crash
    fails 137 'added 2' 'CRASH_AT: SIGKILL after AddThing'
    [ "$(sql 'select count(*) from thing')" -eq 3 ]
    run env CRASH_AT=3:lost ./lesson crash
    fails 1 'added 2' 'the answer of AddThing is lost' 'lost the connection to Postgres'
    [ "$(sql 'select count(*) from thing')" -eq 3 ]
    run env CRASH_AT=6 ./lesson crash
    succeeds
}

@test "CRASH_AT freezes before the n-th statement, until somebody thaws it" {
    build_probe
    CRASH_AT=3:freeze ./lesson crash >"$BATS_TMPDIR/frozen" 2>&1 3>&- &
    until [ "$(ps -o state= -p $! | cut -c1)" = T ]; do sleep 0.05; done
    run cat "$BATS_TMPDIR/frozen"
    prints 'added 2' 'CRASH_AT: SIGSTOP before AddThing'
    prints_not 'added 3'
    kill -CONT $!
    wait $!
    grep 'added 3' "$BATS_TMPDIR/frozen"
}

@test "CRASH_AT is for one kind of process only, and a wrong one is refused" {
    build_probe
    run env CRASH_AT=lookout:3 ./lesson crash
    succeeds
    run env CRASH_AT=lookout:3 ./lesson crash --who lookout
    fails 137 'added 2'
    run env CRASH_AT=3 ./lesson crash --who lookout
    succeeds
    for wrong in x 0 -1 3:never lookout: 3x lookout3; do
        run env CRASH_AT=$wrong ./lesson crash
        fails 2 "CRASH_AT is [WHO:]N, or this with :after, :lost or :freeze, not \"$wrong\""
    done
}

# ---- the command line ----

@test "a wrong command line is one line and exit 2" {
    build_probe
    wrong() { local says=$1; shift; run ./lesson "$@"; one_line; fails 2 "$says"; }
    wrong 'there is no command "nope"' nope
    wrong 'options needs more. Usage: options NAME [JSON]' options
    wrong 'options: what is "c"?' options a b c
    wrong 'options does not know --prio' options a --prio 1
    wrong 'options does not know --' options a --
    wrong '--queue needs a value' options a --queue
    wrong '--queue is there twice' options a --queue x --queue y
    wrong '--priority takes a whole number from -5 to 5, not "six"' options a --priority six
    wrong 'not "6"' options a --priority 6
    wrong 'not "99999999999999999999"' options a --priority 99999999999999999999
    run env PROBE_MS=-1 ./lesson options a
    fails 2 'PROBE_MS takes a whole number'
    run ./lesson options a b --queue q --priority -5
    succeeds
    prints 'a b q -5' 40
}

# ---- mistakes in the SQL files ----

# Edits a copy of the lesson and runs its demo, which must fail.
edited() { # edited FILE SED-SCRIPT
    lesson_copy
    sed "$2" "$1" >edited && mv edited "$1"
    run ./lesson
    [ "$status" -eq 1 ]
}

# What stands above the caret.
caret_at() {
    local LC_ALL=C.UTF-8 above below
    below=$(printf '%s\n' "$output" | grep -E '^[[:space:]]*\^$')
    above=$(printf '%s\n' "$output" | grep -E -B 1 '^[[:space:]]*\^$' | head -n 1)
    [ "${above:${#below}-1:${#1}}" = "$1" ] || { echo "$output"; echo "the caret is not at $1"; return 1; }
}

@test "a typo in queries.sql: file, line, column, a caret and Postgres's hint" {
    edited queries.sql 's/set status = .completed., worker/set state = 1, worker/'
    prints 'FinishTask: column "state" of relation "task" does not exist'
    caret_at state
    edited queries.sql 's/^select id$/select idd/'
    prints 'queries.sql:22:8: TakeTask: column "idd" does not exist' 'hint: Perhaps you meant to reference the column "task.id".'
    caret_at idd
}

@test "the caret is right behind an @name and behind an é" {
    edited queries.sql "s/^where id = @id;/where 'ééé' <> @was::text and id = @id::bigint and nope;/"
    prints 'FinishTask: column "nope" does not exist'
    caret_at nope
    edited queries.sql "s/^where id = @id;/where @longname::text is null or id = @longname and 'é' = 'é' and nope;/"
    prints 'operator does not exist: bigint = text'
    caret_at '= @longname'
}

@test "a typo in schema.sql: file, line, column and a caret, and the old tables stay" {
    ./lesson >/dev/null
    edited schema.sql 's/not null default .null./not nul/'
    prints 'schema.sql:10:' 'syntax error at or near "nul"'
    caret_at nul
    [ "$(sql 'select count(*) from task')" -eq 3 ]
    edited schema.sql "s/'completed'))/'completed')),  -- é/"
    prints 'syntax error at or near ")"'
    caret_at ')'
    edited schema.sql '$a\
comment on table nothing is null;'
    prints 'relation "nothing" does not exist' 'comment on table nothing is null;'
}

@test "schema.sql may hold whatever Postgres takes" {
    lesson_copy
    for i in $(seq 20000); do echo "-- a long comment, line $i"; done >>schema.sql
    echo "create function one(int) returns int language sql begin atomic select \$1 + 1; select \$1; end;" >>schema.sql
    echo "create table absolute (x int check (@x > 0)); do \$\$ begin null; end \$\$" >>schema.sql
    run ./lesson
    succeeds
    : >schema.sql
    run ./lesson
    fails 1 'relation "task" does not exist'
}

@test "an error in a trigger says which statement, and where in C" {
    edited schema.sql "\$a\\
create function no() returns trigger language plpgsql as \$\$ begin raise 'not today'; end \$\$;\\
create trigger no before insert on task for each row execute function no();"
    prints 'queries.sql:12:10: AddTask: not today' 'called at main.c:'
}

@test "a demo in which a process does not end well does not end well" {
    edited queries.sql "s/worker = @worker/worker = @worker || case when @worker = 'right' then (1 \/ (id - id))::text else '' end/"
    prints 'division by zero' 'right did not end well'
}

# edit LESSON FILE SED WHAT...: after such an edit the demo fails at once, and says so.
edit() {
    cd "$GUIDE/lessons/$1"-*
    cp "$2" "$BATS_TMPDIR/kept"
    sed -i.bak -E "$3" "$2"
    if cmp -s "$2" "$BATS_TMPDIR/kept"; then echo "nothing to edit: $3"; return 1; fi
    make -s build
    run timeout 60 ./lesson
    cp "$BATS_TMPDIR/kept" "$2"
    cd "$GUIDE/lessons/$LESSON"
    fails 1 "${@:4}"
}

@test "a mistake in the SQL ends the demo, wherever it shows, and says where it is and what it is" {
    edit 02 schema.sql '$ a rollback;' 'it ends the transaction' 'leave out begin, commit and rollback'
    edit 02 schema.sql '$ a set search_path = public;' 'leave search_path as it is'
    edit 02 schema.sql 's/create table task/create table tusk/' 'schema.sql:29:1: relation "task" does not exist' 'create index task_queued'
    edit 07 schema.sql 's/^returns (.*)|language plpgsql as/language plsql as/' 'language "plsql" does not exist' 'create function'
    edit 02 schema.sql "s/default 'queued'/default 'qeued'/" 'EnqueueTask: value for domain status' 'see status_is_known in schema.sql'
    edit 02 queries.sql 's/-- name: CompleteTask/-- nmae: CompleteTask/' 'ClaimTask: two statements under one name'
    edit 02 queries.sql 's/^returning id, name, input;/returning id, name;/' 'it returns no column "input"' 'the reason stands above'
    edit 04 queries.sql 's/-- name: RenewLease/-- name: RenewLeese/' 'there is no statement RenewLease' 'the reason stands above'
    edit 04 schema.sql 's/its_worker and status/its_wroker and status/' 'RenewLease: column "its_wroker" does not exist' 'in PL/pgSQL function renew_lease'
    edit 04 schema.sql "s/'waiting', //" 'EndAttemptOf: value for domain status' 'the reason stands above'
    edit 07 queries.sql 's/-- name: EndAttemptOf /-- name: EndAttemptOff /' 'there is no statement EndAttemptOf' 'the reason stands above'
    edit 07 queries.sql 's/log.open::int, wakeups/log.open::int/' 'LoadLog' 'wakeups' 'the reason stands above'
}

@test "queries.sql is read as strictly as sqlc reads it" {
    edited queries.sql 's/^-- name: CountTasks :one/-- name: CountTasks/'
    prints 'queries.sql:17:1: expected "-- name: SomeName :one" (or :many, or :exec)'
    edited queries.sql 's/^-- name: CountTasks :one/-- name CountTasks :one/'
    prints 'queries.sql:17:1: expected'
    edited queries.sql 's/^-- name: CountTasks :one/-- name: CountTasks :single/'
    prints 'queries.sql:17:1: expected'
    edited queries.sql 's/^-- name: CountTasks :one/-- name: Count-Tasks :one/'
    prints 'queries.sql:17:10: a name is made of letters, digits and _'
    edited queries.sql 's/CountTasks/AddTask/'
    prints 'queries.sql:17:10: the name AddTask is taken by queries.sql:12:10'
    edited queries.sql 's/^select count(\*) as n from task;//'
    prints 'CountTasks: there is no statement under this name'
    edited queries.sql 's/:many/:exec/'
    prints 'ListTasks: it is :exec, and called as :many'
    edited queries.sql 's/FinishTask :exec/FinishTask :one/'
    prints 'FinishTask: a :one returns rows, but this statement has none to return'
    edited queries.sql 's/where id = @id/where id = $2/'
    prints 'write parameters as @name, not as $1'
    edited queries.sql '1i\
select 1;'
    prints 'queries.sql:1:1: expected "-- name: SomeName :one" before the first statement'
    edited queries.sql 's/^rollback;/rollback; begin;/'
    prints 'Rollback: two statements under one name'
    edited queries.sql "s/^rollback;/rollback 'x;/"
    prints 'queries.sql:10:10: Rollback: unterminated quoted string'
    edited queries.sql 's/, input;/, input as inputt;/'
    prints 'AddTask: it returns no column "input"' 'main.c:'
}

@test "no queries.sql, no schema.sql, no tables" {
    lesson_copy
    mv queries.sql q
    run ./lesson
    one_line
    fails 1 'queries.sql: No such file or directory'
    mv q queries.sql
    mv schema.sql s
    run ./lesson
    one_line
    fails 1 'schema.sql: No such file or directory'
    sql "drop schema if exists $SCHEMA cascade"
    run ./lesson show
    fails 1 'relation "task" does not exist' 'if schema.sql has it: make reset makes the tables anew'
}

# ---- connecting ----

@test "a wrong URL, password or database is one line without the password, exit 1" {
    for url in postgres://nobody:s3cret@localhost:1/x 'postgres:///?host=/nowhere&password=s3cret' \
        postgres://nobody:s3cret@no.such.host.invalid/x 'postgres://a:s3cret%zz@localhost/x' \
        'postgres://a:s3cret@x@localhost/x' 'host=/nowhere password=s3cret' 'password=s3cret host' \
        postgres://u:s3cret/db postgres://u:s3cret:x@h/db \
        "${DATABASE_URL%user=*}user=nobody&password=s3cret" "${DATABASE_URL/\/postgres?/\/nodb?}&password=s3cret" \
        s3cret; do
        run env DATABASE_URL="$url" ./lesson
        one_line
        fails 1 'demo: '
        prints_not s3cret
        prints_not 'x@localhost'
    done
    run env DATABASE_URL= ./lesson
    one_line
    fails 1 'DATABASE_URL is not set'
}

@test "a role that may only create schemas in that database is enough" {
    sql "drop schema if exists $SCHEMA cascade"
    sql "drop database if exists only_create" || :
    sql "drop role if exists modest" || :
    sql "create role modest login"
    sql "create database only_create"
    sql "revoke all on database only_create from public; grant connect, create on database only_create to modest"
    modest=$(printf %s "$DATABASE_URL" | sed 's,/postgres?,/only_create?,; s/user=postgres/user=modest/')
    # The private cluster lets only its owner in, as postgres: open the door for this test.
    data=$(sql 'show data_directory')
    echo "local only_create modest trust" | cat - "$data/pg_hba.conf" >"$BATS_TMPDIR/hba"
    cat "$BATS_TMPDIR/hba" >"$data/pg_hba.conf"
    sql 'select pg_reload_conf()'
    until psql -XAtq "$modest" -c 'select 1' 2>/dev/null; do sleep 0.1; done
    run env DATABASE_URL="$modest" ./lesson
    succeeds
    run env DATABASE_URL="$modest" ./lesson
    succeeds
    run env DATABASE_URL="$modest" "$GUIDE/common/tools" race "$SCHEMA" race/for-update.race
    succeeds
}

@test "a schema of that name that is not ours is left alone" {
    sql "drop schema if exists $SCHEMA cascade; create schema $SCHEMA; create table $SCHEMA.mine ()"
    run ./lesson
    fails 1 "there is a schema $SCHEMA that is not ours" 'rename it or drop it'
    [ "$(sql "select to_regclass('$SCHEMA.mine')")" = mine ]
    sql "drop schema $SCHEMA cascade"
}

@test "a second demo of the same lesson says that one is running" {
    # Held as the first demo holds it: by a connection that lives.
    hold "select pg_advisory_lock(hashtext('$SCHEMA'))"
    run ./lesson
    fails 1 "$SCHEMA is in use: this lesson runs already" 'wait for the other make run'
    let_go
    run ./lesson
    succeeds
}

@test "an open transaction on the tables does not hang the demo for ever" {
    ./lesson >/dev/null
    hold "select count(*) from task"
    run ./lesson
    fails 1 "somebody is using the tables of $SCHEMA" 'stop its workers'
    let_go
}

# ---- output ----

@test "output into a pipe has no colours, and returns" {
    run sh -c './lesson | cat'
    succeeds
    prints_not "$(printf '\033')"
}

@test "colours on a terminal, and none with NO_COLOR" {
    command -v script >/dev/null || skip "it needs script(1)"
    script --version 2>/dev/null | grep -q util-linux || skip "it needs the script(1) of util-linux"
    run script -qec './lesson show; ./lesson' /dev/null </dev/null
    prints "$(printf '\033[')"
    run env NO_COLOR=1 script -qec ./lesson /dev/null </dev/null
    prints_not "$(printf '\033[')"
}

# ---- races ----

@test "a race that goes otherwise than its file says is an error that says where" {
    lesson_copy
    sed 's/| -- waits/| -- 1/' race/for-update.race >race/wrong.race
    run tools race "$SCHEMA" race/wrong.race
    fails 1 '-- waits   <== NOT "1"' 'it did not go as race/wrong.race says'
    sed '/^commit/d' race/for-update.race >race/wrong.race
    run tools race "$SCHEMA" race/wrong.race
    fails 1 'cannot go on, it still waits for the other side'
    sed 's/^execute taketask; /execute taketask  /' race/for-update.race >race/wrong.race
    run tools race "$SCHEMA" race/wrong.race
    fails 1 "left has a statement without its ';' before \"-- 1\""
    grep -v -e '-- ' race/for-update.race >race/wrong.race
    run tools race "$SCHEMA" race/wrong.race
    fails 1 'expects nothing: say what must happen'
    sed 's/| -- waits/| -- w*ts/; s/^-- 1/-- */' race/for-update.race >race/wild.race
    run tools race "$SCHEMA" race/wild.race
    succeeds
    sed 's/^where id = 1;  /where idd = 1; /' race/for-update.race >race/wrong.race
    run tools race "$SCHEMA" race/wrong.race
    fails 1 'left: nothing here expects this error: column "idd" does not exist'
    sed 's/| -- 2/| --3/' race/for-update.race >race/wrong.race
    run tools race "$SCHEMA" race/wrong.race
    fails 1 '-- 2   <== NOT "3"'
    sed 's/^insert/insertt/' race/for-update.race >race/wrong.race
    run tools race "$SCHEMA" race/wrong.race
    fails 1 'set-up: ERROR:  syntax error at or near "insertt"'
}

# ---- make and the set-up ----

@test "LESSON= inside a lesson does not touch another lesson's tables" {
    ./lesson >/dev/null
    cd "$GUIDE/lessons/02-simple-task-queue"
    run make -s reset LESSON=01
    succeeds
    prints 'lesson_02 is made anew'
    cd "$GUIDE/lessons/$LESSON"
}

@test "make env prints what the shell can evaluate, also for a Postgres of yours" {
    run env DATABASE_URL="host=x password='a b'" make -s env
    succeeds
    (eval "$output")
    run env -u DATABASE_URL make -s env
    succeeds
    [ "$(eval "$output" && echo "$DATABASE_URL")" = "$DATABASE_URL" ]
}

@test "make db-stop and db-destroy leave a Postgres of yours alone, and say so" {
    for target in db-start db-stop db-destroy; do
        run env DATABASE_URL=postgres://me:s3cret@h/db YES=1 make -s $target
        fails 2 'DATABASE_URL is set.' 'yours'
        prints_not s3cret
    done
}

@test "make alone is make help, at the top and in a lesson" {
    run make -s
    succeeds
    prints 'make run' 'make break' 'make race' 'make psql'
    cd "$GUIDE"
    run make -s
    succeeds
    prints 'make run' 'make test' 'make doctor' 'make db-stop'
    # What exists at both levels is described in the same words, but for the top's LESSON.
    for target in clean; do
        diff <(sed -n "s/^$target:.*# //p" Makefile) <(sed -n "s/^$target:.*# //p" common/lesson.mk)
    done
}

@test "the front page's commands work, pasted in order, and its links lead somewhere" {
    cd "$GUIDE"
    run sh common/test/readme excerpts README.md
    succeeds
    run sh common/test/readme excerpts CONTRIBUTING.md
    succeeds
    run sh common/test/readme paste README.md
    succeeds
    cd "lessons/$LESSON"
}

@test "make race, make break and make run say what is wrong" {
    run make -s race R=nothing
    fails 2 'make race R=name, with one of: '
    run make -s break
    fails 2 'make break B=name, with one of: '
    cd "$GUIDE"
    run make -s run LESSON=99
    fails 2 'There is no lesson 99'
}

@test "with everything in place the look at the tools prints nothing" {
    run sh "$GUIDE/common/setup.sh" run
    succeeds
    [ -z "$output" ]
    run sh "$GUIDE/common/setup.sh" test
    succeeds
    [ -z "$output" ]
}

@test "make doctor prints a table and which Postgres would be used" {
    cd "$GUIDE"
    run make -s doctor
    succeeds
    prints cc libpq cjson bats DATABASE_URL
}

@test "the private Postgres is private, durable, and keeps its data" {
    data=$(sql 'show data_directory')
    [ "$(sql 'show listen_addresses')" = "" ]
    [ "$(sql 'show fsync'),$(sql 'show synchronous_commit'),$(sql 'show full_page_writes')" = on,on,on ]
    [ -n "$(find "$data" -prune -perm 0700)" ]
    [ -n "$(find "$(sql 'show unix_socket_directories')" -prune -perm 0700)" ]
    [ -z "$(find "$data/.." -name '.s.PGSQL*' -perm -001)" ]
}

@test "the page on how this is proven: its commands work, and its table names every broken version" {
    cd "$GUIDE/common/test"
    run sh readme excerpts README.md
    succeeds
    cd "$GUIDE"
    run sh common/test/readme paste common/test/README.md
    succeeds
    diff <(grep -E '^\| \[|^\| what is' common/test/README.md) <(sh common/test/generate table | grep -v '^| ---')
    cd "lessons/$LESSON"
}

@test "make bench, make growth and make cost come to their end, and draw their pictures" {
    command -v pgbench >/dev/null || skip "it needs pgbench"
    cd "$GUIDE"
    run env QUICK=1 LESSONS=07 make -s bench
    succeeds
    prints '| select 1, 1 client, /s |' '| what | pgbench | 07 |' '| durable steps, 16 slots, /s |' '| pick-up on an idle worker, median, ms |'
    is_xml bench.svg
    run env QUICK=1 make -s growth
    succeeds
    prints '| all of these |' '| the 10th tenth |'
    is_xml growth.svg
    run make -s cost LESSON=07
    succeeds
    prints '| RecordEvent |' '| steps {"steps": 10} |'
    prints_not ERROR
    cd common/bench
    run sh ../test/readme excerpts README.md
    succeeds
    for picture in bench growth; do is_xml $picture.svg; done
    cd "$GUIDE/lessons/$LESSON"
}

is_xml() {
    [ "$(psql -XAtq -v text="$(cat "$1")" "$DATABASE_URL" <<<"select xml_is_well_formed_document(:'text')")" = t ]
}

@test "make loc counts what the front page says, and make where shows where a function changes" {
    cd "$GUIDE"
    run make -s loc
    succeeds
    grep -qF "${lines[-1]}" README.md
    for row in "${lines[@]:2:7}"; do
        read -r _ lesson _ engine _ demo _ schema _ queries _ <<<"$row"
        grep -qE "^\\| \\[$lesson .* \\| $engine \\| $((schema + queries)) \\|" README.md || { echo "README.md has not: $row"; return 1; }
    done
    run make -s where NAME=claim_task
    succeeds
    prints '02: here it is new' '03: it differs' '07: the same'
    run make -s where NAME=nothing
    fails 2 'No lesson has "nothing".'
    cd "$GUIDE/lessons/$LESSON"
}

# ---- security ----

@test "another user of this machine is not let in" {
    [ "$(id -u)" -eq 0 ] || skip "only root can be somebody else"
    data=$(sql 'show data_directory')
    somebody() { su -s /bin/sh nobody -c "$1"; }
    run somebody "psql -XAt '$DATABASE_URL' -c \"select 'let ' || 'in'\""
    [ "$status" -ne 0 ]
    prints_not 'let in'
    grep -E 'Permission denied|Peer authentication failed' <<<"$output"
    for file in "$data/PG_VERSION" "$HARDWAY_STATE/log" "$data/pg_hba.conf"; do
        run somebody "cat '$file'"
        fails 1 'Permission denied'
    done
    [ "$(sql "select count(*) from pg_hba_file_rules where auth_method not in ('peer', 'reject') and not 'only_create' = any (database)")" -eq 0 ]
    [ -z "$(find "$data" "$HARDWAY_STATE/log" -perm /077 -print -quit)" ]
}

@test "a password in DATABASE_URL is in no list of processes and in no log" {
    fresh
    export DATABASE_URL="$DATABASE_URL&password=s3cret"
    nobody_shows_it() { ! ps axww -o args= | grep -F s3cret | grep -vF grep; }
    mkfifo "$BATS_TMPDIR/typed"
    "$GUIDE/common/tools" psql "$SCHEMA" <"$BATS_TMPDIR/typed" >"$BATS_TMPDIR/psql" 2>&1 3>&- &
    exec 9>"$BATS_TMPDIR/typed"
    echo "select 'it ' || 'works', current_schema;" >&9
    until grep -q 'it works' "$BATS_TMPDIR/psql"; do sleep 0.05; done
    nobody_shows_it
    exec 9>&-
    wait
    cd "$GUIDE/lessons/02-simple-task-queue"
    "$GUIDE/common/tools" reset lesson_02
    start ./lesson worker
    PGOPTIONS='-c search_path=lesson_02' psql -XAtq "$DATABASE_URL" -c "insert into task (name, input) values ('no_such', 'null')"
    wait_until_said no_such
    nobody_shows_it
    stop
    run grep -rF s3cret "$HARDWAY_STATE/log" "$BATS_TMPDIR/said"
    [ "$status" -eq 1 ]
    cd "$GUIDE/lessons/$LESSON"
}

@test "no lesson assembles SQL: what runs stands in queries.sql" {
    if grep -nE 'PQ(exec|send|prepare)' "$GUIDE"/lessons/0[2-9]*/main.c; then return 1; fi
    if grep -nEi '"(select|insert|update|delete|with|drop|create|alter|truncate) ' "$GUIDE"/lessons/0[2-9]*/main.c; then return 1; fi
}

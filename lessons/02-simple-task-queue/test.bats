load ../../common/test/helpers

# The reason for this lesson: a task that kills its process does not take the worker along

@test "the demo ends well, and its rows prove it" {    # only here
    run ./lesson
    succeeds
    prints 'All of it came true' 'A1 rolled back: 0 purchase, 0 task' '59 letters to 59 people' 'a letter to nobody'
    [ "$(sql "select count(*), count(distinct worker) from task where status = 'completed'")" = '60|4' ]
}

@test "two claims at the same moment get two tasks" {
    play claim
}

@test "a claim does not wait for a row that somebody has locked" {
    fresh
    for _ in 1 2 3; do ./lesson submit noop; done
    hold 'select from task where id = 1 for update'
    run env DATABASE_URL="$DATABASE_URL&options=-c%20lock_timeout%3D5000" ./lesson drain
    succeeds
    [ "$(sql "select string_agg(id::text, ' ' order by id) from task where status = 'completed'")" = '2 3' ]
    let_go
    ./lesson drain
    [ "$(sql "select count(*) from task where status = 'completed'")" -eq 3 ]
}

@test "a purchase and its task exist both or neither" {    # only here
    run ./lesson
    prints_not 'this did not come true: a purchase and its task exist both or neither'
    succeeds
}

@test "the most urgent task is claimed first, and of these the oldest" {
    fresh
    for priority in 0 5 -1 5; do ./lesson submit noop --priority $priority; done
    ./lesson drain
    order=$(sql "select string_agg(id::text, ' ' order by started_at) from task")
    [ "$order" = '2 4 1 3' ] || { echo "they ran in the order $order"; return 1; }
}

@test "a task whose function nobody registered fails and says so" {
    fresh
    sql "insert into task (name, input) values ('no_such', 'null')"
    ./lesson drain
    [ "$(sql 'select status, error from task')" = 'failed|this worker has no function "no_such"' ]
}

@test "an insert that names only name and input makes a task that runs" {
    fresh
    sql "insert into task (name, input) values ('noop', '{}')"
    ./lesson drain
    [ "$(sql 'select status, output from task')" = 'completed|null' ]
}

@test "input that was put in by hand and is no good fails its task" {
    fresh
    sql "insert into task (name, input) values ('noop', '{\"n\": 1e400}'), ('noop', '1')"
    ./lesson drain
    [ "$(sql "select status, left(error, 34) from task where id = 1")" = 'failed|its input is no good: $.n: 1000000' ]
    [ "$(sql "select status from task where id = 2")" = completed ]
}

@test "a task that kills its process does not take the worker along" {    # only here
    fresh
    start ./lesson worker
    ./lesson submit crash '{"signal": 11}'
    ./lesson submit crash
    ./lesson submit noop
    wait_until "select status = 'completed' from task where id = 3"
    kill -0 "$STARTED"
    wait_until_said 'died of signal 9'
    [ "$(sql "select count(*) from task where name = 'crash' and status = 'running'")" -eq 2 ]
    stop
    [ "$(sql "select count(*) from pg_stat_activity where application_name = '$SCHEMA'")" -eq 0 ]
}

@test "a worker leaves the tasks of other queues alone" {
    fresh
    ./lesson submit noop --queue other
    ./lesson submit noop
    ./lesson drain
    [ "$(sql 'select id, status from task order by id')" = $'1|queued\n2|completed' ]
    ./lesson drain --queue other
    [ "$(sql "select count(*) from task where status = 'completed'")" -eq 2 ]
}

@test "submit prints the id, and the input comes back as it was" {
    fresh
    run ./lesson submit noop '{"b": [1, "é"], "a": 0.30000000000000004}' --priority 3 --queue q
    succeeds
    [ "$output" = 1 ]
    [ "$(sql 'select queue, name, input, priority, status from task')" = 'q|noop|{"a": 0.30000000000000004, "b": [1, "é"]}|3|queued' ]
}

@test "bad input to submit: exit 2, one line, and nothing enqueued" {
    fresh
    refused() { local says=$1; shift; run ./lesson submit "$@"; one_line; fails 2 "$says"; }
    refused 'submit needs more. Usage: submit NAME [JSON]'
    refused 'there is no function "no_such" (there are noop sleep crash ' no_such
    refused "JSON: \$: it ends where ',' or '}' should be; nothing was enqueued" noop '{"a": 1'
    refused 'JSON: $.a: \u0000 cannot be stored in Postgres' noop '{"a": "\u0000"}'
    refused 'JSON: $.a: 9007199254740993 is not within 2^53' noop '{"a": 9007199254740993}'
    refused 'larger than 1048576 bytes' --file "$BATS_TMPDIR/large" noop <<<"$(printf '"%01048577d"\n' 0 >"$BATS_TMPDIR/large")"
    refused '--priority takes a whole number' noop --priority high
    refused 'submit does not know --prio' noop --prio 1
    refused 'JSON or --file, not both' noop '{}' --file x
    refused 'no_file: No such file or directory' noop --file no_file
    [ "$(sql 'select count(*) from task')" -eq 0 ]
}

@test "hostile texts as input: back unchanged, or refused with a reason and nothing enqueued" {
    fresh
    ${CC:-cc} -std=gnu17 "$GUIDE"/common/test/json_test.c "$GUIDE"/common/{json,memory,cli}.c -o "$BATS_TMPDIR/json_test" -lcjson -lm
    tried=0 good=0
    while IFS= read -r -d '' text && IFS= read -r -d '' kind && IFS= read -r -d '' what; do
        run ./lesson submit noop "$text"
        if [ "$kind" = good ]; then
            good=$((good + 1))
            succeeds
            [ "$(sql "select input = '${what//\'/\'\'}'::jsonb from task where id = $output")" = t ] || { echo "changed: $text"; return 1; }
        else
            one_line
            fails 2 "${what//'$: '/}" 'nothing was enqueued'
        fi
        tried=$((tried + 1))
    done < <("$BATS_TMPDIR/json_test" corpus)
    [ "$(sql 'select count(*) from task')" -eq "$good" ]
    [ "$tried" -gt 80 ]
    tally "$tried" 'hostile texts submitted'
}

@test "names are values, whatever is in them" {
    fresh
    for name in "'; drop table task; --" '$1' '@queue' '%s%n' '../../etc/passwd' "$(printf 'a\nb')" 'é"\' "$(printf '%02000d' 0)"; do
        run ./lesson submit "$name"
        fails 2 'nothing was enqueued'
        id=$(./lesson submit noop '"x"' --queue "$name")
        ./lesson drain --queue "$name" >/dev/null
        quoted=${name//\'/\'\'}
        [ "$(sql "select queue = '$quoted', status from task where id = $id")" = 't|completed' ]
        sql "insert into task (name, input) values ('$quoted', '1')"
        ./lesson drain >/dev/null
        [ "$(sql "select error from task where name = '$quoted'")" = "this worker has no function \"$name\"" ]
        tried=$((${tried:-0} + 1))
    done
    tally "$tried" 'hostile names'
}

@test "a bad line 700 of a file names its line, and nothing is enqueued" {
    fresh
    for i in $(seq 1000); do echo "{\"i\": $i}"; done >"$BATS_TMPDIR/good.jsonl"
    sed '700s/}/,}/' "$BATS_TMPDIR/good.jsonl" >"$BATS_TMPDIR/bad.jsonl"
    run ./lesson submit noop --file "$BATS_TMPDIR/bad.jsonl"
    one_line
    fails 2 'bad.jsonl:700: $: ' 'nothing was enqueued'
    sed '700s/}/\x00}/' "$BATS_TMPDIR/good.jsonl" >"$BATS_TMPDIR/bad.jsonl"
    run ./lesson submit noop --file "$BATS_TMPDIR/bad.jsonl"
    fails 2 'bad.jsonl:700: a NUL byte'
    [ "$(sql 'select count(*) from task')" -eq 0 ]
    run ./lesson submit noop --file "$BATS_TMPDIR/good.jsonl"
    succeeds
    [ "$(sql "select count(*), sum((input ->> 'i')::int) from task")" = '1000|500500' ]
    ./lesson drain >/dev/null
    [ "$(sql "select count(*) from task where status = 'completed'")" -eq 1000 ]
}

@test "a file of tasks is enqueued whole or not at all, also when submit is killed" {
    fresh
    printf '%s\n' 1 2 3 >"$BATS_TMPDIR/three.jsonl"
    hold 'lock table task in share mode'
    ./lesson submit noop --file "$BATS_TMPDIR/three.jsonl" 3>&- &
    wait_until "select count(*) = 1 from pg_stat_activity where application_name = '$SCHEMA' and wait_event_type = 'Lock'"
    kill -KILL $!
    let_go
    wait_until "select count(*) = 0 from pg_stat_activity where application_name = '$SCHEMA'"
    [ "$(sql 'select count(*) from task')" -eq 0 ]
}

@test "show lists the tasks, shows one, and knows no other" {    # only here
    fresh
    ./lesson submit noop '{"x": 1}'
    ./lesson drain
    run ./lesson show
    succeeds
    prints 'id  queue' '{"x": 1}' completed
    run ./lesson show 1
    succeeds
    prints 'created_at' '{"x": 1}'
    run ./lesson show 2
    one_line
    fails 1 'there is no task 2'
    run ./lesson show x
    one_line
    fails 2 'ID takes a whole number'
}

@test "overload: tasks are left running, and no process is" {    # only here
    run ./lesson overload
    succeeds
    prints 'too many clients' 'Nothing runs any more'
    [ "$(sql "select count(*) from pg_stat_activity where application_name = '$SCHEMA'")" -eq 0 ]
}

@test "drain dies at a crash point, and its task stays running" {
    fresh
    ./lesson submit noop
    run env CRASH_AT=2 ./lesson drain
    fails 137 'SIGKILL before CompleteTask'
    [ "$(sql 'select status from task')" = running ]
}

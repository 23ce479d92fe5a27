load ../../common/test/helpers

# The reason for this lesson: a step that is in the log is not called again

ORDER='{"order": "A1", "amount": 4500, "bounces": 1}'
LOG='select seq, kind, name, input, result, error from event order by seq'

QUICK='env POLL_MS=50 TICK_MS=100 LEASE_MS=1000 BACKOFF_MS=20'

# A task with a log of so many events, whose last attempt was lost before it was completed.
lost_task() { # lost_task ID STEPS
    sql "insert into task (id, name, input, attempt, started_at, worker)
         values ($1, 'steps', '{\"steps\": $2}', 1, now(), 'gone')"
    sql "insert into event (task_id, seq, kind, name, input, result, attempt)
         select $1, n, 'step', 'noop', n::text::json, 'null', 1 from generate_series(0, $2 - 1) n"
}

# The name of the n-th statement that a drain sends.
statement() { CRASH_AT=$1 ./lesson drain | sed -n 's/.*CRASH_AT: SIGKILL before //p'; }

@test "the demo ends well, and its rows prove it" {    # only here
    run ./lesson
    succeeds
    prints 'All of it came true' 'event 0, step charge, is in the log' 'CRASH_AT: SIGKILL before RecordEvent'
    [ "$(sql 'select order_id, tries from payment order by 1')" = 'A1|1
A2|2' ]
}

@test "a step that is in the log is not called again" {    # only here
    fresh
    ./lesson submit process_order '{"order": "A1", "amount": 4500, "crash": 1}'
    start $QUICK ./lesson worker --slots 1
    wait_until "select status = 'completed' from task"
    tries=$(sql 'select sum(tries) from payment')
    [ "$tries" -eq 1 ] || { echo "charged $tries times"; return 1; }
    [ "$(sql 'select name, attempt from event order by seq')" = 'charge|1
email|2' ]
}

@test "killed or frozen at each statement, an order ends like an undisturbed one" {    # only here
    export BACKOFF_MS=1
    crash_everywhere process_order "$ORDER" "$LOG" \
        'select status, output, error from task' \
        'select order_id, idempotency_key, amount, tries between 1 and 2 from payment'
}

@test "what an attempt has lost, it cannot add to the log" {
    play record
}

@test "one task in two workers' hands: the log has one result for each step, and the loser says so" {
    fresh
    set -m
    ./lesson submit steps '{"steps": 3}'
    start env CRASH_AT=3:freeze $QUICK ./lesson worker --slots 1
    wait_until_said 'SIGSTOP before RecordEvent'
    kill -STOP -- "-$STARTED"       # the lookout as well: it would beat for a frozen slot
    sql "update task set wake_at = now() - interval '1 s'"
    $QUICK ./lesson drain
    [ "$(sql 'select status, attempt from task')" = 'completed|2' ]
    before=$(sql 'select task.*, event.* from task join event on id = task_id order by seq')
    kill -CONT -- "-$STARTED"
    wait_until_said 'the claim is lost, nothing was written'
    ./lesson submit noop
    wait_until "select status = 'completed' from task where id = 2"
    [ "$(sql 'select task.*, event.* from task join event on id = task_id where id = 1 order by seq')" = "$before" ]
    [ "$(sql 'select string_agg(attempt::text, $$ $$ order by seq) from event')" = '1 2 2' ]
}

@test "a step's own tries: it is called again before its error is recorded" {    # only here
    fresh
    export BACKOFF_MS=1
    ./lesson submit process_order '{"order": "A1", "amount": 1, "bounces": 2}'
    ./lesson submit process_order '{"order": "A2", "amount": 1, "bounces": 3}'
    ./lesson drain
    [ "$(sql "select status, attempt, error from task order by id")" = 'completed|1|
failed|1|email: the mail server does not answer' ]
    [ "$(sql "select result, error from event where name = 'email' order by task_id")" = '"sent"|
|the mail server does not answer' ]
}

@test "an error that no other try will mend is recorded at once, and comes back with the same text" {    # only here
    fresh
    ./lesson submit process_order '{"order": "A1", "amount": 999999}'
    ./lesson drain
    log=$(sql 'select * from event')
    ./lesson retry 1
    ./lesson drain
    [ "$(sql 'select status, attempt, error from task')" = 'failed|2|payment: the card is declined' ]
    [ "$(sql 'select * from event')" = "$log" ]
}

@test "replay empties the log, and the keys stay the same" {    # only here
    fresh
    ./lesson submit process_order "$ORDER"
    BACKOFF_MS=1 ./lesson drain
    ./lesson replay 1
    [ "$(sql 'select count(*) from event')" -eq 0 ]
    BACKOFF_MS=1 ./lesson drain
    [ "$(sql 'select status, attempt from task')" = 'completed|2' ]
    [ "$(sql 'select idempotency_key, tries from payment')" = '1/0/charge|2' ]
    ./lesson submit noop --delay-ms 600000
    run ./lesson replay 2
    one_line
    fails 1 'task 2 is waiting and cannot be replayed'
}

@test "a step that calls a step has failed, and says so" {    # only here
    lesson_copy
    sed -i.was 's/    if (!quiet) say("sends the mail.*/    step(run, "inner", noop, NULL);/' main.c
    make -s build
    fresh
    ./lesson submit process_order "$ORDER"
    BACKOFF_MS=1 ./lesson drain
    [ "$(sql 'select status, error from task')" = "failed|email: it calls step inner: only a task's function can" ]
}

@test "a result that JSON cannot carry is the step's error" {    # only here
    lesson_copy
    sed -i.was 's/return cJSON_CreateString("sent");/return cJSON_CreateNumber(1e300);/' main.c
    make -s build
    fresh
    ./lesson submit process_order "$ORDER"
    BACKOFF_MS=1 ./lesson drain
    state=$(sql 'select status, attempt, error from task')
    [ "$state" = 'failed|1|email: its output is no good: $: 1e+300 is not within 2^53: pass it as a string' ] || { echo "$state"; return 1; }
}

# A step whose result has its keys in another order than the log will have them.
@test "the first run sees what a replay will see" {
    lesson_copy
    sed -i.was -e 's/^static cJSON \*steps(.*/static cJSON *pair(Run *run, const cJSON *input)\
{\
    (void)run, (void)input;\
    cJSON *object = cJSON_CreateObject();\
    cJSON_AddNumberToObject(object, "z", 1);\
    cJSON_AddNumberToObject(object, "a", 2);\
    return object;\
}\
&/' -e 's/.*if (!step(run, "noop", noop.*/        return cJSON_CreateString(step(run, "pair", pair, NULL)->child->string);/' main.c
    make -s build
    fresh
    ./lesson submit steps '{"steps": 1}'
    ./lesson drain
    first=$(sql 'select output from task')
    [ "$first" = '"a"' ] || { echo "the first run was told $first"; return 1; }
    sql "update task set status = 'queued', output = null, finished_at = null"
    ./lesson drain
    [ "$(sql 'select output, attempt from task')" = '"a"|2' ]
}

@test "a first attempt loads no log, and another one loads it in one statement, however long it is" {
    fresh
    ./lesson submit steps '{"steps": 2}'
    [ "$(statement 2)" = RecordEvent ]
    fresh
    lost_task 1 5000
    [ "$(statement 2)" = LoadLog ]
    sql "update task set status = 'queued', claim = null, wake_at = null, attempt = 1"
    [ "$(statement 3)" = CompleteTask ]
    sql "update task set wake_at = now()"
    ./lesson drain
    [ "$(sql 'select status, output, (select count(*) from event) from task')" = 'completed|5000|5000' ]
}

@test "a log with a hole is not replayed" {    # only here
    fresh
    lost_task 1 3
    sql 'delete from event where seq = 1'
    run ./lesson drain
    fails 1 'task 1: its log has no event 1'
    sql 'delete from event'
}

@test "no deadlock was seen in all this" {    # only here
    no_deadlock
}

@test "trace draws a task: who had it, what he added and what he found, and where one was lost" {
    fresh
    ./lesson submit process_order '{"order": "<A&1>", "amount": 1, "crash": 1}'
    run ./lesson drain
    fails 137
    sql 'update task set wake_at = now() where id = 1'
    ./lesson drain
    make -s trace ID=1
    picture=$(cat trace-1.svg)
    rm trace-1.svg
    for text in 'attempt 1' 'attempt 2' 'class="crash"' 'found in the log: event 0' '&lt;A&amp;1'; do
        case $picture in *"$text"*) ;; *) echo "not in the picture: $text"; return 1 ;; esac
    done
    [ "$(psql -XAtq -v picture="$picture" "$DATABASE_URL" <<<"select xml_is_well_formed_document(:'picture')")" = t ]
    # An attempt that was lost before it wrote anything.
    id=$(./lesson submit process_order '{"order": "A2", "amount": 1}')
    run env CRASH_AT=3 ./lesson drain
    fails 137
    sql "update task set wake_at = now() where id = $id"
    ./lesson drain
    make -s trace ID="$id"
    picture=$(cat "trace-$id.svg")
    rm "trace-$id.svg"
    case $picture in *'class="crash"'*) ;; *) echo 'not in the picture: the lost attempt'; return 1 ;; esac
    run make -s trace ID=99
    fails 2 'There is no task 99'
}

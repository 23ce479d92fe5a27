load ../../common/test/helpers

# The reason for this lesson: parents that wait take no slot

ORDER='{"order": "A1", "amount": 4500, "bounces": 1}'

QUICK='env POLL_MS=50 TICK_MS=100 LEASE_MS=1000 BACKOFF_MS=20'

# Which rows an undisturbed run must leave.  Ids are left out: a killed statement may have used one.
LOG='select coalesce(parent.name, task.name), seq, kind, log.name, log.input, log.result, log.error, open
     from log join task on task.id = task_id left join task parent on parent.id = task.parent_id
     order by task_id, seq'
TASKS='select name, input, status, output, error, parent_id is null, queue from task order by name, input::text'
PAYMENTS='select order_id, amount, tries between 1 and 2 from payment order by order_id'
BOOKINGS='select trip_id, what, state from booking order by trip_id, what'

open_tasks="select count(*) from task where status in ('queued', 'running', 'waiting')"
all_done="select count(*) = 0 from task where status in ('queued', 'running', 'waiting')"

# Counts how often a task is claimed.
count_claims() {
    sql 'create table claimed (id bigint);
         create function note_claim() returns trigger language plpgsql as $$ begin insert into claimed values (new.id); return null; end $$;
         create trigger note_claim after update on task for each row when (old.status <> $$running$$ and new.status = $$running$$) execute function note_claim()'
}

# The statement before which a drain with CRASH_AT=n is stopped.
kill_before() { # kill_before STATEMENT SETUP...: runs set-up and drain until n is found; prints n
    local n statement=$1
    shift
    for n in $(seq 60); do
        fresh
        "$@" >/dev/null
        CRASH_AT=$n ./lesson drain 2>&1 | grep -q "SIGKILL before $statement\$" || continue
        echo "$n"
        return
    done
    return 1
}

# Freezes a drain before its n-th statement.
freeze_at() { # freeze_at N
    die_at "$1:freeze"
    [ -e "/proc/$DRAIN" ] || kill -0 "$DRAIN"
}

@test "the demo ends well, and its rows prove it" {
    run ./lesson
    succeeds
    prints 'All of it came true' '21 orders with two children each, on one slot: 21 completed' 'no hotel is free; the flight is cancelled'
    [ "$(sql "select tries from payment where order_id = 'A1'")" -eq 1 ]
}

@test "parents that wait take no slot" {
    fresh
    for i in $(seq 100); do echo "{\"order\": \"O$i\", \"amount\": $i}"; done >"$BATS_TMPDIR/orders"
    ./lesson submit process_order --file "$BATS_TMPDIR/orders" >/dev/null
    start $QUICK ./lesson worker --slots 1
    wait_until "$all_done"
    [ "$(sql 'select name, status, count(*) from task group by 1, 2 order by 1')" = 'charge_payment|completed|100
process_order|completed|100
send_confirmation_email|completed|100' ]
    [ "$(sql 'select count(*), sum(tries) from payment')" = '100|100' ]
}

@test "a thousand children on eight slots: their parent is claimed at most five times" {
    fresh
    count_claims
    ./lesson submit fan_out '{"children": 1000}'
    start $QUICK ./lesson worker --slots 8
    wait_until "$all_done"
    claims=$(sql 'select count(*) from claimed where id = 1')
    echo "claimed $claims times"
    [ "$claims" -le 5 ]
    [ "$(sql 'select status, output, (select count(*) from claimed) from task where id = 1')" = "completed|1000|$((1000 + claims))" ]
}

@test "children that have children that have children" {
    fresh
    ./lesson submit fan_out '{"children": 3, "name": "fan_out", "input": {"children": 3, "name": "fan_out", "input": {"children": 3}}}'
    start $QUICK ./lesson worker --slots 4
    wait_until "$all_done"
    [ "$(sql 'select status, count(*) from task group by 1')" = 'completed|40' ]
}

@test "a task that waits costs nothing: it is in no index that a claim or a sweep reads" {
    fresh
    sizes() { sql "select pg_relation_size('task_queued'), pg_relation_size('task_alarm'), pg_relation_size('task_running')"; }
    ./lesson submit noop
    ./lesson drain
    before=$(sizes)
    sql "insert into task (name, status, wake_on, worker, started_at) select 'fan_out', 'waiting', 1, 'x', now() from generate_series(1, 10000)"
    [ "$(sizes)" = "$before" ]
    ./lesson submit noop
    ./lesson drain
    [ "$(sql "select count(*) from task where status = 'completed'")" -eq 2 ]
    fresh
}

@test "killed or frozen at each statement, an order with its children ends like an undisturbed one" {
    export BACKOFF_MS=1
    crash_everywhere process_order "$ORDER" "$TASKS" "$LOG" "$PAYMENTS"
}

@test "killed or frozen at each statement, a fan-out ends like an undisturbed one" {
    export BACKOFF_MS=1
    crash_everywhere fan_out '{"children": 3}' "$TASKS" "$LOG"
}

@test "killed or frozen at each statement, a saga ends like an undisturbed one" {
    export BACKOFF_MS=1
    crash_everywhere book_trip '{"trip": "T1", "fully_booked": "hotel"}' "$TASKS" "$LOG" "$BOOKINGS"
}

# Whatever it was doing, and whether it comes back or not: a cancel holds, no child is spawned any more, and
# none is left over.
@test "killed or frozen at each statement, and then cancelled, an order stays cancelled and spawns nothing more" {
    export BACKOFF_MS=1
    fresh
    no_back_off
    for how in '' :after :lost :freeze; do
        for n in $(seq 500); do
            begin process_order "$ORDER"
            die_at "$n$how" || break
            want=cancelled cancels=$((${cancels:-0} + 1))
            run ./lesson cancel 1
            [ "$status" -eq 0 ] || { fails 1 'task 1 is completed and cannot be cancelled'; want=completed cancels=$((cancels - 1)); }
            tasks=$(sql 'select count(*) from task')
            bad_if "$n$how" finish
            [ "$how" != :freeze ] || thaw "$n$how"
            bad_if "$n$how" same "$want|0|$tasks" "$(sql "select status, (select count(*) from task where $OPEN), (select count(*) from task) from task where id = 1")"
            bad_if "$n$how" same t "$(sql 'select count(*) <= 1 and coalesce(max(tries), 0) <= 2 from payment')"
            bad_if "$n$how" healthy
        done
        [ "$n" -gt 10 ]
        tally $((n - 1)) "crash points with a cancel behind them"
    done
    [ "${BAD:-0}" -eq 0 ] || { echo "bad points: $BAD"; return 1; }
    [ "$cancels" -gt 60 ] || { echo "only $cancels cancels"; return 1; }
}

# The statement is the README's.
@test "what is old is deleted with its log, but not from under a parent that waits" {
    local statement
    statement=$(sed -n '/^   with old as (/,/;$/p' README.md)
    [ -n "$statement" ]
    fresh
    ./lesson submit process_order '{"order": "A1", "amount": 4500}'
    ./lesson submit steps '{"steps": 2}'
    ./lesson drain
    [ "$(sql 'select count(*), (select count(*) from event) from task')" = '4|6' ]
    sql "update task set finished_at = now() - interval '31 days' where id > 1;
         update task set status = 'queued', output = null, finished_at = null where id = 1"
    sql "$statement"
    [ "$(sql 'select string_agg(id::text, $$ $$ order by id), (select count(*) from event where task_id = 2) from task')" = '1 3 4|0' ]
    ./lesson drain
    [ "$(sql 'select status from task where id = 1')" = completed ]
    sql "update task set finished_at = now() - interval '31 days'"
    sql "$statement"
    [ "$(sql 'select count(*), (select count(*) from event) from task')" = '0|0' ]
}

@test "the rules hold at every moment while parents and children come and go" {
    fresh
    for i in $(seq 60); do echo "{\"order\": \"O$i\", \"amount\": 1}"; done >"$BATS_TMPDIR/many"
    ./lesson submit process_order --file "$BATS_TMPDIR/many" >/dev/null
    for i in $(seq 30); do ./lesson submit fan_out '{"children": 5, "name": "fan_out", "input": {"children": 3}}' >/dev/null; done
    start $QUICK ./lesson worker --slots 4
    looks=0
    until [ "$looks" -ge 10 ] && [ "$(sql "$open_tasks")" -eq 0 ]; do
        [ "$looks" -ge 10 ] || [ "$(sql "$open_tasks")" -ge 30 ] || ./lesson submit process_order --file "$BATS_TMPDIR/many" >/dev/null
        healthy
        looks=$((looks + 1))
        [ "$looks" -ne 5 ] || for id in 61 62 63; do ./lesson cancel $id >/dev/null 2>&1 || :; done
    done
    stop
    tally "$looks" 'times all rules were checked while workers worked'
}

@test "a child that ends while its parent parks wakes it, in every order" {
    for race in parent-first child-first between; do
        play "$race"
    done
}

@test "a child that ends between its parent's look and its sleep is not overlooked" {
    submit_it() { ./lesson submit fan_out '{"children": 1}'; }
    n=$(kill_before ParkTask submit_it)
    fresh
    submit_it
    freeze_at "$n"
    ./lesson drain
    [ "$(sql 'select status from task where id = 2')" = completed ]
    kill -CONT "$DRAIN"
    wait "$DRAIN"
    state=$(sql 'select status, output from task where id = 1')
    [ "$state" = 'completed|1' ] || { echo "its parent is $state"; fresh; return 1; }
}

@test "a child that is about to end when its parent parks wakes it" {
    submit_it() { ./lesson submit sleep '{"ms": 1}'; }
    n=$(kill_before CompleteTask submit_it)
    fresh
    ./lesson submit fan_out '{"children": 1, "queue": "other"}'
    ./lesson drain
    [ "$(sql 'select status from task where id = 1')" = waiting ]
    CRASH_AT=$n:freeze ./lesson drain --queue other >"$BATS_TMPDIR/died" 2>&1 3>&- &
    DRAIN=$!
    until ps -o state= -p "$DRAIN" | grep -q T; do kill -0 "$DRAIN"; sleep 0.01; done
    [ "$(sql 'select status from task where id = 1')" = waiting ]
    kill -CONT "$DRAIN"
    wait "$DRAIN"
    [ "$(sql 'select status from task where id = 1')" = queued ]
    ./lesson drain
    [ "$(sql 'select status from task where id = 1')" = completed ]
}

@test "what a child was ended by, its parent is told" {
    fresh
    told() { # told ERROR CHILD: the parent's error, and its child's
        wait_until "$all_done"
        [ "$(sql "select error from task where parent_id is null order by id desc limit 1")" = "child 0: $1" ] ||
            { sql 'select * from task order by id desc limit 2'; return 1; }
    }
    start $QUICK ./lesson worker --slots 2
    ./lesson submit fan_out '{"children": 1, "name": "crash", "max_attempts": 1}'
    told 'its process died of signal 9'
    ./lesson submit fan_out '{"children": 1, "name": "sleep", "input": {"ms": 600000}, "max_attempts": 1, "timeout_ms": 100}'
    told 'it took longer than its timeout'
    ./lesson submit fan_out '{"children": 1, "name": "charge_payment", "input": {"amount": 1}}'
    told 'an order without a name'
    ./lesson submit fan_out '{"children": 1, "name": "no_such"}'
    told 'this worker has no function "no_such"'
    ./lesson submit fan_out '{"children": 1, "name": "sleep", "input": {"ms": 600000}}'
    wait_until "select count(*) = 1 from task where name = 'sleep' and status = 'running'"
    ./lesson cancel "$(sql 'select max(id) from task')"
    told 'cancelled'
    ./lesson submit fan_out '{"children": 1, "name": "sleep", "input": {"ms": 600000}}'
    wait_until "select count(*) = 1 from task where name = 'sleep' and status = 'running'"
    sql "delete from task where id = (select max(id) from task)"
    told 'its row is gone'
}

@test "a lost child whose attempts are used up wakes its parent" {
    fresh
    ./lesson submit fan_out '{"children": 2, "max_attempts": 1}'
    CRASH_AT=5 ./lesson drain || :      # before CompleteTask
    [ "$(sql "select status from task where id = 2")" = running ]
    sql "update task set wake_at = now() where status = 'running'"
    ./lesson drain
    [ "$(sql 'select status, error from task where id in (1, 2) order by id')" = 'failed|child 0: its worker was lost
failed|its worker was lost' ]
}

@test "children of a task that was cancelled or has failed are cancelled, and theirs; those of a completed one run on" {
    fresh
    ./lesson submit fan_out '{"children": 3, "queue": "nobody", "name": "fan_out", "input": {"children": 3, "queue": "nobody", "name": "sleep"}}'
    ./lesson drain
    CRASH_AT=3 ./lesson drain --queue nobody || :       # one of them has children by now, and runs
    [ "$(sql 'select count(*) from task')" -eq 7 ]
    ./lesson cancel 1
    start $QUICK ./lesson worker --slots 1
    wait_until "select count(*) = 0 from task where status in ('queued', 'waiting', 'running')" ||
        { sql 'select id, parent_id, status, wake_at from task'; return 1; }
    wait_until "select count(*) = 0 from task where wake_at is not null"
    [ "$(sql "select count(*) from task where error = 'its parent has ended'")" -eq 6 ]
    stop
    fresh
    lesson_copy
    sed -i.was 's/^    await_all(run);$/    return count == 2 ? cJSON_CreateTrue() : fail(run, "enough");/' main.c
    make -s build
    ./lesson submit fan_out '{"children": 2, "queue": "nobody"}'
    ./lesson submit fan_out '{"children": 3, "queue": "nobody"}'
    ./lesson drain
    [ "$(sql 'select parent_id, status, count(*) from task group by 1, 2 order by 1 nulls first, 2')" = '|completed|1
|failed|1
1|queued|2
2|cancelled|3' ]
    fresh
}

@test "a blocked child keeps its parent waiting, and show says so" {
    fresh
    ./lesson submit fan_out '{"children": 1, "name": "steps", "input": {"steps": 1}}'
    CRASH_AT=6 ./lesson drain || :      # before CompleteTask of the child, whose step is in its log
    [ "$(sql 'select task_id, kind from event order by 1')" = '1|spawn
2|step' ]
    sql "update task set input = '{\"steps\": 0}' where id = 2; update task set wake_at = now() where status = 'running'"
    ./lesson drain
    [ "$(sql 'select status from task order by id')" = 'waiting
blocked' ]
    run ./lesson show 1
    prints '1 more of its children (blocked: 2)'
    sql "update task set input = '{\"steps\": 1}' where id = 2"
    ./lesson retry 2
    ./lesson drain
    [ "$(sql 'select status from task order by id')" = 'completed
completed' ]
}

@test "replay makes new children, cancels the old ones that still run, and they wake nobody" {
    fresh
    ./lesson submit fan_out '{"children": 2, "name": "sleep", "input": {"ms": 1}, "queue": "other"}'
    ./lesson drain
    ./lesson cancel 1
    ./lesson replay 1
    [ "$(sql 'select id, parent_id, status from task order by id')" = '1||queued
2||cancelled
3||cancelled' ]
    ./lesson drain
    [ "$(sql 'select id, parent_id, status, wakeups from task order by id')" = '1||waiting|0
2||cancelled|0
3||cancelled|0
4|1|queued|0
5|1|queued|0' ]
    ./lesson drain --queue other
    ./lesson drain
    [ "$(sql 'select status, output from task where id = 1')" = 'completed|2' ]
}

@test "a replay has the keys of the run before, also in new children" {
    fresh
    ./lesson submit process_order "$ORDER"
    BACKOFF_MS=1 ./lesson drain
    until [ "$(sql "$open_tasks")" -eq 0 ]; do BACKOFF_MS=1 ./lesson drain; done
    ./lesson replay 1
    until [ "$(sql "$open_tasks")" -eq 0 ]; do BACKOFF_MS=1 ./lesson drain; done
    paid=$(sql 'select count(*) from payment')
    [ "$paid" -eq 1 ] || { echo "A1 was paid $paid times"; return 1; }
    [ "$(sql 'select idempotency_key, tries from payment')" = '1/0/charge_payment|2' ]
}

@test "a child is not replayed while its parent counts on it, nor a task that spawns meanwhile" {
    fresh
    ./lesson submit fan_out '{"children": 2, "name": "fan_out", "input": {"children": 0}}'
    CRASH_AT=6:after ./lesson drain || :
    [ "$(sql "select status from task order by id")" = 'waiting
completed
running' ]
    sql 'update task set wake_at = now() where id = 3'
    run ./lesson replay 2
    one_line
    fails 1 'task 2 is completed and cannot be replayed, or its parent still counts on it'
    ./lesson drain
    ./lesson replay 2
    ./lesson drain
    [ "$(sql 'select status, output from task where id = 1')" = 'completed|2' ]
}

@test "grandchildren are found, also when their parent was cancelled just before its own was replayed" {
    fresh
    ./lesson submit fan_out '{"children": 2, "name": "fan_out", "input": {"children": 2, "queue": "nobody"}}'
    ./lesson drain
    for id in 2 3 1; do ./lesson cancel $id; done
    ./lesson replay 1
    ./lesson cancel 1
    ./lesson drain
    [ "$(sql "$open_tasks")" -eq 0 ]
}

@test "a healthy task is not lost while the children of a thousand cancelled tasks are swept" {
    fresh
    start $QUICK ./lesson worker --slots 1
    ./lesson submit sleep '{"ms": 3000}'
    wait_until "select status = 'running' from task where id = 1"
    sql "insert into task (name, status, wake_on, worker, started_at) select 'fan_out', 'waiting', 1, 'x', now() from generate_series(1, 5000);
         insert into task (name, parent_id, queue) select 'noop', id, 'nobody' from task where name = 'fan_out';
         insert into event (task_id, seq, kind, name, input, child_id, attempt) select parent_id, 0, 'spawn', 'noop', 'null', id, 0 from task where parent_id is not null;
         update task set status = 'cancelled', error = 'x', finished_at = now() where name = 'fan_out'"
    wait_until "$all_done"
    [ "$(sql "select status, attempt from task where id = 1")" = 'completed|1' ]
    wait_until "select count(*) = 0 from task where wake_at is not null"
}

@test "retry goes on with the log, and a child is not retried behind its living parent's back" {
    fresh
    ./lesson submit fan_out '{"children": 2, "name": "charge_payment", "input": {"amount": 1}}'
    ./lesson drain
    [ "$(sql 'select status from task where id = 1')" = failed ]
    ./lesson retry 2
    sql "update task set input = '{\"order\": \"A1\", \"amount\": 1}' where id in (2, 3)"
    ./lesson retry 3
    ./lesson drain
    ./lesson retry 1
    ./lesson drain
    [ "$(sql 'select status, output, (select count(*) from task) from task where id = 1')" = 'completed|2|3' ]
    ./lesson submit fan_out '{"children": 2, "name": "charge_payment", "input": {"amount": 1}, "queue": "other"}'
    ./lesson drain
    CRASH_AT=3 ./lesson drain --queue other || :
    run ./lesson retry 5
    fails 1 'task 5 is failed and cannot be retried, or its parent still counts on it'
    sql "update task set wake_at = now() where status = 'running'"
    ./lesson drain --queue other
    ./lesson drain
}

@test "spawning or awaiting inside a step, or awaiting what is no child, blocks the task" {
    blocks() { # blocks MESSAGE SED_SCRIPT
        cd "$GUIDE/lessons/$LESSON" || return
        lesson_copy
        sed -i.was "$2" main.c
        make -s build
        fresh
        ./lesson submit process_order "$ORDER"
        BACKOFF_MS=1 ./lesson drain
        case $(sql 'select status, error from task where id = 1') in "blocked|$1"*) ;; *) sql 'select * from task'; return 1 ;; esac
    }
    blocks 'step fraud-check calls spawn noop: only a task' 's/    if (number_in(order, "amount") > 50000).*/    spawn(run, "noop", NULL);/'
    blocks 'step fraud-check awaits a child: only a task' 's/    if (number_in(order, "amount") > 50000).*/    await(run, 0);/'
    blocks 'it awaits event 7, which is no child' 's/    cJSON \*charge = await(run, .*/    cJSON *charge = await(run, 7);/'
}

@test "the kept logs go on with today's functions, and children are in them" {
    run make -s replay-check
    succeeds
    prints 'golden/order.json: process_order: fine, 4 events' 'golden/waiting.json: fan_out: fine, 2 events' 'golden/trip.json: book_trip: fine, 3 events'
}

@test "replay-check: a parent that waits is fine so far, and a task without a log is refused" {
    fresh
    ./lesson submit fan_out '{"children": 2, "queue": "nobody"}'
    ./lesson submit charge_payment '{"order": "A1", "amount": 1}'
    ./lesson drain
    ./lesson export 2 >"$BATS_TMPDIR/a.json"
    run ./lesson replay-check "$BATS_TMPDIR/a.json"
    fails 1 'it has no events, so there is nothing to check'
    sql "insert into event (task_id, seq, kind, name, input, result, attempt) values (1, 2, 'step', 'x', 'null', 'null', 1)"
    ./lesson export 1 >"$BATS_TMPDIR/a.json"
    run ./lesson replay-check "$BATS_TMPDIR/a.json"
    succeeds
    prints 'fan_out: waits at event 2 of 3'
}

@test "one task in two workers' hands: each child is created once, and the loser says so" {
    fresh
    ./lesson submit process_order "$ORDER"
    freeze_at 2
    sql "update task set wake_at = now() where status = 'running'"
    BACKOFF_MS=1 ./lesson drain
    until [ "$(sql "$open_tasks")" -eq 0 ]; do sleep 0.05; BACKOFF_MS=1 ./lesson drain; done
    kill -CONT "$DRAIN"
    wait "$DRAIN"
    grep -q 'task 1: the claim is lost, nothing was written' "$BATS_TMPDIR/died"
    [ "$(sql 'select count(*) from task')" -eq 3 ]
}

@test "a function that does something else than its log says is blocked" {
    fresh
    blocked() { # blocked WHY
        ./lesson drain
        case $(sql 'select status, error from task') in "blocked|$1"*) ;; *) sql 'select status, error from task'; echo "should be blocked: $1"; return 1 ;; esac
    }
    ./lesson submit steps '{"steps": 2}'
    ./lesson drain
    again="status = 'queued', output = null, finished_at = null, max_attempts = 99"
    sql "update event set name = 'other' where seq = 0; update task set $again"
    blocked 'event 0 of its log is step other, and now the function calls step noop'
    sql "update event set name = 'noop'; update task set $again, input = '{\"steps\": 1}'"
    blocked 'event 1 of its log is step noop, and the function has ended before it'
    sql "update task set input = '{\"steps\": 3}'"
    ./lesson retry 1
    ./lesson drain
    [ "$(sql 'select status, output, (select count(*) from event) from task')" = 'completed|3|3' ]
}

@test "a log of 5,000 events is loaded in one statement" {
    fresh
    sql "insert into task (name, input, attempt, started_at, worker) values ('steps', '{\"steps\": 5000}', 1, now(), 'gone')"
    sql "insert into event (task_id, seq, kind, name, input, result, attempt)
         select 1, n, 'step', 'noop', n::text::json, 'null', 1 from generate_series(0, 4999) n"
    run env CRASH_AT=3 ./lesson drain
    prints 'SIGKILL before CompleteTask'
    sql "update task set wake_at = now()"
    ./lesson drain
    [ "$(sql 'select status, output, (select count(*) from event) from task')" = 'completed|5000|5000' ]
}

# What must happen to each is decided by encode() alone, without the engine.
@test "hostile values: as a step's result and as a child's output they come back as they were, or are refused with a reason" {
    lesson_copy
    sed -i.was -e '/^\/\* ---- the demo ---- \*\/$/i\
#include "../../common/test/hostile.inc"' -e 's/^    {"noop", noop},$/&{"hostile", hostile}, {"in_step", in_step}, {"in_child", in_child},/' \
        -e 's/^        {"", "", demo, "the demo"},$/&{"hostile", "", list_hostile, ""},/' main.c
    make -s build
    fresh
    ./lesson hostile >"$BATS_TMPDIR/expected"
    values=$(wc -l <"$BATS_TMPDIR/expected")
    sql 'create table expected (n int, good bool, what text)'
    PGOPTIONS="-c search_path=$SCHEMA" psql -XAtq "$DATABASE_URL" -c '\copy expected from pstdin' <"$BATS_TMPDIR/expected"
    sql "insert into task (name, input) select name, jsonb_build_object('n', n) from expected, unnest(array['in_step', 'in_child']) name"
    finish
    sql "create view outcome as
         select n, good, what, task.name, task.status, task.output, task.error, event.result, event.error as event_error,
                child.output as child_output, child.error as child_error
         from expected join task on (input->>'n')::int = n and parent_id is null
         join event on task_id = task.id left join task child on child.parent_id = task.id"
    [ "$(sql 'select count(*) from outcome')" -eq $((2 * values)) ]
    wrong=$(sql "select n, name, status, left(error, 60), left(event_error, 60), what from outcome where case
        when good and name = 'in_step' then status = 'completed' and encode(convert_to(left(result::text, 500), 'UTF8'), 'hex') || ' ' || octet_length(result::text) = what and result::jsonb = output
        when good then status = 'completed' and child_output = output
        when name = 'in_step' then status = 'failed' and event_error = 'its output is no good: ' || what and error = event_error
        else status = 'failed' and child_error = 'its output is no good: ' || what and error = child_error end is not true")
    [ -z "$wrong" ] || { echo "$wrong"; return 1; }
    # What came back as a step's result and as a child's output is the same.
    [ "$(sql "select count(*) from outcome a join outcome b using (n) where a.good and a.output is distinct from b.output")" -eq 0 ]
    [ "$(sql 'select count(*) from expected where good')" -gt 20 ]
    [ "$(sql 'select count(*) from expected where not good')" -gt 20 ]
    # Twice: each is replayed from what was stored.
    sql "update task set status = 'queued', output = null, finished_at = null where parent_id is null and status = 'completed'"
    ./lesson drain >/dev/null
    [ "$(sql "select count(*) from outcome where good and status <> 'completed'")" -eq 0 ]
    tally $((2 * values)) 'hostile values returned by functions'
}

@test "a slot needs no more memory after 10,000 tasks than after a few hundred" {
    [ -r /proc/self/status ] || skip "it needs Linux's /proc"
    lesson_copy
    rm -f lesson
    make -s build SANITIZE= CFLAGS='-O2 -g'
    fresh
    for i in $(seq 300); do echo '{"children": 2}'; done >"$BATS_TMPDIR/some"
    for i in $(seq 3000); do echo '{"children": 2}'; done >"$BATS_TMPDIR/many"
    ./lesson submit fan_out --file "$BATS_TMPDIR/some" >/dev/null
    start $QUICK ./lesson worker --slots 1
    wait_until "$all_done"
    slot=$(sql "select split_part(split_part(worker, ':', 2), ' ', 1) from task where id = 1")
    rss() { awk '/^VmRSS/ { print $2 }' "/proc/$slot/status"; }
    before=$(rss)
    ./lesson submit fan_out --file "$BATS_TMPDIR/many" >/dev/null
    wait_until "$all_done"
    after=$(rss)
    echo "$before kB, then $after kB"
    [ "$after" -le $((before + before / 10)) ]
}

@test "make crash: a worker is killed in the middle of an order, and the other finishes it" {
    run make -s crash
    succeeds
    prints 'kill -9' 'process_order            completed' 'A1        1/0/charge_payment    4500      2'
}

@test "no deadlock was seen in all this" {
    no_deadlock
}

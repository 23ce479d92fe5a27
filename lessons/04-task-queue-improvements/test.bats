load ../../common/test/helpers

# The reason for this lesson: a worker is killed, and another one finishes its task

connections() { sql "select count(*) from pg_stat_activity where application_name = '$SCHEMA'"; }

# Alarms that ring soon.
QUICK='env POLL_MS=50 TICK_MS=100 LEASE_MS=1000'
export BACKOFF_MS=20

# Each is a process group of its own.
start_workers() { # start_workers COUNT SLOTS
    set -m
    WORKERS=
    for _ in $(seq "$1"); do
        (exec $QUICK ./lesson worker --slots "$2") >>"$BATS_TMPDIR/said" 2>&1 3>&- &
        WORKERS="$WORKERS $!"
    done
}

stop_workers() {
    for worker in $WORKERS; do kill "$worker" 2>/dev/null || :; done
    for worker in $WORKERS; do wait "$worker" 2>/dev/null || :; done
}

# A task with an effect, and one that fails, in the words of the lesson that is tested.
case $LESSON in
04*)
    PAY=pay PAID='task_id = id' MAIL=pay NO_ANSWER='the bank does not answer' NO_HOPE='the card is stolen'
    pay() { echo "{\"ms\": $1}"; }
    failing() { echo "{\"fail\": $1}"; }
    hopeless() { echo '{"for_good": true}'; }
    ;;
*)
    PAY=charge_payment PAID='idempotency_key = id::text' MAIL=send_confirmation_email
    NO_ANSWER='the mail server does not answer' NO_HOPE='an order without a name'
    pay() { echo "{\"order\": \"A1\", \"amount\": 1, \"ms\": $1}"; }
    failing() { echo "{\"order\": \"A1\", \"bounces\": $1}"; }
    hopeless() { echo '{}'; }
    ;;
esac

submit_pay() { # submit_pay MS [OPTION...]
    local input
    input=$(pay "$1")
    shift
    ./lesson submit $PAY "$input" "$@"
}

submit_many() { # submit_many COUNT MS
    for _ in $(seq "$1"); do pay "$2"; done >"$BATS_TMPDIR/many"
    ./lesson submit $PAY --file "$BATS_TMPDIR/many" >/dev/null
}

unfinished() { sql "select count(*) from task where status in ('queued', 'running', 'waiting')"; }

# Every task completed, each effect as often as it was attempted at most, and nothing left over.
nothing_is_lost() { # nothing_is_lost TASKS
    [ "$(sql 'select status, count(*) from task group by status')" = "completed|$1" ] || {
        sql 'select status, error, count(*) from task group by status, error'
        return 1
    }
    [ "$(sql "select count(*) from task left join payment on $PAID where tries is null or tries > attempt")" -eq 0 ]
}

@test "the demo ends well, and its rows prove it" {    # only here
    run ./lesson
    succeeds
    prints 'All of it came true' '12 payments, tried ' 'task 13 is failed after 5 of 5 attempts' \
        'task 17: the claim is lost, nothing was written'
}

@test "on a terminal the demo shows how far it is" {    # only here
    command -v script >/dev/null || skip "it needs script(1)"
    script --version 2>/dev/null | grep -q util-linux || skip "it needs the script(1) of util-linux"
    run env -u NO_COLOR TERM=xterm script -qec ./lesson /dev/null </dev/null
    prints 'tasks to do: 12' 'All of it came true'
}

@test "a worker is killed, and another one finishes its task" {
    fresh
    set -m
    ./lesson submit sleep '{"ms": 2000}'
    start env POLL_MS=50 TICK_MS=100 LEASE_MS=1000 ./lesson worker --slots 1
    wait_until "select status = 'running' from task"
    kill -KILL -- "-$STARTED"
    wait "$STARTED" || :
    start env POLL_MS=50 TICK_MS=100 LEASE_MS=1000 ./lesson worker --slots 1
    wait_until "select status = 'completed' from task"
    [ "$(sql 'select attempt from task')" -eq 2 ]
}

# A victim is frozen first, and spared if it holds no task: so each kill takes a task along,
# however fast the machine is; and more tasks come until ten were killed, however slow it is.
@test "ten workers, 5,000 tasks, and every 200 ms a worker is killed: nothing is lost" {
    fresh
    rm -f "$BATS_TMPDIR/said"
    submit_many 5000 20
    sql 'update task set max_attempts = 100'
    start_workers 10 2
    killed=0 tasks=5000
    until [ "$killed" -ge 10 ] && [ "$(unfinished)" -eq 0 ]; do
        sleep 0.2
        [ "$killed" -ge 10 ] || [ "$(unfinished)" -ge 100 ] || { submit_many 500 20; tasks=$((tasks + 500)); }
        victim=$(sql "select split_part(split_part(worker, ':', 2), ' ', 1) from task where status = 'running' order by random() limit 1")
        [ -n "$victim" ] || continue
        group=$(awk '{ print $5 }' "/proc/$victim/stat" 2>/dev/null) || continue
        case " $WORKERS " in *" $group "*) ;; *) continue ;; esac
        kill -STOP -- "-$group" 2>/dev/null || continue
        holds=$(sql "select count(*) from task where status = 'running' and worker like '%:$victim %'")
        [ "$holds" -gt 0 ] || { kill -CONT -- "-$group"; continue; }
        kill -KILL -- "-$group"
        killed=$((killed + 1))
        (exec $QUICK ./lesson worker --slots 2) >>"$BATS_TMPDIR/said" 2>&1 3>&- &
        WORKERS="$WORKERS $!"
    done
    stop_workers
    lost=$(sql 'select count(*) from task where attempt > 1')
    echo "killed $killed workers, $lost tasks were run again"
    [ "$lost" -ge 5 ]
    nothing_is_lost "$tasks"
    tally "$killed" 'workers killed under load'
}

@test "frozen past the lease and thawed, twenty times: the one who lost the claim says so and changes nothing" {
    fresh
    set -m
    QUICKER="$QUICK LEASE_MS=400"
    rounds=${FREEZE_ROUNDS:-20}
    for round in $(seq "$rounds"); do
        submit_pay 1000 >/dev/null
        start $QUICKER ./lesson worker --slots 1
        wait_until "select status = 'running' from task where id = $round"
        kill -STOP -- "-$STARTED"
        sql "update task set input = '$(pay 1)' where id = $round"
        (exec $QUICKER ./lesson worker --slots 1) >"$BATS_TMPDIR/other" 2>&1 3>&- &
        other=$!
        wait_until "select status = 'completed' from task where id = $round"
        kill "$other"
        wait "$other"
        before=$(sql "select task::text from task where id = $round")
        kill -CONT -- "-$STARTED"
        wait_until_said 'the claim is lost, nothing was written'
        [ "$(sql "select task::text from task where id = $round")" = "$before" ]
        stop
    done
    [ "$(sql "select count(*) from task where status = 'completed' and attempt = 2")" -eq "$rounds" ]
    tally "$rounds" 'workers frozen past their lease and thawed'
}

@test "a thawed slot takes up new work" {
    fresh
    set -m
    submit_pay 2000
    start $QUICK ./lesson worker --slots 1
    wait_until "select status = 'running' from task where id = 1"
    kill -STOP -- "-$STARTED"
    sql "update task set wake_at = now() - interval '1 s'"
    $QUICK ./lesson drain
    [ "$(sql 'select status from task')" = completed ]
    kill -CONT -- "-$STARTED"
    wait_until_said 'the claim is lost, nothing was written'
    ./lesson submit noop
    wait_until "select status = 'completed' from task where id = 2"
}

@test "a write by whoever has lost the claim changes nothing" {
    play fence
}

@test "a task that takes longer than its lease is not lost while its worker lives" {
    fresh
    submit_pay 3500
    start $QUICK ./lesson worker --slots 1
    wait_until "select status in ('completed', 'failed') from task"
    attempts=$(sql 'select attempt from task')
    [ "$attempts" -eq 1 ] || { echo "it took $attempts attempts"; return 1; }
}

@test "a task that kills its process each time is given up" {
    fresh
    sql "insert into task (name, input, max_attempts) values ('crash', 'null', 3)"
    ./lesson submit noop
    start $QUICK ./lesson worker --slots 2
    until [ "$(sql 'select status from task where id = 1')" = failed ] || [ "$(grep -c 'died of signal 9' "$BATS_TMPDIR/said")" -gt 8 ]; do
        sleep 0.1
    done
    state=$(sql 'select status, attempt, error from task where id = 1')
    [ "$state" = 'failed|3|its process died of signal 9' ] || { echo "poison is not given up: $state"; return 1; }
    wait_until "select status = 'completed' from task where id = 2"
}

@test "a failure is tried again later, up to max_attempts, and not at all if that makes no sense" {
    fresh
    ./lesson submit $MAIL "$(failing 2)"
    ./lesson submit $MAIL "$(failing 99)"
    ./lesson submit $PAY "$(hopeless)"
    start $QUICK ./lesson worker --slots 3
    wait_until "select count(*) = 0 from task where status in ('queued', 'running', 'waiting')"
    [ "$(sql 'select status, attempt, error from task order by id')" = "completed|3|
failed|5|$NO_ANSWER
failed|1|$NO_HOPE" ]
    # Each back-off is between nothing and 2^(attempt - 1) times the first, and a minute at most.
    [ "$(sql "select bool_and(back_off(a, 1000) between interval '0' and least(2 ^ (a - 1), 60) * interval '1 s') from generate_series(1, 500) a")" = t ]
    [ "$(sql "select count(distinct back_off(4, 1000)) > 90 from generate_series(1, 100)")" = t ]
}

@test "a scheduled task waits for its time" {
    fresh
    ./lesson submit noop --delay-ms 600000
    ./lesson drain
    [ "$(sql "select status, wake_at - created_at from task")" = 'waiting|00:10:00' ]
    sql "update task set wake_at = now()"
    ./lesson drain
    [ "$(sql 'select status from task')" = completed ]
}

@test "a task that waits too long in the queue fails without being run" {
    fresh
    submit_pay 1 --patience-ms 1
    submit_pay 1 --patience-ms 600000
    start $QUICK ./lesson worker --slots 1 --queue other
    wait_until "select status = 'failed' from task where id = 1"
    [ "$(sql 'select error, attempt from task where id = 1')" = 'it waited too long in the queue|0' ]
    [ "$(sql 'select status from task where id = 2')" = queued ]
    stop
    submit_pay 1 --patience-ms 1
    ./lesson drain
    [ "$(sql 'select status, attempt from task where id = 3')" = 'failed|0' ]
}

@test "cancel: a waiting task at once, a running one within a tick" {
    fresh
    ./lesson submit noop
    ./lesson cancel 1
    ./lesson drain
    [ "$(sql 'select status, attempt from task')" = 'cancelled|0' ]
    start $QUICK ./lesson worker --slots 1
    ./lesson submit sleep '{"ms": 600000}'
    wait_until "select status = 'running' from task where id = 2"
    ./lesson cancel 2
    wait_until_said 'it was cancelled'
    ./lesson submit noop
    wait_until "select status = 'completed' from task where id = 3"
    [ "$(sql 'select status from task where id = 2')" = cancelled ]
    run ./lesson cancel 3
    one_line
    fails 1 'task 3 is completed and cannot be cancelled'
    run ./lesson cancel 99
    fails 1 'task 99'
}

@test "a running task whose row is deleted is stopped" {
    fresh
    start $QUICK ./lesson worker --slots 1
    ./lesson submit sleep '{"ms": 600000}'
    wait_until "select status = 'running' from task"
    sql "delete from task"
    wait_until_said 'its row is gone'
    ./lesson submit noop
    wait_until "select status = 'completed' from task"
}

@test "a task that is cancelled and retried at once does not run twice at the same time" {
    fresh
    start $QUICK ./lesson worker --slots 1
    ./lesson submit sleep '{"ms": 600000}'
    wait_until "select status = 'running' from task"
    sql "update task set input = '{\"ms\": 1}'"
    ./lesson cancel 1
    ./lesson retry 1
    wait_until "select status = 'completed' from task"
    wait_until_said 'slot 1 is gone: it'        # was cancelled, or its claim was lost: whichever the tick saw
}

@test "somebody who locks one row does not make a worker lose the others" {
    fresh
    for _ in 1 2 3; do submit_pay 3500; done
    start env POLL_MS=50 TICK_MS=300 LEASE_MS=2000 ./lesson worker --slots 3
    (exec $QUICK ./lesson worker --slots 1 --queue other) >/dev/null 2>&1 3>&- &    # it sweeps, too
    wait_until "select count(*) = 3 from task where status = 'running'"
    hold 'select from task where id = 1 for update'
    wait_until "select count(*) = 2 from task where id > 1 and status = 'completed'"
    let_go
    attempts=$(sql 'select max(attempt) from task where id > 1')
    [ "$attempts" -eq 1 ] || { echo "the others took $attempts attempts"; return 1; }
    wait_until "select status = 'completed' from task where id = 1"
}

@test "a worker that was frozen keeps a task that nobody has taken meanwhile" {
    fresh
    set -m
    submit_pay 2500
    start $QUICK ./lesson worker --slots 1
    wait_until "select status = 'running' from task"
    kill -STOP -- "-$STARTED"
    wait_until 'select wake_at < now() from task'
    kill -CONT -- "-$STARTED"
    wait_until "select status = 'completed' from task"
    [ "$(sql 'select attempt from task')" -eq 1 ]
}

@test "a key: submitting again gives the same id, also when both come at once" {
    play key
    fresh
    [ "$(./lesson submit noop --key k)" = 1 ]
    [ "$(./lesson submit noop --key k)" = 1 ]
    [ "$(sql 'select count(*) from task')" -eq 1 ]
    [ "$(./lesson submit noop --key k --queue other)" != 1 ]
}

@test "retry gives a failed task one more attempt" {
    fresh
    sql "insert into task (name, input, max_attempts) values ('$MAIL', '$(failing 1)', 1)"
    ./lesson drain
    [ "$(sql 'select status, attempt from task')" = 'failed|1' ]
    ./lesson retry 1
    ./lesson drain
    [ "$(sql 'select status, attempt from task')" = 'completed|2' ]
    run ./lesson retry 1
    one_line
    fails 1 'task 1 is completed and cannot be retried'
}

@test "bad options: exit 2, one line, nothing enqueued" {
    fresh
    refused() { local says=$1; shift; run "$@"; one_line; fails 2 "$says"; }
    refused '--delay-ms takes a whole number from 0' ./lesson submit noop --delay-ms -1
    refused '--patience-ms takes a whole number from 1' ./lesson submit noop --patience-ms 0
    refused 'a key is for one task, not for a file' ./lesson submit noop --key k --file x
    refused 'LEASE_MS is at least three times TICK_MS' env LEASE_MS=1000 TICK_MS=1000 ./lesson worker
    [ "$(sql 'select count(*) from task')" -eq 0 ]
}

@test "show says why a task is not moving" {
    fresh
    why() { run ./lesson show "$1"; succeeds; prints "$2"; }
    ./lesson submit noop --delay-ms 60000
    why 1 'its time'
    ./lesson submit noop
    why 2 'a worker with a free slot'
    ./lesson limit default 0
    why 2 'a permit of its queue'
    sql "insert into permit (queue, n, task_id, retired) values ('default', 1, null, false), ('default', 2, 77, true)"
    why 2 'a permit of its queue'
    sql 'update permit set task_id = null'
    why 2 'a worker with a free slot'
    sql "delete from permit"
    sql "update task set name = '$MAIL', input = '$(failing 9)' where id = 2"
    BACKOFF_MS=60000 ./lesson drain
    why 2 'its next attempt'
    prints "$NO_ANSWER"
}

@test "killed or frozen at each statement, a task that is tried again ends like an undisturbed one" {    # only here
    export BACKOFF_MS=1
    crash_everywhere pay '{"ms": 0, "fail": 1}' \
        'select status, left(output::text, 5), error from task' \
        'select tries between 1 and 3, tries <= attempt + 1 from payment join task on id = task_id'
}

# kill -9 to its first process: the others end at once, and it recovers from its log when it starts.
kill_postgres() {
    local data
    data=$(sql 'show data_directory')
    kill -KILL "$(head -n 1 "$data/postmaster.pid")"
    until env -u DATABASE_URL sh "$GUIDE/common/postgres.sh" start >/dev/null 2>&1; do sleep 0.2; done
    tally 1 'times Postgres killed'
}

@test "Postgres is killed and comes back, five times, under load: nothing is lost" {
    fresh
    rm -f "$BATS_TMPDIR/said"
    submit_many 600 10
    sql 'update task set max_attempts = 100'
    start_workers 2 4
    for _ in 1 2 3 4 5; do
        wait_until "select count(*) >= 2 from task where status = 'running' and started_at > pg_postmaster_start_time()"
        kill_postgres
    done
    wait_until "select count(*) = 0 from task where $OPEN"
    stop_workers
    nothing_is_lost 600
}

# Tasks whose worker is gone; the first half may be tried again, the others may not.
lose() { # lose COUNT
    sql "insert into task (name, input, status, worker, started_at, attempt, max_attempts, claim, wake_at)
         select '$PAY', '$(pay 0)', 'running', 'gone', now(), 1, case when n <= $1 / 2 then 5 else 1 end, gen_random_uuid(), now()
         from generate_series(1, $1) n"
}

# A trigger makes the sweep slow, so that there is a middle in which to kill.
@test "Postgres is killed while 250 lost tasks are swept: nothing is lost" {
    fresh
    lose 250
    sql "create function slowly() returns trigger language plpgsql as \$\$ begin perform pg_sleep(0.02); return new; end \$\$;
         create trigger slowly before update on task for each row when (old.status = 'running' and new.status <> 'running' and old.worker = 'gone')
         execute function slowly()"
    start $QUICK ./lesson worker --slots 4
    wait_until "select count(*) = 1 from pg_stat_activity where query like '%with expired as%limit 1000%' and wait_event = 'PgSleep'"
    kill_postgres
    [ "$(sql "select count(*) from task where status = 'running' and worker = 'gone'")" -eq 250 ]
    wait_until "select count(*) between 10 and 100 from task where status = 'failed'"
    kill_postgres
    wait_until "select count(*) = 0 from task where $OPEN"
    [ "$(sql 'select status, error, count(*) from task group by 1, 2 order by 1')" = 'completed||125
failed|its worker was lost|125' ]
}

# A slot whose last statement was the payment sleeps now, in its task.
@test "300 connections are cut while they hold claims: nothing is lost" {
    fresh
    rm -f "$BATS_TMPDIR/said"
    submit_many 300 100
    sql 'alter table task alter max_attempts set default 1000; update task set max_attempts = 1000'
    BACKOFF_MS=1 start_workers 2 8
    cut=0 tasks=300
    until [ "$cut" -ge 300 ]; do
        cut=$((cut + $(sql "select count(*) from (
            select pg_terminate_backend(pid) from pg_stat_activity
            where application_name = '$SCHEMA' and state = 'idle' and query like '%insert into payment%' limit 8) cut")))
        [ "$(unfinished)" -ge 50 ] || { submit_many 50 100; tasks=$((tasks + 50)); }
        sleep 0.05
    done
    wait_until "select count(*) = 0 from task where $OPEN"
    stop_workers
    again=$(sql 'select sum(attempt) - count(*) from task')
    echo "$cut connections cut, $again attempts lost"
    [ "$again" -ge 250 ]
    nothing_is_lost "$tasks"
    tally "$cut" 'connections cut while they held a claim'
}

# ---- a server that is in trouble ----

restart_postgres() {
    env -u DATABASE_URL sh "$GUIDE/common/postgres.sh" stop >/dev/null
    env -u DATABASE_URL sh "$GUIDE/common/postgres.sh" start >/dev/null 2>&1
}

connections_again() {
    sql 'alter system reset max_connections'
    restart_postgres
}

writes_again() {
    PGOPTIONS='-c default_transaction_read_only=off' psql -XAtq "$DATABASE_URL" \
        -c 'alter system reset default_transaction_read_only' -c 'select pg_reload_conf()'
}

complaints() { grep -c -e '^slot' -e '^lookout' "$BATS_TMPDIR/said"; }

# So many lines at most, and no more later: who is started again is silent.
few_complaints() { # few_complaints LINES TEXT
    local before=
    wait_until_said "$2"
    until [ "$(complaints)" = "$before" ]; do
        before=$(complaints)
        [ "$before" -le "$1" ] || { cat "$BATS_TMPDIR/said"; echo "$before complaints"; return 1; }
        sleep 2
    done
}

@test "Postgres takes no writes: a line from each process, and afterwards the work goes on" {
    fresh
    submit_many 100 100
    start $QUICK ./lesson worker --slots 4
    wait_until "select count(*) > 5 from task where status = 'completed'"
    sql 'alter system set default_transaction_read_only = on'
    sql 'select pg_reload_conf()'
    AFTERWARDS=writes_again
    few_complaints 8 'in a read-only transaction'
    writes_again
    tally 1 'times a server in trouble sat out'
    wait_until "select count(*) = 0 from task where $OPEN"
    nothing_is_lost 100
}

# A limit on the size of a file, for all processes of the server: to Postgres that is a disk
# which is full.
limit_files() { # limit_files BYTES
    local postmaster as=
    postmaster=$(head -n 1 "$(sql 'show data_directory')/postmaster.pid")
    [ "$(id -u)" -ne 0 ] || as="runuser -u $(ps -o user= -p "$postmaster") --"
    for pid in $(ps -o pid= --ppid "$postmaster") $postmaster; do $as prlimit --pid "$pid" --fsize="$1:" || :; done
}

# All pages are as full as they get, so that whoever changes a row needs a new one.
@test "the disk is full: a line from each process, and when there is room the work goes on" {
    command -v prlimit >/dev/null || skip "it needs prlimit(1)"
    [ "$(id -u)" -ne 0 ] || command -v runuser >/dev/null || skip "it needs runuser(1)"
    fresh
    sql 'alter table task set (autovacuum_enabled = off)'
    fill() { sql "insert into task (queue, name, input) select 'filler', 'noop', to_jsonb(repeat('x', 1600)) from generate_series(1, $1)"; }
    fill 12000
    for _ in $(seq 50); do pay 100 | sed "s/}/, \"pad\": \"$(printf '%01600d' 0)\"}/"; done >"$BATS_TMPDIR/many"
    ./lesson submit $PAY --file "$BATS_TMPDIR/many" >/dev/null
    limit_files $((17 << 20))
    AFTERWARDS='limit_files unlimited'
    if fill 100 2>/dev/null; then echo 'the disk is not full'; return 1; fi
    start $QUICK ./lesson worker --slots 4
    few_complaints 8 'Check free disk space'
    limit_files unlimited
    tally 1 'times a server in trouble sat out'
    wait_until "select count(*) = 0 from task where $OPEN and queue = 'default'"
    sql "delete from task where queue = 'filler'"
    nothing_is_lost 50
}

@test "Postgres has no connection left: the slots that got one do the work, the others try again" {
    fresh
    submit_many 100 50
    AFTERWARDS=connections_again
    sql 'alter system set max_connections = 10'
    restart_postgres
    start $QUICK ./lesson worker --slots 16
    for _ in $(seq 600); do
        [ "$(grep -c 'task [0-9]* completed' "$BATS_TMPDIR/said")" -lt 100 ] || break
        sleep 0.1
    done
    stop
    connections_again
    AFTERWARDS=
    grep -q 'too many clients' "$BATS_TMPDIR/said"
    tally 1 'times a server in trouble sat out'
    [ "$(complaints)" -le 16 ] || { cat "$BATS_TMPDIR/said"; return 1; }
    nothing_is_lost 100
}

# ---- clocks ----

@test "a worker's own clock may be an hour off: nothing is lost, and nothing comes too early" {
    [ "$(uname)" = Linux ] || skip "it sets a process's clock in Linux's way"
    set -m
    lesson_copy
    make -s clean
    make -s build SANITIZE=
    ${CC:-cc} -shared -fPIC -o clock.so "$GUIDE/common/test/clock.c"
    for off in 3600 -3600; do
        fresh
        submit_pay 2500
        ./lesson submit noop --delay-ms 1800000
        ./lesson submit noop --patience-ms 1800000 --queue other
        start env LD_PRELOAD="$PWD/clock.so" CLOCK_OFF=$off $QUICK ./lesson worker --slots 2
        wait_until "select status = 'running' and wake_at between now() and now() + interval '1 s' from task where id = 1"
        wait_until "select status in ('completed', 'failed') from task where id = 1"
        state=$(sql 'select id, status, attempt from task order by id')
        [ "$state" = '1|completed|1
2|waiting|0
3|queued|0' ] || { echo "with a clock $off seconds off: $state"; return 1; }
        # Killed, it is lost within a lease of the database's.
        submit_pay 600000 --timeout-ms 86400000
        wait_until "select status = 'running' and wake_at between now() and now() + interval '1 s' from task where id = 4"
        kill -KILL -- "-$STARTED"
        wait "$STARTED" || :
        wait_until "select wake_at < now() from task where id = 4"
    done
    STARTED=
}

# ---- the processes behind the slots ----

# The lookout is killed at each of its statements, and another one takes its place.
@test "killed at each statement of its lookout, a worker does its work all the same" {
    seen=$BATS_TMPDIR/lookout
    : >"$seen"
    fresh
    for how in '' :after :lost; do
        for n in $(seq 80); do
            begin noop null
            lose 2
            sql "insert into task (name, input) values ('sleep', '{\"ms\": 100}')"
            start env CRASH_AT="lookout:$n$how" POLL_MS=50 TICK_MS=50 LEASE_MS=200 BACKOFF_MS=20 ./lesson worker --slots 2
            wait_until "select count(*) = 0 from task where $OPEN"
            stop
            got=$(sql "select name, status, error, attempt from task order by id")
            [ "$got" = "noop|completed||1
$PAY|completed||2
$PAY|failed|its worker was lost|1
sleep|completed||1" ] || { cat "$BATS_TMPDIR/said"; echo "lookout:$n$how"; echo "$got"; return 1; }
            healthy
            grep 'CRASH_AT' "$BATS_TMPDIR/said" >>"$seen" || break
            tally 1 "crash points of the lookout"
        done
        [ "$n" -gt 5 ]
        [ "$n" -lt 80 ]
    done
    for statement in LookForWork RenewLease FindDoomed AnyDue WakeTasks GiveUpTask; do
        grep -q " $statement" "$seen" || { sort "$seen" | uniq -c; echo "never at $statement"; return 1; }
    done
}

# ---- locks ----

@test "a sweep and a change of a limit at the same moment do not lock each other out" {
    fresh
    set -m
    ./lesson limit default 3
    for _ in 1 2 3; do ./lesson submit sleep '{"ms": 600000}'; done
    start $QUICK ./lesson worker --slots 3
    wait_until "select count(*) = 3 from task where status = 'running'"
    kill -KILL -- "-$STARTED"
    wait "$STARTED" || :
    # The last permit's task rings first.  Somebody holds the one in the middle.
    sql "update task set wake_at = now() - permit * interval '1 s', input = '{\"ms\": 1}'"
    hold 'select from permit where n = 2 for update'
    waiting="from pg_stat_activity where application_name = '$SCHEMA' and wait_event_type = 'Lock'"
    (exec ./lesson drain) >"$BATS_TMPDIR/sweep" 2>&1 3>&- &
    sweep=$!
    wait_until "select count(*) = 1 $waiting"
    (exec ./lesson limit default 0) >"$BATS_TMPDIR/limit" 2>&1 3>&- &
    limit=$!
    wait_until "select count(*) = 2 $waiting"
    let_go
    wait "$sweep" && wait "$limit" || { cat "$BATS_TMPDIR/sweep" "$BATS_TMPDIR/limit"; fresh; return 1; }
    [ "$(sql "select count(*) from permit where not retired and n > 0")" -eq 0 ]
}

@test "the rules hold at every moment while workers work" {
    fresh
    submit_many 1500 2
    for i in 1 2 3 4 5; do ./lesson submit $MAIL "$(failing 2)"; done
    ./lesson limit default 6
    start_workers 2 4
    looks=0
    until [ "$looks" -ge 10 ] && [ "$(unfinished)" -eq 0 ]; do
        [ "$looks" -ge 10 ] || [ "$(unfinished)" -ge 100 ] || submit_many 100 2
        healthy
        looks=$((looks + 1))
    done
    stop_workers
    tally "$looks" 'times all rules were checked while workers worked'
}

@test "a claim that was planned on an empty table uses its index when there are 100,000 tasks" {
    play plan
}

# Postgres's own work, autovacuum, is counted too, so the quietest of three looks counts.
@test "an idle worker of 16 slots runs at most six statements a second" {
    fresh
    start ./lesson worker --slots 16
    wait_until "select count(*) = 17 from pg_stat_activity where application_name = '$SCHEMA'"
    commits() { sleep 1.5; sql 'select xact_commit, extract(epoch from clock_timestamp()) from pg_stat_database where datname = current_database()'; }
    for _ in 1 2 3; do
        IFS='|' read -r before then <<<"$(commits)"
        sleep 5
        IFS='|' read -r after now <<<"$(commits)"
        rate=$(awk -v n=$((after - before)) -v t="$then" -v u="$now" 'BEGIN { printf "%.1f", (n - 2) / (u - t) }')
        echo "$rate statements a second"
        ! awk -v r="$rate" 'BEGIN { exit !(r <= 6 && r > 0.5) }' || return 0
    done
    return 1
}

# Half a POLL_MS, if nobody is late.  Compared with two of them, because this is no race.
@test "an idle worker takes up a new task within a look" {
    fresh
    start env POLL_MS=1000 ./lesson worker --slots 1
    wait_until "select count(*) = 2 from pg_stat_activity where application_name = '$SCHEMA'"
    for n in $(seq 9); do
        ./lesson submit noop >/dev/null
        wait_until "select status = 'completed' from task where id = $n"
        sleep "0.$n"
    done
    ms=$(sql "select percentile_cont(0.5) within group (order by extract(epoch from started_at - created_at) * 1000)::int from task")
    echo "$ms ms in the median, with a look every 1000 ms"
    [ "$ms" -lt 2000 ]
}

@test "no deadlock was seen in all this" {    # only here
    no_deadlock
}

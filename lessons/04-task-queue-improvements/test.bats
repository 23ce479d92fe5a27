load ../../common/test/helpers

# The reason for this lesson: a worker is killed, and another one finishes its task

connections() { sql "select count(*) from pg_stat_activity where application_name = '$SCHEMA'"; }

# Alarms that ring soon.
QUICK='env POLL_MS=50 TICK_MS=100 LEASE_MS=1000 BACKOFF_MS=20'

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

submit_many() { # submit_many COUNT NAME INPUT
    for _ in $(seq "$1"); do echo "$3"; done >"$BATS_TMPDIR/many"
    ./lesson submit "$2" --file "$BATS_TMPDIR/many" >/dev/null
}

unfinished() { sql "select count(*) from task where status in ('queued', 'running', 'waiting')"; }

# Every task completed, each effect as often as it was attempted at most, and nothing left over.
nothing_is_lost() { # nothing_is_lost TASKS
    [ "$(sql 'select status, count(*) from task group by status')" = "completed|$1" ] || {
        sql 'select status, error, count(*) from task group by status, error'
        return 1
    }
    [ "$(sql "select count(*) from task left join payment on task_id = id where tries is null or tries > attempt")" -eq 0 ]
}

@test "the demo ends well, and its rows prove it" {
    run ./lesson
    succeeds
    prints 'All of it came true' '12 payments, tried ' 'task 13 is failed after 5 of 5 attempts' \
        'task 17: the claim is lost, nothing was written'
}

@test "on a terminal the demo shows how far it is" {
    command -v script >/dev/null || skip "it needs script(1)"
    script --version 2>/dev/null | grep -q util-linux || skip "it needs the script(1) of util-linux"
    run env -u NO_COLOR TERM=xterm script -qec ./lesson /dev/null </dev/null
    prints '12 tasks to do' 'All of it came true'
}

@test "a worker is killed, and another one finishes its task" {
    fresh
    set -m
    ./lesson submit sleep '{"ms": 300}'
    start env POLL_MS=50 TICK_MS=100 LEASE_MS=1000 ./lesson worker --slots 1
    wait_until "select status = 'running' from task"
    kill -KILL -- "-$STARTED"
    wait "$STARTED" || :
    start env POLL_MS=50 TICK_MS=100 LEASE_MS=1000 ./lesson worker --slots 1
    wait_until "select status = 'completed' from task"
}

# A victim is frozen first, and spared if it holds no task: so each kill takes a task along,
# however fast the machine is.
@test "ten workers, 5,000 tasks, and every 200 ms a worker is killed: nothing is lost" {
    fresh
    rm -f "$BATS_TMPDIR/said"
    submit_many 5000 pay '{"ms": 20}'
    sql 'update task set max_attempts = 100'
    start_workers 10 2
    killed=0
    until [ "$(unfinished)" -eq 0 ]; do
        sleep 0.2
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
    [ "$killed" -ge 10 ] && [ "$lost" -ge 5 ]
    nothing_is_lost 5000
}

@test "frozen past the lease and thawed, twenty times: the one who lost the claim says so and changes nothing" {
    fresh
    set -m
    rounds=${FREEZE_ROUNDS:-20}
    for round in $(seq "$rounds"); do
        ./lesson submit pay '{"ms": 300}' >/dev/null
        start $QUICK ./lesson worker --slots 1
        wait_until "select status = 'running' from task where id = $round"
        kill -STOP -- "-$STARTED"
        (exec $QUICK ./lesson worker --slots 1) >"$BATS_TMPDIR/other" 2>&1 3>&- &
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
}

@test "a thawed slot takes up new work" {
    fresh
    set -m
    ./lesson submit pay '{"ms": 300}'
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
    run tools race "$SCHEMA" race/fence.race
    succeeds
}

@test "a task that takes longer than its lease is not lost while its worker lives" {
    fresh
    ./lesson submit pay '{"ms": 3500}'
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
    for _ in $(seq 300); do
        [ "$(sql 'select attempt > 3 or status = $$failed$$ from task where id = 1')" = f ] || break
        sleep 0.1
    done
    state=$(sql 'select status, attempt, error from task where id = 1')
    [ "$state" = 'failed|3|its process died of signal 9' ] || { echo "poison is not given up: $state"; return 1; }
    wait_until "select status = 'completed' from task where id = 2"
}

@test "a failure is tried again later, up to max_attempts, and not at all if that makes no sense" {
    fresh
    ./lesson submit pay '{"fail": 2}'
    ./lesson submit pay '{"fail": 99}'
    ./lesson submit pay '{"for_good": true}'
    start $QUICK ./lesson worker --slots 3
    wait_until "select count(*) = 0 from task where status in ('queued', 'running', 'waiting')"
    [ "$(sql 'select status, attempt, error from task order by id')" = "completed|3|
failed|5|the bank does not answer
failed|1|the card is stolen" ]
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
    ./lesson submit pay --patience-ms 1
    ./lesson submit pay --patience-ms 600000
    start $QUICK ./lesson worker --slots 1 --queue other
    wait_until "select status = 'failed' from task where id = 1"
    [ "$(sql 'select error, attempt from task where id = 1')" = 'it waited too long in the queue|0' ]
    [ "$(sql 'select status from task where id = 2')" = queued ]
    stop
    ./lesson submit pay --patience-ms 1
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
    wait_until_said 'its claim was lost'
}

@test "somebody who locks one row does not make a worker lose the others" {
    fresh
    for _ in 1 2 3; do ./lesson submit pay '{"ms": 3500}'; done
    start env POLL_MS=50 TICK_MS=300 LEASE_MS=2000 BACKOFF_MS=20 ./lesson worker --slots 3
    wait_until "select count(*) = 3 from task where status = 'running'"
    hold 'select from task where id = 1 for update'
    wait_until "select count(*) = 2 from task where id > 1 and status = 'completed'"
    let_go
    [ "$(sql 'select max(attempt) from task where id > 1')" -eq 1 ]
    wait_until "select status = 'completed' from task where id = 1"
}

@test "a worker that was frozen keeps a task that nobody has taken meanwhile" {
    fresh
    set -m
    ./lesson submit pay '{"ms": 2500}'
    start $QUICK ./lesson worker --slots 1
    wait_until "select status = 'running' from task"
    kill -STOP -- "-$STARTED"
    wait_until 'select wake_at < now() from task'
    kill -CONT -- "-$STARTED"
    wait_until "select status = 'completed' from task"
    [ "$(sql 'select attempt from task')" -eq 1 ]
}

@test "a key: submitting again gives the same id, also when both come at once" {
    run tools race "$SCHEMA" race/key.race
    succeeds
    fresh
    [ "$(./lesson submit noop --key k)" = 1 ]
    [ "$(./lesson submit noop --key k)" = 1 ]
    [ "$(sql 'select count(*) from task')" -eq 1 ]
    [ "$(./lesson submit noop --key k --queue other)" != 1 ]
}

@test "retry gives a failed task one more attempt" {
    fresh
    sql "insert into task (name, input, max_attempts) values ('pay', '{\"fail\": 1}', 1)"
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
    why 2 'a free slot'
    ./lesson limit default 0
    why 2 'a permit of its queue'
    sql "delete from permit"
    sql "update task set name = 'pay', input = '{\"fail\": 9}' where id = 2"
    BACKOFF_MS=60000 ./lesson drain
    why 2 'its next attempt'
    prints 'the bank does not answer'
}

@test "killed or frozen at each statement, a task that is tried again ends like an undisturbed one" {
    export BACKOFF_MS=1
    crash_everywhere pay '{"ms": 0, "fail": 1}' \
        'select status, left(output::text, 5), error from task' \
        'select tries between 1 and 3, tries <= attempt + 1 from payment join task on id = task_id'
}

@test "Postgres is killed and comes back, three times, under load: nothing is lost" {
    fresh
    rm -f "$BATS_TMPDIR/said"
    data=$(sql 'show data_directory')
    submit_many 600 pay '{"ms": 10}'
    sql 'update task set max_attempts = 100'
    start_workers 2 4
    for _ in 1 2 3; do
        wait_until "select count(*) >= 2 from task where status = 'running'"
        postmaster=$(head -n 1 "$data/postmaster.pid")
        kill -KILL "$postmaster"
        until env -u DATABASE_URL sh "$GUIDE/common/postgres.sh" start >/dev/null 2>&1; do sleep 0.2; done
    done
    wait_until "select count(*) = 0 from task where status in ('queued', 'running', 'waiting')"
    stop_workers
    nothing_is_lost 600
}

@test "connections are cut while they hold claims: nothing is lost" {
    fresh
    rm -f "$BATS_TMPDIR/said"
    submit_many 400 pay '{"ms": 20}'
    sql 'update task set max_attempts = 100'
    start_workers 2 4
    cut=0
    RANDOM=${SEED:=$RANDOM}     # SEED=n plays it again, as far as the processes let it
    echo "SEED=$SEED"
    until [ "$(unfinished)" -eq 0 ]; do
        cut=$((cut + $(sql "select count(*) from (
            select pg_terminate_backend(pid) from pg_stat_activity
            where application_name = '$SCHEMA' order by md5(pid::text || $RANDOM) limit 2) cut")))
        sleep 0.1
    done
    stop_workers
    again=$(sql 'select count(*) from task where attempt > 1')
    echo "$cut connections cut, $again tasks were run again"
    [ "$cut" -ge 10 ] && [ "$again" -ge 5 ]
    nothing_is_lost 400
}

@test "a claim that was planned on an empty table uses its index when there are 100,000 tasks" {
    run tools race "$SCHEMA" race/plan.race
    succeeds
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

@test "no deadlock was seen in all this" {
    [ "$(sql 'select deadlocks from pg_stat_database where datname = current_database()')" -eq 0 ]
}

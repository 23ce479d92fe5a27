load ../../common/test/helpers

# The reason for this lesson: two claims on a queue with one permit: one gets a task

# The states and process ids of a process's children: "S 123".
children_of() {
    cat /proc/[0-9]*/stat 2>/dev/null | awk -v parent="$1" '$4 == parent { print $3, $1 }'
}

# What "update task" sets to end a task by hand: from lesson 04 on it lets go of more.
BY_HAND="status = 'failed', error = 'by hand', finished_at = now()"
case $LESSON in 03*) ;; *) BY_HAND="$BY_HAND, claim = null, wake_at = null" ;; esac

# A task that fails has failed: from lesson 04 on it would be tried again.
one_attempt() { case $LESSON in 03*) ;; *) sql 'alter table task alter max_attempts set default 1' ;; esac; }

connections() { sql "select count(*) from pg_stat_activity where application_name = '$SCHEMA'"; }

@test "the demo ends well, and its rows prove it" {    # only here
    run ./lesson
    succeeds
    prints 'All of it came true' 'three permits: 3 at once' 'it took longer than its timeout'
    [ "$(sql "select string_agg(distinct status, ' ') from task where queue = 'night'")" = 'completed queued' ]
}

# A trigger, which looks at each commit, counts.  It takes a lock first: two commits at once
# would not see each other.  More tasks come until ten slots were killed, however slow the machine.
@test "a limit of three holds at every instant, for all workers, also when slots are killed" {
    fresh
    ./lesson limit mail 3
    sql "create table seen (most int); insert into seen values (0);
         create function count_running() returns trigger language plpgsql as \$\$
         begin
             perform pg_advisory_xact_lock(42);
             update seen set most = greatest(most, (select count(*) from task where queue = 'mail' and status = 'running'));
             return null;
         end \$\$;
         create constraint trigger count_running after update on task deferrable initially deferred
         for each row when (new.status = 'running') execute function count_running()"
    for _ in $(seq 2000); do echo '{"ms": 4}'; done >"$BATS_TMPDIR/2000"
    head -n 100 "$BATS_TMPDIR/2000" >"$BATS_TMPDIR/100"
    ./lesson submit sleep --queue mail --file "$BATS_TMPDIR/2000" >/dev/null
    tasks=2000 workers= killed=0
    for _ in 1 2 3 4; do
        (BACKOFF_MS=20 exec ./lesson worker --slots 4 --queue mail) >>"$BATS_TMPDIR/said" 2>&1 3>&- &
        workers="$workers $!"
    done
    until [ "$killed" -ge 10 ] && [ "$(sql "select count(*) from task where $OPEN")" -eq 0 ]; do
        victim=$(sql "select split_part(split_part(worker, ':', 2), ' ', 1) from task where status = 'running' limit 1")
        [ -z "$victim" ] || { kill -KILL "$victim" 2>/dev/null && killed=$((killed + 1)); } || :
        [ "$killed" -ge 10 ] || [ "$(sql "select count(*) from task where $OPEN")" -ge 50 ] || {
            ./lesson submit sleep --queue mail --file "$BATS_TMPDIR/100" >/dev/null
            tasks=$((tasks + 100))
        }
        sleep 0.05
    done
    kill $workers
    wait $workers || :
    echo "killed $killed slots"
    most=$(sql 'select most from seen')
    [ "$most" -eq 3 ] || { echo "$most ran at once"; return 1; }
    [ "$(sql "select count(*) from task where status in ('completed', 'failed')")" -eq "$tasks" ]
    [ "$(sql "select count(*) from permit where task_id is not null")" -eq 0 ]
    [ "$(connections)" -eq 0 ]
}

@test "two claims on a queue with one permit: one gets a task" {
    play permits
}

@test "a permit comes back whatever ends its task" {
    fresh
    ./lesson limit default 1
    sql "insert into task (name, input) values ('noop', '1'), ('no_such', '2'), ('noop', '3')"
    ./lesson drain >/dev/null
    statuses=$(sql "select string_agg(status, ' ' order by id) from task")
    [ "$statuses" = 'completed failed completed' ] || { echo "the permit did not come back: $statuses"; return 1; }
    run env CRASH_AT=3 ./lesson drain <<<"$(./lesson submit noop)"
    fails 137
    [ "$(sql 'select count(*) from permit where task_id = 4')" -eq 1 ]
    sql "update task set $BY_HAND where id = 4"
    [ "$(sql 'select count(*) from permit where task_id is not null')" -eq 0 ]
}

@test "the end of a task and the next claim are one transaction" {
    fresh
    ./lesson submit noop 1
    ./lesson submit noop 2
    sql "create function refuse() returns trigger language plpgsql as 'begin raise exception ''not this one''; end'"
    sql "create trigger refuse before update on task for each row
         when (new.status = 'running' and new.input = '2') execute function refuse()"
    run ./lesson drain
    fails 1 'ClaimTask: not this one'
    [ "$(sql "select string_agg(status, ' ' order by id) from task")" = 'running queued' ]
    sql "drop trigger refuse on task; update task set $BY_HAND where id = 1; update task set input = '3'"
    ./lesson submit noop 4
    sql "create constraint trigger refuse after update on task deferrable initially deferred for each row
         when (new.status = 'completed') execute function refuse()"
    run ./lesson drain
    fails 1 'not this one'
    [ "$(sql "select string_agg(status, ' ' order by id) from task where id > 1")" = 'running queued' ]
    sql 'drop trigger refuse on task'
}

@test "whichever answer is lost, the process says that its connection is gone, and where" {
    for n in 1 2 3 4; do
        fresh
        ./lesson submit noop
        ./lesson submit noop
        run env CRASH_AT=$n:lost ./lesson drain
        fails 1 'the answer of' 'lost the connection to Postgres at main.c:'
    done
}

@test "a claim does not wait for a permit that somebody has locked" {
    fresh
    ./lesson limit default 2
    ./lesson submit noop
    hold 'select from permit where n = 1 for update'
    run env DATABASE_URL="$DATABASE_URL&options=-c%20lock_timeout%3D5000" ./lesson drain
    succeeds
    [ "$(sql 'select status from task')" = completed ]
    let_go
}

@test "a limit that is lowered while tasks run: nothing new begins before it holds" {
    play lower-limit
    fresh
    ./lesson limit default 0
    ./lesson submit noop
    ./lesson drain
    [ "$(sql 'select status from task')" = queued ]
    ./lesson limit default 1
    ./lesson drain
    [ "$(sql 'select status from task')" = completed ]
    run ./lesson limit default -1
    fails 2 'N takes a whole number from 0 to 1000'
}

@test "two changes of a limit at once: the second one counts" {
    play two-limits
}

@test "a first limit also waits for what already runs without a permit" {
    fresh
    for _ in 1 2 3; do ./lesson submit sleep '{"ms": 1500}'; done
    start ./lesson worker --slots 2
    wait_until "select count(*) = 2 from task where status = 'running'"
    ./lesson limit default 1
    wait_until "select status <> 'queued' from task where id = 3"
    [ "$(sql "select count(*) from task where status = 'running'")" -eq 1 ]
}

@test "a task that is deleted, ended by hand, or calls exit does not keep its permit" {
    fresh
    one_attempt
    ./lesson limit default 1
    for _ in 1 2; do ./lesson submit sleep '{"ms": 1500}'; done
    start ./lesson worker --slots 2
    wait_until "select status = 'running' from task where id = 1"
    sql "delete from task where id = 1"
    wait_until "select status = 'running' from task where id = 2"
    sql "update task set $BY_HAND where id = 2"
    ./lesson submit crash '{"exit": true}'
    ./lesson submit noop
    wait_until "select status = 'completed' from task where id = 4"
    [ "$(sql 'select id, status, error from task where id < 4 order by id')" = $'2|failed|by hand\n3|failed|its process ended with status 0' ]
}

@test "a task over its time is killed, and says why" {
    fresh
    one_attempt
    TICK_MS=50 start ./lesson worker --slots 1
    ./lesson submit sleep '{"ms": 600000}' --timeout-ms 200
    ./lesson submit sleep '{"ms": 10}' --timeout-ms 60000
    wait_until "select count(*) = 2 from task where status in ('completed', 'failed')"
    [ "$(sql 'select status, error from task order by id')" = $'failed|it took longer than its timeout\ncompleted|' ]
}

# The supervisor is held while its slot ends the overdue task by itself and takes the next.
@test "it is the overdue task that is killed, not the one that came after it" {
    fresh
    TICK_MS=50 POLL_MS=50 start ./lesson worker --slots 1
    wait_until "select count(*) = 2 from pg_stat_activity where application_name = '$SCHEMA'"
    ./lesson submit sleep '{"ms": 3000}' --timeout-ms 1500
    ./lesson submit sleep '{"ms": 1500}'
    wait_until 'select status = $$running$$ from task where id = 1'
    kill -STOP "$STARTED"
    wait_until 'select status = $$running$$ from task where id = 2'
    kill -CONT "$STARTED"
    wait_until "select count(*) = 2 from task where status in ('completed', 'failed')"
    killed=$(grep 'is gone' "$BATS_TMPDIR/said" || :)
    [ -z "$killed" ] || { echo "the wrong task was killed: $killed"; return 1; }
    [ "$(sql "select string_agg(status, ' ' order by id) from task")" = 'completed completed' ]
}

@test "asked to stop, a worker finishes what runs and takes nothing new" {
    fresh
    for _ in 1 2 3 4 5; do ./lesson submit sleep '{"ms": 2000}'; done
    start ./lesson worker --slots 2
    wait_until "select count(*) = 2 from task where status = 'running'"
    kill -TERM "$STARTED"
    wait "$STARTED"
    [ "$(sql "select status, count(*) from task group by status order by status")" = $'completed|2\nqueued|3' ]
    grep -q 'has stopped' "$BATS_TMPDIR/said"
    [ "$(connections)" -eq 0 ]
}

@test "Ctrl-C, which reaches all processes of a worker, does the same; a second one stops at once" {
    fresh
    set -m
    ./lesson submit sleep '{"ms": 700}'
    start ./lesson worker --slots 2
    wait_until "select status = 'running' from task where id = 1"
    kill -INT -- "-$STARTED"
    wait "$STARTED"
    [ "$(sql 'select status from task where id = 1')" = completed ]
    ./lesson submit sleep '{"ms": 600000}'
    start ./lesson worker --slots 2
    wait_until "select status = 'running' from task where id = 2"
    kill -INT -- "-$STARTED"
    wait_until_said 'stops; what runs is finished'
    kill -INT -- "-$STARTED"
    wait_until_said 'stopped at once: what was running '
    wait_until "select count(*) = 0 from pg_stat_activity where application_name = '$SCHEMA'"
    [ "$(sql 'select status from task where id = 2')" = running ]
}

@test "a slot that dies is started again, and its task has failed, with the reason" {
    fresh
    one_attempt
    start ./lesson worker --slots 1
    ./lesson submit crash
    ./lesson submit crash '{"signal": 15}'
    ./lesson submit noop
    wait_until "select status = 'completed' from task where id = 3"
    [ "$(sql 'select status, error from task where id = 1')" = 'failed|its process died of signal 9' ]
    [ -z "$(children_of "$STARTED" | grep '^Z')" ]
    [ "$(connections)" -eq 2 ]
}

@test "a slot that dies while the worker stops is reported all the same" {
    fresh
    one_attempt
    start ./lesson worker --slots 1
    ./lesson submit sleep '{"ms": 600000}'
    wait_until "select status = 'running' from task"
    kill -TERM "$STARTED"
    wait_until_said 'stops; what runs is finished'
    kill -KILL "$(sql "select split_part(split_part(worker, ':', 2), ' ', 1) from task")"
    wait "$STARTED"
    [ "$(sql 'select status, error from task')" = 'failed|its process died of signal 9' ]
}

@test "slots end when their supervisor is gone" {
    fresh
    start ./lesson worker --slots 3
    ./lesson submit sleep '{"ms": 500}'
    wait_until "select status = 'running' from task"
    [ "$(connections)" -eq 4 ]
    kill -KILL "$STARTED"
    wait_until "select status = 'completed' from task"
    for _ in $(seq $((${PATIENCE:-1000} / 10))); do
        [ "$(connections)" -gt 0 ] || break
        sleep 0.1
    done
    left=$(connections)
    sql "select pg_terminate_backend(pid) from pg_stat_activity where application_name = '$SCHEMA'" >/dev/null
    [ "$left" -eq 0 ] || { echo "$left processes are still there"; return 1; }
}

# Postgres's own work, autovacuum, is counted too, so the quietest of three looks counts.
@test "an idle worker of 16 slots runs at most six statements a second" {    # only here
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

@test "Postgres goes away and comes back: the worker survives, and complains in a few lines" {
    fresh
    start ./lesson worker --slots 4
    wait_until "select count(*) = 5 from pg_stat_activity where application_name = '$SCHEMA'"
    env -u DATABASE_URL sh "$GUIDE/common/postgres.sh" stop >/dev/null
    sleep 2
    env -u DATABASE_URL sh "$GUIDE/common/postgres.sh" start >/dev/null 2>&1
    ./lesson submit noop
    wait_until "select status = 'completed' from task"
    wait_until_said 'is there again'
    lines=$(grep -c -e 'lost the connection' -e 'cannot connect' "$BATS_TMPDIR/said")
    [ "$lines" -le 6 ] || { cat "$BATS_TMPDIR/said"; echo "$lines complaints"; return 1; }
}

load ../../common/test/helpers

export BACKOFF_MS=1

ended() { sql "select status, attempt, error from task where id = $1"; }

@test "free-key" {
    fresh
    ./lesson submit pay '{"for_good": true}' --key order-7
    [ "$(./lesson submit noop --key order-7)" -eq 1 ]
    ./lesson drain
    [ "$(ended 1)" = 'failed|1|the card is stolen' ]

    second=$(./lesson submit pay --key order-7)
    [ "$second" -ne 1 ] || { echo 'the failed task still has the key'; return 1; }
    [ "$(./lesson submit pay --key order-7)" -eq "$second" ]
    run ./lesson retry 1
    fails 1 'task 1 is failed and cannot be retried'

    ./lesson cancel "$second"
    ./lesson retry 1
    [ "$(./lesson submit pay --key order-7)" -eq 1 ]
    sql "update task set input = '{}' where id = 1"
    ./lesson drain
    [ "$(./lesson submit pay --key order-7)" -eq 1 ]
    [ "$(sql 'select status from task order by id')" = 'completed
cancelled' ]
}

@test "deadline" {
    gave_up() { # gave_up ID ATTEMPT
        [ "$(ended "$1")" = "failed|$2|its deadline has passed" ] || { echo "task $1: $(ended "$1")"; return 1; }
    }
    fresh
    # It passes while the first attempt runs, and that fails.
    ./lesson submit pay '{"fail": 1}' --total-ms 3600000
    sql 'update task set deadline = now()'
    ./lesson drain
    gave_up 1 1
    ./lesson retry 1
    ./lesson drain
    [ "$(ended 1)" = 'completed|2|' ]
    # It passes while nobody knows that the worker is dead.
    ./lesson submit crash --total-ms 3600000
    run ./lesson drain
    fails 137
    sql 'update task set deadline = now(), wake_at = now() where id = 2'
    ./lesson drain
    gave_up 2 1
    # It passes before the task's time has come, and then in the queue.
    ./lesson submit noop --delay-ms 3600000 --total-ms 7200000
    sql 'update task set deadline = now(), wake_at = now() where id = 3'
    ./lesson drain
    gave_up 3 0
    ./lesson submit noop --patience-ms 3600000 --total-ms 1
    wait_until 'select wake_at <= now() from task where id = 4'
    ./lesson drain
    gave_up 4 0
    ./lesson submit noop --delay-ms 3600000 --total-ms 1
    wait_until 'select wake_at <= now() from task where id = 5'
    ./lesson drain
    gave_up 5 0
    # It passes in a back-off that is longer.
    ./lesson submit pay '{"fail": 1}' --total-ms 3600000
    sql "create or replace function back_off(attempt int, first_ms int) returns interval
         language sql as \$\$ select interval '1 day' \$\$"
    ./lesson drain
    [ "$(sql "select status = 'failed' or wake_at <= deadline from task where id = 6")" = t ]
    # It passes while a function runs that would not end.
    ./lesson submit sleep '{"ms": 600000}' --total-ms 3600000
    start env POLL_MS=50 TICK_MS=100 LEASE_MS=1000 ./lesson worker --slots 1
    wait_until "select status = 'running' from task where id = 7"
    sql 'update task set deadline = now() where id = 7'
    wait_until "select status = 'failed' from task where id = 7"
    gave_up 7 1
    stop
    # And without one, or with one that is far away, all is as it was.
    ./lesson submit noop
    ./lesson submit noop --total-ms 3600000
    ./lesson drain
    [ "$(ended 8)" = 'completed|1|' ]
    [ "$(ended 9)" = 'completed|1|' ]
}

@test "hand-back" {
    fresh
    ./lesson limit default 2
    for _ in 1 2; do ./lesson submit sleep '{"ms": 600000}'; done
    sql 'update task set max_attempts = 1'
    sql "insert into task (queue, name, status, worker, started_at, claim, wake_at)
         values ('other', 'noop', 'running', 'elsewhere:1 slot 1', now(), gen_random_uuid(), now() + interval '1 h')"
    start env POLL_MS=50 TICK_MS=100 LEASE_MS=600000 ./lesson worker --slots 2
    wait_until "select count(*) = 2 from task where status = 'running' and permit is not null"
    kill "$STARTED"
    wait_until_said 'stops; what runs is finished'
    kill "$STARTED"
    wait "$STARTED" || :
    STARTED=
    there=$(sql 'select status, claim is null from task order by id')
    [ "$there" = 'queued|t
queued|t
running|f' ] || { echo "$there"; return 1; }
    [ "$(sql 'select count(*) from permit where task_id is not null')" -eq 0 ]
    sql "update task set input = 'null' where id < 3"
    ./lesson drain
    [ "$(sql 'select status, error from task where id < 3')" = 'completed|
completed|' ]
}

load ../../common/test/helpers

@test "stack" {
    fresh
    ./lesson submit fan_out '{"children": 2, "name": "fan_out", "input": {"children": 1, "queue": "nobody"}}'
    ./lesson submit fan_out '{"children": 1, "queue": "nobody"}'
    ./lesson drain
    on_stack() { sql "select depth, id, name, status from stack($1) order by depth, id"; }
    same '0|1|fan_out|waiting
1|3|fan_out|waiting
1|4|fan_out|waiting
2|6|noop|queued
2|7|noop|queued' "$(on_stack 1)"
    # One branch comes to its end, the other is stopped at its bottom.
    ./lesson cancel 6
    ./lesson drain
    sql "update task set status = 'blocked', error = 'x' where id = 7"
    same '0|1|fan_out|waiting
1|4|fan_out|waiting
2|7|noop|blocked' "$(on_stack 1)"
    same '0|4|fan_out|waiting
1|7|noop|blocked' "$(on_stack 4)"
    same '' "$(on_stack 3)"
}

@test "durable-sleep" {
    fresh
    run ./lesson submit remind '{"order": "A1", "ms": 600000}'
    succeeds
    start ./lesson drain
    wait_until "select status = 'waiting' and wake_at is null from task where id = 1"
    wait "$STARTED"
    STARTED=
    asleep() { sql "select id, status, wake_at from task where parent_id = 1 and wake_at > now()"; }
    sleeping=$(asleep)
    case $sleeping in *'|waiting|'*) ;; *) sql 'select * from task'; echo 'no child sleeps'; return 1 ;; esac
    # Whoever is woken too early sleeps on, to the same time.
    sql "update task set status = 'queued' where id = 1"
    ./lesson drain
    same "$sleeping" "$(asleep)"
    same 'waiting|2' "$(sql 'select status, (select count(*) from task) from task where id = 1')"
    sql 'update task set wake_at = now() where parent_id = 1'
    ./lesson drain
    same 'completed|"sent"|2' "$(sql 'select status, output, (select count(*) from task) from task where id = 1')"
    # Who does not ask for a delay has none.
    ./lesson submit fan_out '{"children": 2}'
    ./lesson drain
    same 'completed|2' "$(sql "select status, output from task where name = 'fan_out'")"
    ./lesson submit remind '{"order": "A2", "ms": 600000}'
    ./lesson drain
    ./lesson cancel "$(sql 'select max(id) from task where parent_id is null')"
    ./lesson drain
    same '2|0' "$(sql "select count(*) filter (where status = 'cancelled'), count(*) filter (where is_open(status)) from task")"
    crash_everywhere remind '{"order": "A1", "ms": 600000}' \
        'select parent_id is null, name, status, output, error from task order by 1, 2' \
        'select seq, kind, name, input, result, error, open from log order by task_id, seq'
}

@test "own-function" {
    fresh
    run ./lesson submit welcome '{"name": "Ada"}'
    succeeds
    ./lesson drain
    ended='select parent.status, child.name, child.status, parent.output = child.output
           from task as child join task as parent on parent.id = child.parent_id'
    same 'completed|send_welcome|completed|t' "$(sql "$ended")"
    same '1/0/create_account|Ada' "$(sql 'select key, name from account')"
    # The same key, and so the same account.
    ./lesson replay 1
    ./lesson drain
    same 'completed|send_welcome|completed|t' "$(sql "$ended")"
    same '1/0/create_account|Ada' "$(sql 'select key, name from account')"
    for input in '{}' '{"name": ""}' '{"name": 7}' null; do
        fresh
        ./lesson submit welcome "$input"
        ./lesson drain
        same 'failed|1|0' "$(sql 'select status, attempt, (select count(*) from account) from task')"
    done
    fresh
    ./lesson submit send_welcome '{"name": "Bob"}'
    ./lesson drain
    same completed "$(sql 'select status from task')"
    crash_everywhere welcome '{"name": "Ada"}' 'select key, name from account' \
        'select name, status, output, error from task order by name' \
        'select kind, name, input, result, error, open from log order by task_id, seq'
    same '1|completed' "$(sql 'select (select count(*) from account), status from task where id = 1')"
}

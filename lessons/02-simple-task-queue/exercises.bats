load ../../common/test/helpers

@test "best-before" {
    fresh
    sql "insert into task (name, best_before) values
         ('noop', now() - interval '1 s'), ('noop', now() + interval '1 day'), ('noop', null)"
    ./lesson submit noop --priority 5
    ./lesson drain
    [ "$(sql "select string_agg(status, ' ' order by id) from task")" = 'queued completed completed completed' ]
    sql "update task set best_before = 'infinity' where id = 1"
    ./lesson drain
    [ "$(sql 'select status from task where id = 1')" = completed ]
}

@test "wait" {
    fresh
    ./lesson submit write_letter '{"to": "Ada"}'
    ./lesson submit write_letter '{}'
    ./lesson drain
    run ./lesson wait 1
    succeeds
    [ "$output" = '"Dear Ada"' ]
    run ./lesson wait 2
    one_line
    fails 1 'a letter to nobody'
    run ./lesson wait 3
    fails 1 'there is no task 3'
    ./lesson submit write_letter '{"to": "Ben"}'
    start ./lesson wait 3
    wait_until "select count(*) = 1 from pg_stat_activity where application_name = '$SCHEMA' and state = 'idle'"
    ./lesson drain
    wait "$STARTED"
    [ "$(cat "$BATS_TMPDIR/said")" = '"Dear Ben"' ]
}

# Killed at each statement, the rest of the chain is there if the first is completed, and only then.
@test "then" {
    fresh
    ./lesson submit write_letter '{"to": "Ada"}' --queue mail --then noop
    ./lesson submit write_letter '{}' --queue mail --then noop
    ./lesson submit noop --queue mail
    ./lesson drain --queue mail
    [ "$(sql "select string_agg(status, ' ' order by id) from task where id <= 3")" = 'completed failed completed' ]
    [ "$(sql 'select queue, name, input, status, output from task where id > 3')" = 'mail|noop|"Dear Ada"|completed|null' ]
    run ./lesson submit noop --then no_such
    fails 2 'there is no function "no_such"' 'nothing was enqueued'
    [ "$(sql 'select count(*) from task')" -eq 4 ]
    for how in '' :after :lost; do
        for n in $(seq 50); do
            fresh
            ./lesson submit noop 1 --then noop >/dev/null
            ! CRASH_AT=$n$how ./lesson drain >"$BATS_TMPDIR/died" 2>&1 || break
            [ "$(sql "select (select status = 'completed' from task where id = 1) = exists (select from task where id > 1)")" = t ] ||
                { ./lesson show; echo "killed at statement $n$how"; return 1; }
        done
        [ "$n" -gt 3 ] && [ "$n" -lt 50 ] || { cat "$BATS_TMPDIR/died"; echo "$n points"; return 1; }
    done
}

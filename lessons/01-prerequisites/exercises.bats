load ../../common/test/helpers

@test "busy" {
    fresh
    sql "insert into task (name) values ('one'), ('two'), ('three')"
    busy() { ./lesson show | awk 'NR > 1 { printf "%s %s,", $1, $NF }'; }
    hold 'select from task where id = 2 for update'
    run env DATABASE_URL="$DATABASE_URL&options=-c%20lock_timeout%3D5000" ./lesson show
    succeeds
    prints ' busy'
    [ "$(busy)" = '1 f,2 t,3 f,' ] || { ./lesson show; return 1; }
    let_go
    wait_until "select count(*) = 0 from pg_stat_activity where application_name = 'holder'"
    [ "$(busy)" = '1 f,2 f,3 f,' ] || { ./lesson show; return 1; }
}

@test "archive" {
    run ./lesson
    succeeds
    prints '1  greet  {"to": 1}  completed  left' '2  greet  {"to": 2}  completed  right' '3  greet  {"to": 3}  queued'
    [ "$(sql 'select id, name, input, status, worker from done')" = '1|greet|{"to": 1}|completed|right' ]
    [ "$(sql 'select id, status from task order by id')" = $'2|queued\n3|queued' ]
}

@test "take" {
    fresh
    sql "insert into task (name) values ('one'), ('two'), ('three')"
    rows() { sql "select string_agg(concat_ws(' ', id, status, worker), ', ' order by id) from task"; }
    run ./lesson take ada <<<''
    succeeds
    [ "$(rows)" = '1 completed ada, 2 queued, 3 queued' ]
    run ./lesson take ada </dev/null
    succeeds
    [ "$(rows)" = '1 completed ada, 2 queued, 3 queued' ]
    mkfifo "$BATS_TMPDIR/enter"
    exec 7<>"$BATS_TMPDIR/enter"
    start sh -c "exec ./lesson take ben <'$BATS_TMPDIR/enter' 7>&-"
    wait_until_said 'got task 2'
    run ./lesson take ada <<<''
    succeeds
    [ "$(rows)" = '1 completed ada, 2 queued, 3 completed ada' ]
    run ./lesson take ada <<<''
    fails 1 'there is nothing to do'
    kill -KILL "$STARTED"
    wait_until "select count(*) = 0 from pg_stat_activity where application_name = '$SCHEMA'"
    start sh -c "exec ./lesson take eve <'$BATS_TMPDIR/enter' 7>&-"
    wait_until_said 'got task 2'
    echo >&7
    wait "$STARTED"
    exec 7>&-
    [ "$(rows)" = '1 completed ada, 2 completed eve, 3 completed ada' ]
}

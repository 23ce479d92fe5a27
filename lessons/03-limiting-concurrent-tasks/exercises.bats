load ../../common/test/helpers

statuses() { sql "select string_agg(status, ' ' order by id) from task"; }

@test "pause" {
    cat >"$BATS_TMPDIR/pause.race" <<'END'
insert into paused values ('default');
insert into task (queue, name) values ('default', 'noop'), ('other', 'noop');

left                                  | right
execute lookforwork('default', '4');  |
-- 0                                  |
                                      | execute lookforwork('other', '4');
                                      | -- 1
END
    run tools race "$SCHEMA" "$BATS_TMPDIR/pause.race"
    succeeds
    ./lesson drain
    ./lesson drain --queue other
    [ "$(statuses)" = 'queued completed' ]
    ./lesson limit default 1
    ./lesson drain
    [ "$(statuses)" = 'queued completed' ]
    sql "delete from paused where queue = 'default'"
    ./lesson submit noop
    ./lesson drain
    [ "$(statuses)" = 'completed completed completed' ]
    [ "$(sql 'select count(*) from permit where n > 0 and not retired')" -eq 1 ]
}

# Who calls "crash" in a drain dies, and keeps its permit.
@test "reserve" {
    fresh
    ./lesson limit default 2
    sql "update permit set least_priority = 10 where n = 1"
    ./lesson submit crash --priority 9
    run ./lesson drain
    fails 137
    ./lesson submit noop --priority 9
    ./lesson drain
    [ "$(statuses)" = 'running queued' ]
    ./lesson submit noop --priority 10
    ./lesson drain
    [ "$(statuses)" = 'running queued completed' ]
    sql "update task set status = 'failed', error = 'by hand', finished_at = now() where id = 1"
    ./lesson drain
    [ "$(statuses)" = 'failed completed completed' ]
    ./lesson submit crash --priority 10
    run ./lesson drain
    fails 137
    ./lesson submit noop
    ./lesson drain
    [ "$(sql 'select status from task where id = 5')" = completed ] || { echo 'an urgent task took the permit that all may have'; return 1; }
    [ "$(sql 'select permit from task where id = 4')" -eq 1 ]
}

# A task that is enqueued when the last one ends has to be done as well.
@test "batch" {
    fresh
    ./lesson limit default 1
    sql "create function one_more() returns trigger language plpgsql as
             'begin insert into task (name) values (''noop''); return null; end'"
    sql "create trigger one_more after update on task for each row
         when (new.id = 4 and new.status = 'completed') execute function one_more()"
    for name in noop crash noop sleep; do ./lesson submit $name '{"ms": 1000}'; done
    ./lesson submit noop --queue other
    run timeout -k 1 60 ./lesson batch --slots 2
    succeeds
    [ "$(statuses)" = 'completed failed completed completed queued completed' ]
    [ "$(sql 'select count(*) from permit where task_id is not null')" -eq 0 ]
    [ "$(sql "select count(*) from pg_stat_activity where application_name = '$SCHEMA'")" -eq 0 ]
    run timeout -k 1 60 ./lesson batch --slots 2 --queue empty
    succeeds
}

load ../../common/test/helpers

# A copy of the lesson with a changed main.c.
changed() { # changed SED_SCRIPT
    cd "$GUIDE/lessons/$LESSON" || return
    lesson_copy
    sed "$1" main.c >changed.c
    ! cmp -s main.c changed.c || { echo "nothing was changed by: $1"; return 1; }
    mv changed.c main.c
    make -s build
}

@test "old-branch" {
    fresh
    sql "insert into task (name, status, attempt, worker, started_at, finished_at, output, error)
         select name, status, 1, 'w', now(), case when n in (1, 2, 9) then now() end, case n when 1 then 'null'::jsonb end,
                case when n in (2, 4, 9) then 'x' end
         from (values (1, 'process_order', 'completed'), (2, 'process_order', 'failed'), (3, 'process_order', 'queued'),
                      (4, 'process_order', 'blocked'), (5, 'process_order', 'queued'), (6, 'process_order', 'queued'),
                      (7, 'dispatch', 'queued'), (8, 'process_order', 'queued'), (9, 'process_order', 'cancelled')) as t (n, name, status)
         order by n"
    # 5 has no log yet, 6 has the answer, 8 the answer to another question.
    sql "insert into event (task_id, seq, kind, name, input, result, attempt)
         select id, 0, 'step', 'charge', 'null', '\"4500 paid\"', 1 from task where id <> 5;
         insert into event (task_id, seq, kind, name, input, result, attempt)
         values (6, 1, 'version', 'fraud-check', 'null', '2', 1), (8, 1, 'version', 'other', 'null', '2', 1),
                (3, 1, 'step', 'fraud-check', 'null', 'null', 1)"
    listed=$(sql "select old_branch from old_branch('process_order', 'fraud-check') order by 1")
    same '2
3
4
8
9' "$listed"
    same 7 "$(sql "select old_branch from old_branch('dispatch', 'fraud-check')")"
    same '' "$(sql "select old_branch from old_branch('lottery', 'fraud-check')")"
}

@test "run-twice" {
    fresh
    ./lesson submit process_order '{"order": "A1", "amount": 4500, "bounces": 1}'
    ./lesson submit greet_all '["Ann", "Bob"]'
    ./lesson submit lottery
    ./lesson submit dispatch '{"order": "D1", "placed": "16:58"}'
    ./lesson submit charge_payment '{"order": "A2", "amount": 1}'
    TWICE=1 BACKOFF_MS=1 ./lesson drain
    same 'completed|5' "$(sql 'select status, count(*) from task group by 1')"
    same 'A1|1
A2|1' "$(sql 'select order_id, tries from payment order by 1')"
    same 12 "$(sql 'select count(*) from event')"
    # One that was killed between two steps goes on, and is looked at as well.
    ./lesson submit process_order '{"order": "A3", "amount": 4500, "crash": 1}'
    TWICE=1 ./lesson drain || :
    sql "update task set wake_at = now() where status = 'running'"
    TWICE=1 ./lesson drain
    same 'completed' "$(sql 'select status from task where id = 6')"
    caught() { # caught SED_SCRIPT NAME INPUT
        changed "$1"
        fresh
        ./lesson submit "$2" "$3"
        ./lesson submit "$2" "$3"
        sql "update task set queue = 'other' where id = 2"
        TWICE=1 ./lesson drain
        ./lesson drain --queue other
        same 'blocked
completed' "$(sql 'select status from task order by id')"
    }
    caught 's/durable_random(run))/roll(run, NULL)->valuedouble)/' lottery null
    caught 's/step(run, "noop", noop, cJSON_CreateNumber(i))/step(run, "noop", noop, roll(run, NULL))/' steps '{"steps": 2}'
    caught 's/^    int count = number_in(input, "steps");/    static int more; int count = number_in(input, "steps") + more++;/' steps '{"steps": 2}'
    caught 's/^    int count = number_in(input, "steps");/    static int less; int count = number_in(input, "steps") - less++;/' steps '{"steps": 2}'
}

@test "check-open" {
    fresh
    CLOCK=16:58
    export CLOCK
    ./lesson submit dispatch '{"order": "D1", "placed": "16:58", "crash": 1}'
    BUG=1 ./lesson drain || :
    ./lesson submit dispatch '{"order": "D2", "placed": "16:58", "crash": 1}'
    BUG=1 ./lesson drain || :
    sql "update task set status = 'blocked', error = 'x', claim = null, wake_at = null where id = 2"
    ./lesson submit process_order '{"order": "A1", "amount": 4500, "crash": 1}'
    ./lesson drain || :
    ./lesson submit dispatch '{"order": "D3", "placed": "16:58"}'
    sql "update task set queue = 'other' where id = 4"
    BUG=1 ./lesson drain --queue other
    ./lesson submit charge_payment '{"order": "A2", "amount": 1}'
    same 'running|2
blocked|2
running|1
completed|3
queued|0' "$(sql 'select status, (select count(*) from event where task_id = id) from task order by id')"
    everything() { sql 'select task::text from task order by id; select event::text from event order by 1; select payment::text from payment order by 1'; }
    before=$(everything)
    run ./lesson check-open
    succeeds
    prints 'task 1' 'task 2' 'task 3'
    prints_not 'task 4'
    prints_not 'task 5'
    run env BUG=1 CLOCK=17:03 ./lesson check-open
    fails 1 'event 1 of its log is step same_day, and now the function calls step next_day'
    same 2 "$(printf '%s\n' "$output" | grep -c 'now the function calls step next_day')"
    same "$before" "$(everything)"
    changed 's/{"process_order", process_order},//'
    run ./lesson check-open
    fails 1 'this worker has no function "process_order"'
    run make -s replay-check
    prints 'golden/parcel.json: dispatch: fine, 3 events'
}

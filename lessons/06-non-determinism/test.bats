load ../../common/test/helpers

# The reason for this lesson: a function that does something else than its log says is stopped

ORDER='{"order": "A1", "amount": 4500, "bounces": 1}'
PEOPLE='["Ann", "Bob", "Cid", "Dora", "Eve"]'
LOG='select seq, kind, name, input, result, error from event order by seq'
QUICK='env POLL_MS=50 TICK_MS=100 LEASE_MS=1000 BACKOFF_MS=20'

# Runs a task to its end, and then lets it be run again, with all of its log.
run_and_requeue() { # run_and_requeue NAME INPUT
    fresh
    ./lesson submit "$1" "$2" >/dev/null
    BACKOFF_MS=1 ./lesson drain >/dev/null
    sql "update task set status = 'queued', output = null, finished_at = null, max_attempts = 99"
}

# A copy of the lesson with a changed main.c.
changed() { # changed SED_SCRIPT
    lesson_copy
    sed "$1" main.c >changed.c
    ! cmp -s main.c changed.c || { echo "nothing was changed by: $1"; return 1; }
    mv changed.c main.c
    make -s build
}

original() { cd "$GUIDE/lessons/$LESSON" || return; }

blocked_with() {
    state=$(sql 'select status, error, claim, wake_at from task')
    case $state in "blocked|$1"*'. Repair the function, then: retry 1 (it goes on), replay 1 (it begins again) or cancel 1||') ;;
    *) echo "$state"; echo "should be blocked with: $1"; return 1 ;;
    esac
}

@test "the demo ends well, and its rows prove it" {    # only here
    run ./lesson
    succeeds
    prints 'All of it came true' 'task 1 is blocked: event 1 of its log is step same_day, and now the function calls step next_day'
    [ "$(sql 'select status, output from task where id = 1')" = 'completed|"goes today"' ]
}

@test "a function that does something else than its log says is stopped" {    # only here
    run_and_requeue process_order "$ORDER"
    changed 's/step(run, "charge", charge_payment/step(run, "debit", charge_payment/'
    ./lesson drain
    log=$(sql "$LOG")
    blocked_with 'event 0 of its log is step charge, and now the function calls step debit'
    [ "$(sql 'select tries from payment')" -eq 1 ]
    sleep 0.3
    $QUICK ./lesson drain
    [ "$(sql "$LOG")" = "$log" ]
    blocked_with 'event 0'
}

@test "each mutation of a function is caught, and after the repair the task completes" {    # only here
    export CLOCK=17:03
    for patch in break/*.patch; do
        task=$(sed -n 's/^Task: //p' "$patch")
        [ -n "$task" ] || continue
        original
        run_and_requeue "${task%% *}" "${task#* }"
        copy=$(mktemp -d "$BATS_TMPDIR/mutant.XXXXXX")
        sh "$GUIDE/common/break.sh" . "$patch" "$copy"
        (cd "$copy/lessons/$LESSON" && make -s build && ./lesson drain >/dev/null)
        echo "$patch"
        blocked_with "$(sed -n 's/^Blocks: //p' "$patch")"
        ./lesson retry 1
        ./lesson drain >/dev/null
        [ "$(sql 'select status, error from task')" = 'completed|' ]
        mutants=$((${mutants:-0} + 1))
    done
    [ "$mutants" -eq 6 ]
}

@test "the kept logs go on with today's functions" {    # only here
    run env CLOCK=17:03 make -s replay-check
    succeeds
    prints 'golden/order.json: process_order: fine, 4 events' 'golden/order-of-lesson-05.json: process_order: fine, 2 events'
}

@test "replay-check names what a deploy would block, asks no database, and refuses what is no log" {    # only here
    changed 's/step(run, "pack", noop/step(run, "wrap", noop/'
    run env -u DATABASE_URL make -s replay-check
    fails 2 'golden/parcel.json: dispatch: event 0 of its log is step pack, and now the function calls step wrap' \
        'golden/order.json: process_order: fine'
    changed 's/{"dispatch", dispatch},//'
    run ./lesson replay-check golden/parcel.json
    fails 1 'golden/parcel.json: dispatch: this worker has no function "dispatch"'
    original
    refused() { # refused TEXT SAYS
        echo "$1" >"$BATS_TMPDIR/a.json"
        run ./lesson replay-check "$BATS_TMPDIR/a.json"
        one_line
        fails 1 "a.json: $2"
    }
    run ./lesson replay-check nowhere.json
    one_line
    fails 1 'nowhere.json: No such file or directory'
    refused '{"name": "noop"}' 'not what export prints'
    refused '[]' 'not what export prints'
    refused '{"name": "noop", "attempt": 1' ''
    refused '{"name": "noop", "attempt": 1, "input": null, "events": [{"kind": "step"}]}' 'event 0 is not what export prints'
}

@test "export prints what replay-check reads, also of a task that is not done" {    # only here
    fresh
    ./lesson submit process_order "$ORDER"
    CRASH_AT=4 ./lesson drain || :
    ./lesson export 1 >"$BATS_TMPDIR/half.json"
    run ./lesson replay-check "$BATS_TMPDIR/half.json"
    succeeds
    prints 'process_order: fine, 1 events'
    sql "update task set wake_at = now()"
    BACKOFF_MS=1 ./lesson drain
    run ./lesson export 99
    fails 1 'there is no task 99'
}

@test "a call with another input is stopped, and shows where the two part" {    # only here
    run_and_requeue process_order "$ORDER"
    sql "update task set input = jsonb_set(input, '{amount}', '4600')"
    ./lesson drain
    blocked_with 'event 0 of its log is step charge, and now the function calls step charge; its input was {"amount":4500,"bounces":1,"order":"A1"} and is now {"amount":4600,"bounces":1,"order":"A1"}'
    run_and_requeue greet_all "[\"$(printf 'é%.0s' $(seq 200))a\"]"
    sql "update task set input = jsonb_build_array(replace(input->>0, 'a', 'b'))"
    ./lesson drain
    blocked_with 'event 0 of its log is step greet, and now the function calls step greet; its input was ...éé'
}

@test "a function that ends before its log does is stopped, whether it returns or fails" {    # only here
    run_and_requeue greet_all "$PEOPLE"
    sql "update task set input = '[\"Ann\"]'"
    ./lesson drain
    blocked_with 'event 1 of its log is step greet, and the function has ended before it'
    run_and_requeue process_order "$ORDER"
    changed 's/^    if (!charge) return fail.*/    return fail(run, "no");/'
    ./lesson drain
    blocked_with 'event 1 of its log is version fraud-check, and the function has ended before it'
}

@test "user code cannot swallow it" {    # only here
    run_and_requeue greet_all "$PEOPLE"
    changed 's/step(run, "greet", greet, cJSON_GetArrayItem(people, i))) return NULL/step(run, "hail", greet, cJSON_GetArrayItem(people, i))) continue/'
    ./lesson drain
    blocked_with 'event 0 of its log is step greet, and now the function calls step hail'
}

@test "a step that calls a step blocks its task" {    # only here
    changed 's/    if (!quiet) say("sends the mail.*/    step(run, "inner", noop, NULL);/'
    fresh
    ./lesson submit process_order "$ORDER"
    BACKOFF_MS=1 ./lesson drain
    blocked_with 'step email calls step inner: only a task'
}

@test "blocked is neither failed nor tried again; it can be retried, replayed and cancelled" {    # only here
    run_and_requeue greet_all "$PEOPLE"
    sql "update task set input = '[\"Ann\"]'"
    ./lesson drain
    ./lesson drain
    run ./lesson show 1
    prints 'a repair of its function'
    ./lesson retry 1
    ./lesson drain
    blocked_with 'event 1'
    ./lesson replay 1
    ./lesson drain
    [ "$(sql 'select status, output, (select count(*) from event) from task')" = 'completed|1|1' ]
    sql "update task set status = 'blocked', output = null, error = 'x', finished_at = null"
    ./lesson cancel 1
    [ "$(sql 'select status from task')" = cancelled ]
}

@test "a log with a hole, or with a result that is no good, blocks" {    # only here
    run_and_requeue greet_all "$PEOPLE"
    sql 'delete from event where seq = 2'
    ./lesson drain
    blocked_with 'its log has no event 2'
    sql 'update event set seq = seq - 1 where seq > 2'
    run_and_requeue greet_all "$PEOPLE"
    sql "update event set result = '1e999' where seq = 1"
    ./lesson drain
    blocked_with 'the result of greet in its log is no good'
}

@test "time, random numbers and uuids are drawn once" {
    fresh
    ./lesson submit lottery '{"crash": 1}'
    CLOCK=16:58 ./lesson drain || :
    log=$(sql "$LOG")
    sql "update task set wake_at = now()"
    CLOCK=17:03 ./lesson drain
    [ "$(sql "$LOG")" = "$log" ]
    [ "$(sql "select bool_and(output->>k = result #>> '{}') from task, (values ('drawn_at', 0), ('number', 1), ('id', 2)) v(k, n) join event on seq = n")" = t ]
    [ "$(sql "select result::text::float >= 0 and result::text::float < 1 from event where name = 'random'")" = t ]
    [ "$(sql "select (result #>> '{}')::uuid::text like '________-____-4___-____-____________' from event where name = 'uuid'")" = t ]
    for _ in 1 2 3 4; do ./lesson submit lottery; done
    ./lesson drain
    [ "$(sql "select count(distinct result::text) from event where name in ('random', 'uuid')")" -eq 10 ]
}

@test "a version is answered alike for the whole run" {    # only here
    # Recorded by the first that asks.
    run_and_requeue process_order "$ORDER"
    [ "$(sql "select result from event where kind = 'version'")" = 2 ]
    ./lesson drain
    [ "$(sql 'select status from task')" = completed ]
    # A run that came past the place before there was a question has version 1, and no check.
    sql "delete from event where kind = 'version' or name = 'fraud-check'; update event set seq = 1 where seq = 3"
    sql "update task set status = 'queued', output = null, finished_at = null"
    ./lesson drain
    [ "$(sql 'select status, (select count(*) from event) from task')" = 'completed|2' ]
    # One that stopped before the place has the newest.
    sql "delete from event where seq = 1"
    sql "update task set status = 'queued', output = null, finished_at = null"
    BACKOFF_MS=1 ./lesson drain
    [ "$(sql 'select status, (select string_agg(name, $$ $$ order by seq) from event) from task')" = 'completed|charge fraud-check fraud-check email' ]
    # Newer code takes the recorded one; older code than the log's is stopped.
    sql "update task set status = 'queued', output = null, finished_at = null"
    changed 's/version(run, "fraud-check", 2)/version(run, "fraud-check", 3)/'
    ./lesson drain
    [ "$(sql 'select status from task')" = completed ]
    sql "update task set status = 'queued', output = null, finished_at = null"
    changed 's/version(run, "fraud-check", 2)/version(run, "fraud-check", 1)/'
    ./lesson drain
    blocked_with 'its log was written by version 2 of fraud-check, and this code knows 1'
}

@test "in a loop, too: a run that began before the question has version 1 to its end" {    # only here
    run_and_requeue greet_all '["Ann", "Bob"]'
    sql "delete from event where seq = 1"
    changed 's/        if (!step(run, "greet", greet,/        if ((version(run, "polite", 2) == 2 \&\& !step(run, "bow", noop, NULL)) || !step(run, "greet", greet,/'
    ./lesson drain
    [ "$(sql 'select status, (select string_agg(name, $$ $$ order by seq) from event) from task')" = 'completed|greet greet' ]
    ./lesson submit greet_all '["Ann", "Bob"]'
    ./lesson drain
    [ "$(sql 'select string_agg(name, $$ $$ order by seq) from event where task_id = 2')" = 'polite bow greet bow greet' ]
}

@test "killed or frozen at each statement, an order ends like an undisturbed one" {    # only here
    export BACKOFF_MS=1
    crash_everywhere process_order "$ORDER" "$LOG" \
        'select status, output, error from task' \
        'select order_id, idempotency_key, amount, tries between 1 and 2 from payment'
}

@test "whoever has lost the claim leaves the function at once, and takes up new work" {    # only here
    fresh
    set -m
    ./lesson submit steps '{"steps": 3}'
    start env CRASH_AT=3:freeze $QUICK ./lesson worker --slots 1
    wait_until_said 'SIGSTOP before RecordEvent'
    kill -STOP -- "-$STARTED"       # the lookout as well: it would beat for a frozen slot
    sql "update task set wake_at = now() - interval '1 s'"
    $QUICK ./lesson drain
    kill -CONT -- "-$STARTED"
    wait_until_said 'task 1: the claim is lost, nothing was written'
    ./lesson submit noop
    wait_until "select status = 'completed' from task where id = 2"
    if grep 'slot 1 is gone' "$BATS_TMPDIR/said"; then return 1; fi
}

@test "no deadlock was seen in all this" {    # only here
    no_deadlock
}

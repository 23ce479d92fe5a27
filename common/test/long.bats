# What takes too long for every day: make test-long.  On the last lesson.

LESSON=07-durable-tasks
load helpers

ORDER='{"order": "A1", "amount": 4500, "bounces": 1}'
TRIP='{"trip": "T1", "fully_booked": "hotel"}'
TASKS='select name, input, status, output, error, parent_id is null, queue from task order by name, input::text'
LOG='select coalesce(parent.name, task.name), seq, kind, log.name, log.input, log.result, log.error, open
     from log join task on task.id = task_id left join task parent on parent.id = task.parent_id
     order by task_id, seq'
PAYMENTS='select order_id, amount, tries between 1 and 3 from payment order by order_id'
BOOKINGS='select trip_id, what, state from booking order by trip_id, what'

# Dies at one point, and whoever goes on dies at another, for all pairs of points.
crash_in_pairs() { # crash_in_pairs FORM NAME INPUT ROWS...
    local how=$1 name=$2 input=$3 n m want pairs=0
    shift 3
    fresh
    no_back_off
    begin "$name" "$input"
    finish
    want=$(rows "$@")
    for n in $(seq 500); do
        for m in $(seq 500); do
            begin "$name" "$input"
            die_at "$n$how" || break 2
            sql "update task set wake_at = now() where status in ('running', 'waiting') and wake_at is not null"
            die_at "$m" || break
            bad_if "$n$how, then $m" finish
            bad_if "$n$how, then $m" same "$want" "$(rows "$@")"
            bad_if "$n$how, then $m" healthy
            pairs=$((pairs + 1))
        done
    done
    echo "$name: $pairs pairs"
    [ "${BAD:-0}" -eq 0 ] || { echo "$BAD bad pairs"; return 1; }
    [ "$pairs" -gt 100 ]
    tally "$pairs" 'pairs of crash points'
}

@test "killed at one statement and then at another, an order ends like an undisturbed one" {
    crash_in_pairs '' process_order "$ORDER" "$TASKS" "$LOG" "$PAYMENTS"
}

@test "one answer is lost and then there is a kill: an order ends like an undisturbed one" {
    crash_in_pairs :lost process_order "$ORDER" "$TASKS" "$LOG" "$PAYMENTS"
}

@test "killed at one statement and then at another, a saga ends like an undisturbed one" {
    crash_in_pairs '' book_trip "$TRIP" "$TASKS" "$LOG" "$BOOKINGS"
}

# Each worker's first slot is killed, frozen or cut off at a random point, and so is its lookout.
@test "random points on several workers at once: everything ends as it should" {
    RANDOM=${SEED:=$RANDOM}     # SEED=n plays it again, as far as the processes let it
    echo "SEED=$SEED"
    echo "# random points: SEED=$SEED" >&3
    set -m
    forms=('' :after :lost :freeze)
    for round in $(seq "${ROUNDS:-30}"); do
        fresh
        for i in $(seq 20); do
            ./lesson submit process_order "{\"order\": \"O$i\", \"amount\": $i, \"ms\": $((RANDOM % 20))}" >/dev/null
        done
        for i in 1 2 3 4; do ./lesson submit fan_out '{"children": 5, "name": "fan_out", "input": {"children": 3}}' >/dev/null; done
        for i in 1 2 3 4; do ./lesson submit book_trip "{\"trip\": \"T$i\", \"fully_booked\": \"hotel\"}" >/dev/null; done
        sql 'update task set max_attempts = 100'
        workers=
        for i in 1 2 3; do
            who=
            [ $((RANDOM % 4)) -gt 0 ] || who=lookout:
            (exec env CRASH_AT="$who$((1 + RANDOM % 40))${forms[RANDOM % 4]}" POLL_MS=20 TICK_MS=50 LEASE_MS=400 BACKOFF_MS=5 \
                ./lesson worker --slots 2) >>"$BATS_TMPDIR/said" 2>&1 3>&- &
            workers="$workers $!"
        done
        tries=0
        until [ "$(sql "select count(*) from task where $OPEN")" -eq 0 ]; do
            [ $((tries += 1)) -lt 200 ] || { sql 'select * from task'; return 1; }
            sleep 0.5       # longer than a lease: then who is frozen thaws
            for worker in $workers; do kill -CONT -- "-$worker" 2>/dev/null || :; done
        done
        for worker in $workers; do kill -KILL -- "-$worker" 2>/dev/null || :; wait "$worker" || :; done
        cut_all
        got=$(rows "select name, status, count(*) from task group by 1, 2 order by 1, 2" 'select count(*), max(tries) <= 2 from payment' "select state, count(*) from booking group by 1")
        [ "$got" = 'book_flight|completed|4
book_hotel|failed|4
book_trip|failed|4
cancel_flight|completed|4
charge_payment|completed|20
fan_out|completed|24
noop|completed|60
process_order|completed|20
send_confirmation_email|completed|20
20|t
cancelled|4' ] || { echo "round $round"; echo "$got"; return 1; }
        healthy
    done
    fired=$(grep -c CRASH_AT "$BATS_TMPDIR/said")
    [ "$fired" -ge "$round" ]
    tally "$fired" 'random points on three workers'
}

@test "no deadlock was seen in all this" {
    no_deadlock
}

@test "a server that hangs: neither the start nor the stop of it waits for ever, and both say where its log is" {
    state=$(mktemp -d "$BATS_TMPDIR/state.XXXXXX")/new
    postgres_sh() { run env -u DATABASE_URL HARDWAY_STATE="$state" YES=1 sh "$GUIDE/common/postgres.sh" "$@"; }
    postgres_sh url
    succeeds
    read -r pid <"$state/data/postmaster.pid"
    find "$(sed -n 5p "$state/data/postmaster.pid")" -name '.s.PGSQL.5432' -delete
    postgres_sh url
    fails 1 'does not accept connections' "Its log is $state/log" 'make db-stop'
    kill -STOP "$pid"
    postgres_sh stop
    fails 1 'does not stop' "Its log is $state/log"
    kill -CONT "$pid"
    postgres_sh destroy
    succeeds
}

load ../../common/test/helpers

ORDER='{"order": "A1", "amount": 4500}'

# What `show` prints in a column, of the only task.  Numbers stand at the right of theirs.
shown() { # shown COLUMN
    ./lesson show | awk -v column="$1" '
        NR == 1 { from = index($0, column) }
        NR == 2 && from {
            while (from > 1 && substr($0, from - 1, 1) != " ") from--
            $0 = substr($0, from)
            print $1
        }'
}

shows() { # shows EVENTS
    [ "$(shown events)" = "$1" ] || { ./lesson show; echo "task 1 should have $1 events"; return 1; }
}

@test "progress" {
    fresh
    ./lesson submit steps '{"steps": 12}'
    shows 0
    # Claimed, and five steps recorded.
    CRASH_AT=7 ./lesson drain || true
    shows 5
    [ "$(shown last_event)" = "$(sql 'select max(at)::time(0) from event')" ]
    sql "update event set at = at - interval '3 h' + seq * interval '1 min'"
    [ "$(shown last_event)" = "$(sql 'select at::time(0) from event where seq = 4')" ]
    sql "update task set wake_at = now()"
    ./lesson drain
    shows 12
    ./lesson replay 1
    shows 0
}

@test "retry-step" {
    log() { sql 'select seq, name, result, error, attempt from event where task_id = 1 order by seq'; }
    export BACKOFF_MS=1
    fresh
    ./lesson submit process_order '{"order": "A1", "amount": 4500, "bounces": 3}'
    ./lesson drain
    failed=$(log)
    [ "$failed" = '0|charge|"4500 paid"||1
1|email||the mail server does not answer|1' ]
    # Still down: it is called again, and its error is recorded anew.
    ./lesson retry 1
    run ./lesson retry 1
    fails 1 'task 1 is queued and cannot be retried'
    ./lesson drain
    again=$(log)
    [ "$again" = "${failed%1}2" ] || { echo "$again"; return 1; }
    # The mail server is there again.
    sql "update task set input = '$ORDER'"
    ./lesson retry 1
    ./lesson drain
    [ "$(sql 'select status, attempt, output from task')" = 'completed|3|"4500 paid"' ]
    [ "$(log)" = '0|charge|"4500 paid"||1
1|email|"sent"||3' ]
    [ "$(sql 'select tries from payment')" -eq 1 ]
    # An error that the function has lived with is no hole in its log.
    sql "update event set result = null, error = 'no' where seq = 0; update task set status = 'cancelled', output = null"
    ./lesson retry 1
    [ "$(sql 'select seq from event order by seq')" = '0
1' ]
    # Who is refused has forgotten nothing.
    sql "update event set result = null, error = 'no' where seq = 1;
         update task set status = 'completed', output = 'null', finished_at = now(), wake_at = null"
    before=$(log)
    run ./lesson retry 1
    fails 1 'task 1 is completed and cannot be retried'
    [ "$(log)" = "$before" ]
}

@test "one-transaction" {
    export BACKOFF_MS=1 TICK_MS=100 LEASE_MS=1000
    # Who waits for a frozen one for much longer than a lease is told so, and does not hang.
    no_lock_timeout() { sql 'alter role current_user reset lock_timeout'; }
    AFTERWARDS=no_lock_timeout
    sql "alter role current_user set lock_timeout = '10s'"
    # Killed or frozen anywhere, the card is charged once: the bank is asked once, too.
    crash_everywhere process_order "$ORDER" \
        'select seq, kind, name, input, result, error from event order by seq' \
        'select status, output, error from task' \
        'select order_id, idempotency_key, amount, tries from payment'
    # A step that has charged and then fails has not charged, and its error is remembered.
    lesson_copy
    sed -i.was '/^static cJSON \*charge_payment/,/^}/s/    nap(run, order);/    if (number_in(order, "cut")) return fail(run, "the line was cut");/' main.c
    make -s build
    fresh
    ./lesson submit process_order '{"order": "A1", "amount": 1, "cut": 1}'
    ./lesson submit process_order '{"order": "A2", "amount": 2}'
    ./lesson drain
    [ "$(sql 'select status, error from task order by id')" = 'failed|payment: the line was cut
completed|' ]
    [ "$(sql 'select name, error from event where task_id = 1')" = 'charge|the line was cut' ]
    [ "$(sql 'select order_id from payment')" = A2 ]
}

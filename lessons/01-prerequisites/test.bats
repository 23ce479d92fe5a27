load ../../common/test/helpers

@test "the demo ends well, and its rows prove it" {
    run ./lesson
    succeeds
    prints 'All of it came true' '1  greet  {"to": 1}  completed  left' '2  greet  {"to": 2}  completed  right'
}

@test "for update makes the second process wait" {
    run ./lesson
    prints 'right waits for left, says Postgres'
}

@test "skip locked passes over a locked row" {
    run ./lesson
    prints_not 'with skip locked, right does not wait for left'
    succeeds
}

@test "a rollback leaves nothing behind" {
    run ./lesson
    prints_not 'a rollback leaves nothing behind'
    succeeds
}

@test "a lock dies with its process" {
    run ./lesson
    prints_not 'the lock of a dead process is gone'
    succeeds
}

# Left is killed after it has said what it got, and its output is a pipe here.
@test "a killed process has said all that it said" {
    run ./lesson
    said=$(printf '%s\n' "$output" | sed -n '/kill -9: /,/left is dead/p' | grep -c 'left .* got task 1') || :
    [ "$said" -eq 1 ] || { echo "left said nothing"; return 1; }
}

@test "show prints the rows, and nothing is left running" {
    ./lesson >/dev/null
    run ./lesson show
    succeeds
    prints 'completed  right'
    [ "$(sql "select count(*) from pg_stat_activity where application_name = '$SCHEMA'")" -eq 0 ]
}

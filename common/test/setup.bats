# What set-up says when it cannot go on.  Each message is in the table of the front page.

load helpers

# A PATH with nothing in it but these, and stand-ins.
bare() { # bare TOOL...
    BARE=$(mktemp -d "$BATS_TMPDIR/bare.XXXXXX")
    chmod 755 "$BARE"
    local tool
    for tool in sh env grep sed cut cat id awk tr sort uname readlink cksum ls find mktemp rm head tail dirname sleep mkdir ln mv chmod chown test su "$@"; do
        ! command -v "$tool" >/dev/null || ln -s "$(command -v "$tool")" "$BARE/$tool"
    done
}

stand_in() { # stand_in PROGRAM BODY: never through a link to the real one
    rm -f "$BARE/$1"
    printf '#!/bin/sh\n%s\n' "$2" >"$BARE/$1"
    chmod +x "$BARE/$1"
}

in_table() { # in_table WORDS...: the front page has them
    local words
    for words; do
        grep -qF "$words" "$GUIDE/README.md" || { echo "README.md does not list: $words"; return 1; }
    done
}

setup_sh() { run env -i PATH="$BARE" HOME="$HOME" sh "$GUIDE/common/setup.sh" "$@"; }
postgres_sh() { run env -u DATABASE_URL HARDWAY_STATE="$STATE" sh "$GUIDE/common/postgres.sh" "$@"; }

@test "what is missing is named, with the line for the package manager that is there" {
    local line
    for line in 'dnf: gcc ' 'pacman: -S --needed' 'apk: add gcc' 'zypper: install' 'brew: install gcc'; do
        bare
        stand_in "${line%%:*}" 'exit 1'
        setup_sh run
        fails 1 'Missing for make run:' 'compiles the lessons' 'To install them:' "${line%%:*}" "${line#*: }"
    done
    in_table 'Missing for make'
}

@test "without a package manager that it knows, it says so" {
    bare
    setup_sh run
    fails 1 'no package manager here that this script knows' 'Install what is named above'
    in_table 'no package manager here that this script knows'
}

@test "who may not install says whom to ask" {
    [ "$(id -u)" -eq 0 ] || skip "only root can be somebody else"
    bare
    stand_in apt-get 'exit 1'
    run su -s /bin/sh nobody -c "cd / && env -i PATH='$BARE' sh '$GUIDE/common/setup.sh' run </dev/null"
    fails 1 'only an administrator can install them' 'Ask one to run: apt-get install'
    in_table 'only an administrator can install them'
}

@test "make doctor says what is missing, what is too old, and which Postgres is taken of two" {
    bare
    stand_in apt-get 'exit 1'
    setup_sh doctor
    succeeds
    prints 'package gcc' 'package bats' 'To install what is missing:' 'apt-get install'
    stand_in bats 'echo "Bats 1.1.0"'
    stand_in pg_config 'case $1 in --bindir) echo /nowhere ;; *) echo "PostgreSQL 13.4" ;; esac'
    setup_sh doctor
    succeeds
    prints '1.1.0 old' '13.4 old'

    for version in 13.9 15.7; do
        bare
        stand_in postgres "echo 'postgres (PostgreSQL) $version'"
        stand_in pg_ctl 'exit 1'
        stand_in initdb 'exit 1'
        run env -u DATABASE_URL PATH="$BARE:$PATH" HARDWAY_STATE="$BATS_TMPDIR/none" sh "$GUIDE/common/postgres.sh" bin
        succeeds
        if [ "$version" = 15.7 ]; then [ "$output" = "$BARE" ]; else [ "$output" != "$BARE" ]; fi
    done
}

@test "without a server of version 14 or later, and where root's Postgres cannot reach its directory, it says so" {
    [ "$(id -u)" -eq 0 ] || skip "only root can hide a server, and runs it as somebody else"
    command -v unshare >/dev/null || skip "it needs unshare"
    bare
    # shellcheck disable=SC2016  # the other shell's
    run unshare -m sh -c 'for dir in /usr/lib/postgresql /usr/libexec; do [ ! -d $dir ] || mount -t tmpfs none $dir || exit 99; done
        env -i PATH="$1" HARDWAY_STATE=/tmp/none sh "$2" url' sh "$BARE" "$GUIDE/common/postgres.sh"
    [ "$status" -ne 99 ] || skip "it needs to mount"
    fails 1 'no Postgres server, version 14 or later' 'make doctor'
    in_table 'no Postgres server, version 14 or later'

    closed=$(mktemp -d /root/hardway-test.XXXXXX)
    chmod 700 "$closed"
    STATE=$closed/state
    postgres_sh url
    rm -rf "$closed"
    fails 1 'who runs Postgres for root, cannot reach' 'Set HARDWAY_STATE'
    in_table 'who runs Postgres for root, cannot reach'
}

@test "an installation that is refused, fails or does not help says so" {
    [ "$(id -u)" -eq 0 ] || skip "only root installs without being asked for a password"
    command -v script >/dev/null || skip "it needs script, for a terminal"
    bare rmdir
    stand_in apt-get 'echo "no network"; exit 1'
    stand_in apt-cache 'exit 0'
    setup_sh run </dev/null
    fails 1 'no network' 'apt-get could not install them' 'To see why: apt-get install'
    stand_in apt-get 'exit 0'
    setup_sh run </dev/null
    fails 1 'still missing after apt-get' 'make doctor'
    run script -qec "env -i PATH='$BARE' sh '$GUIDE/common/setup.sh' run" /dev/null <<<n
    prints 'they are not installed' 'To install them: apt-get install'
    in_table 'apt-get could not install them' 'still missing after apt-get' 'they are not installed'
}

@test "what stands in the way of the private server is named" {
    STATE=$(mktemp -d "$BATS_TMPDIR/state.XXXXXX")/new
    postgres_sh destroy
    fails 1 'nothing to remove'
    postgres_sh url
    succeeds
    YES='' postgres_sh destroy </dev/null
    fails 1 'Nobody is here to ask' 'YES=1 make db-destroy'
    YES=1 postgres_sh destroy
    succeeds
    mkdir -p "$STATE/data.new"
    chmod 755 "$STATE/data.new"
    : >"$STATE/data.new/file"
    bare
    stand_in rm 'exit 0'
    run env -u DATABASE_URL PATH="$BARE:$PATH" HARDWAY_STATE="$STATE" sh "$GUIDE/common/postgres.sh" url
    fails 1 'is not a directory of user' 'Remove it, then try again'
    bare
    stand_in id 'case $* in -u) echo 12345 ;; *) exit 1 ;; esac'
    run env -u DATABASE_URL PATH="$BARE:$PATH" HARDWAY_STATE="$STATE.2" sh "$GUIDE/common/postgres.sh" url
    fails 1 'has no name, and Postgres wants one' 'set DATABASE_URL'
    bare
    stand_in sleep 'exit 0'
    mkdir "$STATE.3"
    ln -s $$ "$STATE.3/lock"
    run env -u DATABASE_URL PATH="$BARE:$PATH" HARDWAY_STATE="$STATE.3" sh "$GUIDE/common/postgres.sh" url
    fails 1 'has been starting Postgres for too long' 'rm '
    in_table 'nothing to remove' 'Nobody is here to ask' 'is not a directory of user' 'has no name, and Postgres wants one' 'has been starting Postgres for too long'
}

@test "a directory that is not ours is left alone" {
    STATE=$(mktemp -d "$BATS_TMPDIR/state.XXXXXX")
    mkdir "$STATE/data"
    echo mine >"$STATE/data/file"
    postgres_sh url
    fails 1 'is not a data directory of yours that this guide made' 'Move it away, or set HARDWAY_STATE'
    [ "$(cat "$STATE/data/file")" = mine ]
    in_table 'is not a data directory of yours'
}

@test "a cluster of another version is named, and what to do" {
    STATE=$(mktemp -d "$BATS_TMPDIR/state.XXXXXX")
    mkdir "$STATE/data"
    echo 9 >"$STATE/data/PG_VERSION"
    : >"$STATE/checkout"
    postgres_sh url
    fails 1 'was made by Postgres 9, which is not here any more' 'make db-destroy'
    in_table 'was made by Postgres' 'which is not here any more'
}

@test "a directory that cannot be written to is named" {
    STATE=/proc/nowhere
    postgres_sh url
    fails 1 'cannot write to the directory /proc/nowhere' 'Set HARDWAY_STATE'
    in_table 'cannot write to the directory'
}

@test "a cluster that cannot be made says why" {
    bare
    stand_in postgres 'echo "postgres (PostgreSQL) 15.0"'
    stand_in pg_ctl 'exit 1'
    stand_in initdb 'echo "initdb: error: could not write: No space left on device" >&2; exit 1'
    STATE=$(mktemp -d "$BATS_TMPDIR/state.XXXXXX")/new
    run env -u DATABASE_URL PATH="$BARE:$PATH" HARDWAY_STATE="$STATE" sh "$GUIDE/common/postgres.sh" url
    fails 1 'cannot make a private Postgres' 'No space left on device' 'Set HARDWAY_STATE to another directory'
    [ ! -e "$STATE/data" ]
    in_table 'cannot make a private Postgres'
}

@test "a server that does not start says why, and where its log is" {
    STATE=$(mktemp -d "$BATS_TMPDIR/state.XXXXXX")/new
    postgres_sh url
    succeeds
    postgres_sh stop
    echo 'no_such_setting = 1' >>"$STATE/data/postgresql.conf"
    postgres_sh url
    fails 1 'Postgres did not start' 'contains errors' "$STATE/log" 'make db-destroy'
    sed -i.bak '$d' "$STATE/data/postgresql.conf"
    postgres_sh url
    succeeds
    YES=1 postgres_sh destroy
    [ ! -e "$STATE/data" ]
    in_table 'Postgres did not start'
}

answers() { # answers URL
    [ "$(env -u PGHOST -u PGPORT -u PGUSER -u PGDATABASE -u PGSERVICE -u PGOPTIONS psql -XAtc 'select 6 * 7' "$1")" = 42 ]
}

@test "a private server comes up from a long path with spaces, with umask 077, in another locale, and with nonsense in PG*" {
    STATE="$BATS_TMPDIR/a b ü'c/$(printf 'x%.0s' $(seq 200))"
    umask 077
    run env -u DATABASE_URL LC_ALL=de_DE.UTF-8 PGHOST=nowhere PGPORT=x PGUSER=nobody PGDATABASE=none PGSERVICE=none PGOPTIONS=--none \
        HARDWAY_STATE="$STATE" sh "$GUIDE/common/postgres.sh" url
    umask 022
    succeeds
    answers "${lines[-1]}"
    YES=1 postgres_sh destroy
    succeeds
    [ ! -e "$STATE/data" ]
}

@test "two who start a private server at once get the same one, and after a power cut it comes up again" {
    STATE=$(mktemp -d "$BATS_TMPDIR/state.XXXXXX")/new
    for i in 1 2; do
        (env -u DATABASE_URL HARDWAY_STATE="$STATE" sh "$GUIDE/common/postgres.sh" url) >"$BATS_TMPDIR/url.$i" 2>"$BATS_TMPDIR/said.$i" 3>&- &
        pids="${pids:-} $!"
    done
    for pid in $pids; do wait "$pid"; done
    cmp "$BATS_TMPDIR/url.1" "$BATS_TMPDIR/url.2"
    [ "$(cat "$BATS_TMPDIR"/said.[12] | grep -c 'Making a private Postgres')" -eq 1 ]
    answers "$(cat "$BATS_TMPDIR/url.1")"

    read -r pid <"$STATE/data/postmaster.pid"
    children=$(pgrep -P "$pid" | tr '\n' ' ')
    # shellcheck disable=SC2086  # they are words
    kill -KILL "$pid" $children
    sed -i.bak "1s/.*/$$/" "$STATE/data/postmaster.pid"     # the number is now another process's
    postgres_sh url
    succeeds
    answers "${lines[-1]}"
    YES=1 postgres_sh destroy
    succeeds
}

@test "in a checkout that cannot be written to, make run says so" {
    copy=$(mktemp -d "$BATS_TMPDIR/closed.XXXXXX")
    cp -R "$GUIDE/common" "$GUIDE/lessons" "$GUIDE/Makefile" "$copy/"
    rm -f "$copy"/lessons/*/lesson
    chmod 755 "$copy"
    chmod -R a-w "$copy"
    if [ "$(id -u)" -eq 0 ]; then run su -s /bin/sh nobody -c "cd '$copy' && make run"
    else run make -C "$copy" run
    fi
    chmod -R u+w "$copy"
    fails 2 'cannot be written to' 'clone the guide into a folder of yours'
    in_table 'This folder cannot be written to'
}

@test "without Docker, or when it does not answer, or its port is taken, make db-docker says so" {
    bare
    STATE=$(mktemp -d "$BATS_TMPDIR/state.XXXXXX")
    docker_sh() { run env -i PATH="$BARE" HARDWAY_STATE="$STATE" sh "$GUIDE/common/postgres.sh" docker; }
    docker_sh
    fails 1 'docker is not installed' 'make run'
    stand_in docker 'exit 1'
    docker_sh
    fails 1 "this docker has no 'docker compose'" 'make run'
    stand_in docker '[ "$1" = compose ]'
    docker_sh
    fails 1 'the Docker daemon does not answer'
    stand_in docker 'case $* in *up*) echo "Bind for 127.0.0.1:54329 failed: port is already allocated"; exit 1 ;; esac'
    docker_sh
    fails 1 'port 54329 is taken' 'make db-stop'
    stand_in docker 'case $* in *up*) echo "no such image"; exit 1 ;; esac'
    docker_sh
    fails 1 'docker compose cannot start Postgres: no such image' 'docker compose -f'
    in_table "this docker has no 'docker compose'" 'docker compose cannot start Postgres' 'docker is not installed' 'the Docker daemon does not answer' 'port 54329 is taken'
}

@test "a URL that does not answer is named, without its password" {
    DATABASE_URL='postgres://u:s3cret@127.0.0.1:1/x' run ./lesson
    fails 1 'cannot connect to Postgres'
    prints_not s3cret
    in_table 'cannot connect to Postgres' 'DATABASE_URL is not set'
}

@test "the front page lists no message that nobody prints" {
    while IFS= read -r words; do
        grep -qF -- "$words" "$GUIDE"/common/*.sh "$GUIDE"/common/*.c "$GUIDE"/common/*.sql "$GUIDE"/common/*.mk || { echo "nobody says: $words"; return 1; }
    done < <(sed -n '/^| it says/,/^$/p' "$GUIDE/README.md" | sed 1,2d | cut -d '|' -f 2 | grep -o '`[^`]*`' | tr -d '`')
}

#!/bin/sh
# Finds the Postgres that the lessons use, or makes one. In this order:
#
#   DATABASE_URL, if it is set: yours, and this script leaves it alone;
#   what `make db-docker` started;
#   a private cluster, made from the Postgres programs of this machine: through a Unix
#   socket only, for you only, with durable settings, kept from run to run.
#
# All it keeps is in one directory per checkout and user (or in $HARDWAY_STATE):
#   data/     the private cluster            log       its server's log
#   socket/   where it listens               checkout  which checkout it serves
#   docker    there if docker was chosen     lock      there while a server starts
#
# usage: postgres.sh url | with COMMAND ... | start | stop | status | destroy | docker | why | bin | dir
set -eu
locale=${LC_ALL-}
export LC_ALL=C             # messages that we can read, lengths in bytes

say() { printf '%s\n' "$*" >&2; }
die() {                     # die WHAT [WHAT TO TYPE NEXT]
    say "postgres.sh: $1"
    [ -z "${2:-}" ] || say "$2"
    exit 1
}

# --- Where things are ------------------------------------------------------------

case $0 in */*) common=${0%/*} ;; *) common=. ;; esac
checkout=$(CDPATH='' cd -- "$common/.." && pwd -P)
checksum() { set -- "$(printf %s "$1" | cksum)"; printf %s "${1%% *}"; }
uid=$(id -u)

find_state() {
    if [ -n "${HARDWAY_STATE:-}" ]; then
        case $HARDWAY_STATE in /*) state=$HARDWAY_STATE ;; *) state=$PWD/$HARDWAY_STATE ;; esac
        state=${state%/}
        ! real=$(cd -- "$state" 2>/dev/null && pwd -P) || state=$real
        id=$(checksum "$state")
    else
        id=$(checksum "$checkout")
        state=/var/lib
        [ "$uid" = 0 ] || state=${XDG_STATE_HOME:-${HOME:-}/.local/state}
        state=$state/durable-the-hard-way/$id
    fi
    data=$state/data

    # A socket's path ends at 103 bytes on macOS (107 elsewhere), and has to pass through
    # postgresql.conf and a URL. Where the directory's name is too long or too odd for
    # that, the socket is under /tmp.
    socket=$state/socket
    case $socket in *[!A-Za-z0-9/._+-]*) socket= ;; esac
    if [ -z "$socket" ] || [ ${#socket} -gt 89 ]; then socket=/tmp/hardway-$uid-$id; fi
}

# Finds the programs of Postgres $1, or of any from 14 on if $1 is empty, into $bin.
find_bin() {
    seen=
    path=$(command -v postgres) || path=
    path=$(readlink -f "$path" 2>/dev/null) || path=$(command -v postgres) || path=
    ! right_bin "${path%/*}" "$1" || return 0
    ! right_bin "$(pg_config --bindir 2>/dev/null)" "$1" || return 0
    installed=
    for dir in /usr/lib/postgresql/*/bin /usr/libexec/postgresql* /usr/pgsql-*/bin \
        /opt/homebrew/opt/postgresql@*/bin /usr/local/opt/postgresql@*/bin; do
        installed="$dir $installed"                                 # the newest comes first
    done
    for dir in $installed; do
        ! right_bin "$dir" "$1" || return 0
    done
    [ -z "$1" ] || die "$data was made by Postgres $1, which is not here any more$seen." \
        "Install Postgres $1; or begin afresh: make db-destroy"
    die "no Postgres server, version 14 or later$seen." \
        "To see how to get one: make doctor; or set DATABASE_URL; or: make db-docker"
}

right_bin() {               # right_bin DIRECTORY VERSION
    [ -x "$1/initdb" ] && [ -x "$1/pg_ctl" ] || return 1
    version=$("$1/postgres" --version 2>/dev/null) || return 1
    version=${version#*) } version=${version%% *}
    major=${version%%[!0-9]*}
    bin=$1
    seen=" (there is $version in $bin)"
    [ "$major" = "${2:-$major}" ] && [ "$major" -ge 14 ]
}

find_bin_for_data() {
    [ -e "$data" ] || { find_bin ""; return; }
    if [ -r "$data/PG_VERSION" ] && [ -e "$state/checkout" ]; then
        find_bin "$(cat "$data/PG_VERSION")"
    else
        die "$data is not a data directory of yours that this guide made." \
            "Move it away, or set HARDWAY_STATE to another directory."
    fi
}

# --- The private cluster ---------------------------------------------------------

# After a power cut the number in the pid file may be any process. Ours is the one that
# we gave its name.
running() {
    pid='' status=''
    [ -r "$data/postmaster.pid" ] || return 1
    { read -r pid; for _ in 2 3 4 5 6 7 8; do read -r status; done; } <"$data/postmaster.pid" || :
    [ -n "$pid" ] && kill -0 "$pid" 2>/dev/null || return 1
    if [ -r "/proc/$pid/cmdline" ]; then grep -qs "cluster_name=hardway-$id" "/proc/$pid/cmdline"
    else ps -ww -o args= -p "$pid" 2>/dev/null | grep -q "cluster_name=hardway-$id"
    fi
}
accepting() { running && [ "$status" = ready ] && [ -S "$socket/.s.PGSQL.5432" ]; }

# Runs a line of shell as the user who owns the server, in the state directory: so the
# line can do with names that need no quoting. A server must not keep our pipes open.
as_owner() {
    if [ "$uid" != 0 ]; then set -- sh -c "$1"
    elif command -v runuser >/dev/null; then set -- runuser -u "$owner" -- sh -c "$1"
    else set -- su -s /bin/sh "$owner" -c "$1"
    fi
    (cd -- "$state" && exec "$@" 3>&- 4>&- 5>&- 6>&- 7>&- 8>&- 9>&-)
}

own_directory() {           # own_directory PATH: it exists, the owner's alone
    mkdir -m 0700 "$1" 2>/dev/null && [ "$uid" = 0 ] && chown "$owner" "$1"
    [ -n "$(find "$1" -prune -type d -user "$owner" -perm 0700 2>/dev/null)" ] ||
        die "$1 is not a directory of user $owner, mode 0700." "Remove it, then try again."
}

make_state() {
    umask 077
    [ "$uid" != 0 ] || umask 022
    if ! mkdir -p -- "$state" 2>/dev/null || ! [ -w "$state" ]; then
        die "cannot write to the directory $state." "Set HARDWAY_STATE to a directory of yours."
    fi
    find_state              # it exists now, and its name can be resolved
}

find_owner() {
    me=$(id -un 2>/dev/null) || die "user $uid has no name, and Postgres wants one." \
        "Give it a line in /etc/passwd, or set DATABASE_URL."
    owner=$me
    [ "$uid" = 0 ] || return 0

    # Postgres refuses to run as root, so an ordinary user owns data and server. That user
    # has to get there: a directory from mktemp is closed, we let it pass through.
    owner=nobody
    ! id postgres >/dev/null 2>&1 || owner=postgres
    [ ! -e "$data" ] || owner=$(find "$data" -prune -exec ls -ld {} + | awk '{ print $3 }')
    dir=$state
    while chmod go+x "$dir"; do
        dir=${dir%/*}
        case $dir in /tmp/*) ;; *) break ;; esac
    done
    as_owner "cd \"\$(pwd -P)\" && test -x '$bin/postgres'" 2>/dev/null ||
        die "user $owner, who runs Postgres for root, cannot reach $state or $bin." \
            "Set HARDWAY_STATE to a directory that $owner can reach, such as /var/lib/hardway"
}

# Two lessons may be started at once. A symbolic link is made in one step and holds the
# number of its maker, so one that was left behind is known.
lock() {
    tries=0
    until ln -s $$ "$state/lock" 2>/dev/null; do
        holder=$(readlink "$state/lock") || holder=unknown
        tries=$((tries + 1))
        [ $tries -lt 900 ] || die "process $holder has been starting Postgres for too long." \
            "If it does no such thing: rm '$state/lock'"
        if kill -0 "$holder" 2>/dev/null; then sleep 0.1; else rm -f "$state/lock"; fi
    done
    trap 'rm -f "$state/lock"' EXIT
    trap 'exit 1' HUP INT TERM
}

init_cluster() {
    locale=C
    ! locale -a 2>/dev/null | grep -qix 'c\.utf-*8' || locale=C.UTF-8
    as_owner "'$bin/initdb' -D data.new -U postgres -A peer --encoding=UTF8 --locale=$locale" &&
    as_owner 'cat >>data.new/postgresql.conf' <<EOF &&

# Added by durable-the-hard-way: a private cluster, reached through its socket only.
listen_addresses = ''
unix_socket_directories = '$socket'
unix_socket_permissions = 0700
max_connections = 100
# The lessons are about surviving crashes.
fsync = on
synchronous_commit = on
full_page_writes = on
EOF
    as_owner 'cat >data.new/pg_hba.conf' <<EOF &&
# The system users that pg_ident.conf names, through the socket. Nobody else, no network.
local all all peer map=owner
EOF
    as_owner 'cat >data.new/pg_ident.conf' <<EOF &&
owner "$me" postgres
owner "$owner" postgres
EOF
    printf '%s\n' "$checkout" >"$state/checkout" &&
    mv "$state/data.new" "$data"            # until here, half a cluster was not taken for one
}

create() {
    say "Making a private Postgres $version in $state"
    say "It runs until make db-stop; make db-destroy removes it."
    rm -rf "$state/data.new"
    own_directory "$state/data.new"
    out=$(init_cluster 2>&1) && return
    rm -rf "$state/data.new"
    die "cannot make a private Postgres: $(printf '%s\n' "$out" |
        grep -Ei 'error|fatal|space|denied|cannot' | head -n 1)" \
        "Set HARDWAY_STATE to another directory, or DATABASE_URL to a Postgres of yours."
}

launch() {
    tries=0
    while running && ! accepting; do        # it is starting, or stopping
        tries=$((tries + 1))
        [ $tries -lt 600 ] || die "Postgres (process $pid) does not accept connections." \
            "Its log is $state/log. Then: make db-stop"
        sleep 0.1
    done
    ! running || return 0
    # Postgres would take another process with that number for its old self, and refuse. We
    # write a number that is free, and leave to Postgres what the rest of the file says.
    if [ -n "$pid" ] && kill -0 "$pid" 2>/dev/null; then
        rest=$(sed 1d "$data/postmaster.pid")
        printf '%s\n' "$(sh -c 'echo $$')" "$rest" | as_owner 'cat >data/postmaster.pid'
        rm -f "$socket/.s.PGSQL.5432" "$socket/.s.PGSQL.5432.lock"
    fi
    own_directory "$socket"
    # The server's log, to be read by its owner only.
    [ -e "$state/log" ] || (umask 077 && : >"$state/log" && chown "$owner" "$state/log")
    start="'$bin/pg_ctl' start -D data -l log -s -w -t 60 -o --cluster_name=hardway-$id"
    until as_owner "$start" </dev/null >/dev/null 2>&1; do
        tries=$((tries + 1))
        why=$(tail -n 20 "$state/log" | grep -E 'FATAL|PANIC|ERROR' | tail -n 1)
        # A server that was killed leaves processes, which take a moment to notice.
        case $why in *'shared memory block'*)
            [ $tries -gt 20 ] || { sleep 1; continue; } ;;
        esac
        die "Postgres did not start. ${why:-It gave no reason.}" \
            "Its log is $state/log. Then: make db-start; or begin afresh: make db-destroy"
    done
}

start_private() {
    ! accepting || return 0
    find_bin_for_data
    make_state
    find_owner
    lock
    if ! accepting; then
        if [ ! -e "$data" ]; then create
        else say "Starting the private Postgres. It runs until make db-stop."
        fi
        launch
    fi
    rm -f "$state/lock"
    trap - EXIT HUP INT TERM
    running
}

stop_private() {
    tries=0
    while running; do
        [ $tries -gt 0 ] || kill -INT "$pid"        # a fast shutdown: it cuts connections
        tries=$((tries + 1))
        [ $tries -lt 600 ] || die "Postgres (process $pid) does not stop." "Its log is $state/log"
        sleep 0.1
    done
}

destroy_private() {
    [ -e "$state/checkout" ] || die "there is no private Postgres in $state: nothing to remove."
    confirm "the private Postgres in $state, with all its data"
    stop_private
    rm -f "$socket/.s.PGSQL.5432" "$socket/.s.PGSQL.5432.lock"
    rmdir "$socket" 2>/dev/null || :
    rm -rf "$data" "$state/data.new"
    rm -f "$state/log" "$state/lock" "$state/checkout"
    rmdir "$state" 2>/dev/null || :
}

confirm() {
    [ "${YES:-}" != 1 ] || return 0
    [ -t 0 ] || die "this removes $1. Nobody is here to ask." "To confirm: YES=1 make db-destroy"
    printf 'Remove %s? [y/N] ' "$1" >&2
    read -r answer || answer=
    case $answer in [yY]*) ;; *) say "Nothing was removed."; exit 1 ;; esac
}

# --- Postgres in a container -----------------------------------------------------

docker_url=postgresql://postgres:hardway@127.0.0.1:54329/postgres

compose() { docker compose -p "hardway-$id" -f "$checkout/docker-compose.yml" "$@"; }

need_docker() {
    command -v docker >/dev/null || die "docker is not installed." \
        "See https://docs.docker.com/get-docker/; or do without it: make run"
    docker compose version >/dev/null 2>&1 || die "this docker has no 'docker compose', version 2." \
        "See https://docs.docker.com/compose/install/; or do without it: make run"
    docker info >/dev/null 2>&1 || die "the Docker daemon does not answer." \
        "Start Docker, then try again; or do without it: make run"
}

start_docker() {
    need_docker
    out=$(compose up -d --wait 2>&1) || case $out in
    *'already allocated'* | *'already in use'*)
        die "port 54329 is taken, perhaps by another checkout of this guide." \
            "There: make db-stop. Then here: make db-docker" ;;
    *) die "docker compose cannot start Postgres: $(printf '%s\n' "$out" | tail -n 1)" \
        "See: docker compose -f '$checkout/docker-compose.yml' logs" ;;
    esac
}

# --- What the caller asked for ---------------------------------------------------

find_state
private_url="postgresql:///postgres?host=$socket&port=5432&user=postgres"
case ${DATABASE_URL:-} in
"$private_url" | "$docker_url") unset DATABASE_URL ;;     # from make env: not yours, but ours
esac
if [ -n "${DATABASE_URL:-}" ]; then which=yours
elif [ -e "$state/docker" ]; then which=docker
else which=private
fi

# Your PGHOST, PGDATA, PGOPTIONS are meant for another Postgres.
if [ $which != yours ]; then
    for name in $(env | sed -n 's/^\(PG[A-Z_]*\)=.*/\1/p'); do unset "$name"; done
fi

find_url() {
    case $which in
    yours) ;;
    docker)
        pg_isready -q -d "$docker_url" 2>/dev/null || start_docker
        DATABASE_URL=$docker_url ;;
    private)
        start_private
        DATABASE_URL=$private_url ;;
    esac
}

case ${1:-}:$which in
url:*) find_url; printf '%s\n' "$DATABASE_URL" ;;
env:yours) echo ": DATABASE_URL is set already" ;;
env:*) find_url; echo "export DATABASE_URL='$DATABASE_URL'" ;;
with:*)
    find_url
    export DATABASE_URL
    if [ -n "$locale" ]; then LC_ALL=$locale; else unset LC_ALL; fi
    command -v psql >/dev/null || PATH=$PATH:$(sh "$0" bin 2>/dev/null) || :
    shift
    exec "$@" ;;

status:yours) echo "DATABASE_URL is set." ;;
start:yours | stop:yours | destroy:yours)
    die "DATABASE_URL is set." \
        "That Postgres is yours; this guide neither starts nor stops it. Or: unset DATABASE_URL" ;;
start:docker) start_docker; echo "Postgres runs in docker: $docker_url" ;;
start:private) start_private; echo "The private Postgres runs (process $pid)." ;;
stop:docker) need_docker; compose stop; echo "Stopped. make run starts it again." ;;
stop:private)
    if running; then stop_private; echo "The private Postgres is stopped."
    else echo "The private Postgres does not run."
    fi ;;
status:docker) need_docker; compose ps ;;
status:private)
    if running; then echo "The private Postgres runs: process $pid, data in $data, log in $state/log"
    elif [ -e "$data" ]; then echo "The private Postgres does not run: data in $data, log in $state/log"
    else echo "There is no private Postgres yet. make run would make one in $state"
    fi
    [ ! -e "$state/checkout" ] || echo "It belongs to $(cat "$state/checkout")" ;;
destroy:docker)
    need_docker
    confirm "the Postgres in docker, with all its data"
    compose down -v && rm -f "$state/docker" ;;
destroy:private) destroy_private; echo "The private Postgres is gone." ;;

docker:*)
    start_docker
    make_state
    : >"$state/docker"
    echo "Postgres runs in docker: $docker_url"
    echo "The lessons use it from now on; make db-destroy removes it and ends that."
    [ $which != yours ] || echo "But first: unset DATABASE_URL, which goes before it." ;;

why:yours) echo "Yours, since DATABASE_URL is set." ;;
why:docker) echo "The one in docker, since make db-docker was used: $docker_url" ;;
why:private)
    echo "A private one, since DATABASE_URL is not set and make db-docker was not used."
    find_bin_for_data
    made=''
    [ -e "$data" ] || made=" (not made yet)"
    echo "Postgres $version from $bin, data in $data$made" ;;
bin:*) find_bin_for_data; echo "$bin" ;;
dir:*) echo "$state" ;;
*) die "url, with, start, stop, status, destroy, docker, why, bin or dir?" ;;
esac

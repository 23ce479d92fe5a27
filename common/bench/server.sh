# Sourced by what measures: a copy of the guide, built as readers build it, and a throw-away Postgres
# with durable settings.

top=$(CDPATH='' cd -- "$(dirname "$0")/../.." && pwd -P)
work=$(mktemp -d "${TMPDIR:-/tmp}/hard-way-bench.XXXXXX")
chmod 711 "$work"

clean_up() {
    [ ! -e "$work/worker" ] || kill "$(cat "$work/worker")" 2>/dev/null || :
    env -u DATABASE_URL HARDWAY_STATE="$work/pg" YES=1 sh "$top/common/postgres.sh" destroy >/dev/null 2>&1 || :
    rm -rf "$work"
}
trap clean_up EXIT
trap 'exit 1' HUP INT TERM

for name in $(env | sed -n 's/^\(PG[A-Z_]*\)=.*/\1/p'); do unset "$name"; done
unset DATABASE_URL SANITIZE CFLAGS CRASH_AT POLL_MS TICK_MS LEASE_MS BACKOFF_MS MAKEFLAGS MFLAGS MAKELEVEL
PATH=$(sh "$top/common/postgres.sh" bin):$PATH
HARDWAY_STATE=$work/pg
export PATH HARDWAY_STATE
command -v pgbench >/dev/null || { echo 'There is no pgbench: it comes with the server, or as postgresql-contrib.' >&2; exit 1; }
DATABASE_URL=$(sh "$top/common/postgres.sh" url 2>"$work/why") || { cat "$work/why" >&2; exit 1; }
export DATABASE_URL


cd "$top"
mkdir "$work/guide"
cp -R common lessons "$work/guide/"
cd "$work/guide"
chmod -R u+w .
rm -f lessons/*/lesson common/tools

build() { # build LESSON...
    for n; do make -s -C lessons/"$n"-* build; done
    make -s -C lessons/"$n"-* ../../common/tools
}

sql() { PGOPTIONS="-c search_path=lesson_$n" psql -XAtq -v ON_ERROR_STOP=1 "$DATABASE_URL" -c "$1"; }

fresh() { (cd "$work/guide/lessons/$n"-* && ../../common/tools reset "lesson_$n" >/dev/null); }

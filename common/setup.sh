#!/bin/sh
# Looks for the tools and libraries that the guide needs, and installs what is missing
# where apt-get can. With everything there it prints nothing and takes milliseconds.
#
# usage: setup.sh run | test | lint     what `make run`, `make test`, `make lint` need
#        setup.sh doctor                a table of all of it; changes nothing
set -eu
export LC_ALL=C

say() { printf '%s\n' "$*" >&2; }
die() { say "setup.sh: $1"; [ -z "${2:-}" ] || say "$2"; exit 1; }

case $0 in */*) common=${0%/*} ;; *) common=. ;; esac
cc=${CC:-cc} cc=${cc%% *}               # CC may bring arguments

run_needs='cc headers make finder libpq cjson server psql patch diff'
test_needs="$run_needs bats ps sanitizers"
lint_needs="$run_needs clang runtime clang-format shellcheck codespell"

# What each is for, and the packages that bring it. A dash: comes with another one.
table() { cat <<'EOF'
need         | what for                      | apt-get           | dnf                | pacman          | apk                 | zypper            | brew
cc           | compiles the lessons          | gcc               | gcc                | gcc             | gcc                 | gcc               | gcc
headers      | what C programs include       | libc6-dev         | glibc-devel        | glibc           | musl-dev            | glibc-devel       | -
make         | builds and runs everything    | make              | make               | make            | make                | make              | make
finder       | pkg-config: finds libraries   | pkg-config        | pkgconf-pkg-config | pkgconf         | pkgconf             | pkg-config        | pkgconf
libpq        | talks to Postgres (from 14)   | libpq-dev         | libpq-devel        | postgresql-libs | libpq-dev           | postgresql-devel  | postgresql@17
cjson        | cJSON: reads and writes JSON  | libcjson-dev      | cjson-devel        | cjson           | cjson-dev           | cJSON-devel       | cjson
server       | a Postgres server (from 14)   | postgresql        | postgresql-server  | postgresql      | postgresql17        | postgresql-server | postgresql@17
psql         | make psql, make check         | postgresql-client | postgresql         | postgresql      | postgresql17-client | postgresql        | postgresql@17
patch        | make break                    | patch             | patch              | patch           | patch               | patch             | gpatch
diff         | make diff                     | diffutils         | diffutils          | diffutils       | diffutils           | diffutils         | diffutils
bats         | runs the tests (from 1.2)     | bats              | bats               | bats            | bats                | bats              | bats-core
ps           | the tests watch processes     | procps            | procps-ng          | procps-ng       | procps              | procps            | -
sanitizers   | ASan and UBSan, for tests     | -                 | libasan libubsan   | -               | -                   | -                 | -
clang        | make lint: a second compiler  | clang             | clang              | clang           | clang               | clang             | llvm
runtime      | make lint, test: libFuzzer    | libclang-rt-dev   | compiler-rt        | compiler-rt     | compiler-rt         | -                 | llvm
clang-format | make lint: layout of the C    | clang-format      | clang-tools-extra  | clang           | clang-extra-tools   | clang-tools       | clang-format
shellcheck   | make lint: scripts            | shellcheck        | ShellCheck         | shellcheck      | shellcheck          | ShellCheck        | shellcheck
codespell    | make lint: spelling           | codespell         | codespell          | codespell       | py3-codespell       | codespell         | codespell
EOF
}

# --- What is there ---------------------------------------------------------------

includes() { echo "#include <$1>" | "$cc" -E -; }

# Another directory than the private cluster's: any server will do, not only one that
# fits the data which are there.
server() { HARDWAY_STATE=/nonexistent sh "$common/postgres.sh" bin; }

# Does without a server of its own: you gave a URL, or chose docker.
has_database() { [ -n "${DATABASE_URL:-}" ] || [ -e "$(sh "$common/postgres.sh" dir)/docker" ]; }

have() {
    case $1 in
    cc) command -v "$cc" ;;
    headers) [ -f /usr/include/stdio.h ] || includes stdio.h ;;
    finder) command -v pkg-config || command -v pg_config ;;
    libpq)
        pkg-config --exists 'libpq >= 14' ||
            { at_least libpq 14 && [ -f "$(pg_config --includedir)/libpq-fe.h" ]; } ;;
    cjson) pkg-config --exists libcjson || includes cjson/cJSON.h ;;
    server) server || { [ "$mode" = run ] && has_database; } ;;
    psql) command -v psql || [ -x "$(server)/psql" ] ;;
    bats) at_least bats 1.2 ;;
    sanitizers)
        if dir=$("$cc" -print-resource-dir); then ls "$dir"/lib/*/libclang_rt.asan*    # clang
        else [ -e "$("$cc" -print-file-name=libasan.so)" ]                              # gcc
        fi ;;
    runtime) ls "$(clang -print-resource-dir)"/lib/*/libclang_rt.fuzzer* ;;
    *) command -v "$1" ;;
    esac >/dev/null 2>&1
}

# The first number in what `PROGRAM --version` says.
version() {
    case $1 in
    cc) set -- "$cc" ;;
    libpq) pkg-config --modversion libpq 2>/dev/null && return; set -- pg_config ;;
    cjson) pkg-config --modversion libcjson 2>/dev/null || :; return ;;
    finder) set -- pkg-config; command -v pkg-config >/dev/null || set -- pg_config ;;
    server)
        # Either its directory, or a complaint that may name the one which is too old.
        case $(server 2>&1) in
        /*) set -- "$(server)/postgres" ;;
        *) server 2>&1 | sed -n 's/.*there is \([0-9.]*\).*/\1/p'; return ;;
        esac ;;
    headers | sanitizers | runtime) return ;;
    esac
    "$1" --version 2>/dev/null | sed -n 's/^[^0-9]*\([0-9][0-9.]*\).*/\1/p' | sed -n 1p
}

place() {
    case $1 in
    cc) command -v "$cc" ;;
    headers) [ ! -f /usr/include/stdio.h ] || echo /usr/include ;;
    finder) command -v pkg-config || command -v pg_config ;;
    libpq) pkg-config --libs libpq || pg_config --libdir ;;
    cjson) pkg-config --libs libcjson ;;
    server) server ;;
    sanitizers) "$cc" -print-file-name=libasan.so ;;
    runtime) clang -print-resource-dir ;;
    *) command -v "$1" ;;
    esac 2>/dev/null || :
}

# at_least NEED 1.2: is its version that, or later?
at_least() {
    found=$(version "$1") || return 1
    [ -n "$found" ] && printf '%s\n%s\n' "$2" "$found" | sort -c -t . -k 1,1n -k 2,2n 2>/dev/null
}

too_old() {
    case $1 in libpq | server) from=14 ;; bats) from=1.2 ;; *) return 1 ;; esac
    [ -n "$(version "$1")" ] && ! at_least "$1" $from
}

# --- How to get what is not ------------------------------------------------------

find_system() {
    system=unknown column=0 install=
    for command in apt-get dnf pacman apk zypper brew; do
        column=$((column + 1))
        command -v $command >/dev/null || continue
        system=$command
        case $system in
        apt-get) install='apt-get install -y --no-install-recommends' ;;
        pacman) install='pacman -S --needed' ;;
        apk) install='apk add' ;;
        *) install="$system install" ;;
        esac
        [ "$system" = brew ] || [ "$(id -u)" = 0 ] || install="sudo $install"
        return
    done
}

cell() { table | grep "^$1 " | cut -d '|' -f "$2" | sed 's/^ *//; s/ *$//'; }

packages_for() {
    case $system:$1:$cc in
    unknown:*) ;;
    *:cc:*clang*) cell clang $((column + 2)) ;;
    apt-get:sanitizers:*clang*) packages_for runtime ;;
    apt-get:runtime:*)
        # It has to be of the clang that is there.
        major=$(version clang) && major=${major%%.*}
        echo "libclang-rt${major:+-$major}-dev" ;;
    *) cell "$1" $((column + 2)) ;;
    esac
}

look() {
    missing='' packages=''
    for need in $needs; do
        ! have "$need" || continue
        [ -n "${system:-}" ] || find_system
        new=$(packages_for "$need")
        [ "$new" != - ] || continue
        missing="$missing $need"
        for package in $new; do
            case " $packages " in *" $package "*) ;; *) packages="$packages $package" ;; esac
        done
    done
}

tell() {
    say "Missing for make $mode:"
    for need in $missing; do
        old=
        ! too_old "$need" || old="; $(version "$need") is too old"
        say "$(printf '  %-12s  %s%s' "$need" "$(cell "$need" 2)" "$old")"
    done
}

# Run by root. Debian would make and start a cluster of the system for every Postgres
# that is installed; nobody asked for one, so for this moment it is told not to.
as_root() { cat <<'EOF'
set -eu
export DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1
conf=/etc/postgresql-common/createcluster.d
made=
[ -d $conf ] || made=$conf
trap 'rm -f $conf/durable-the-hard-way.conf; [ -z "$made" ] || rmdir $made 2>/dev/null || :' EXIT
trap 'exit 1' HUP INT TERM
mkdir -p $conf
echo 'create_main_cluster = false' >$conf/durable-the-hard-way.conf

known() { apt-cache show "$1" >/dev/null 2>&1; }
for package; do known "$package" || { apt-get update; break; }; done
packages=
for package; do
    # Some systems have this one inside the package of clang.
    case $package in libclang-rt*) known "$package" || continue ;; esac
    packages="$packages $package"
done
get() { apt-get install -y --no-install-recommends -o DPkg::Lock::Timeout=120 $packages; }
get || { apt-get update && get; }
EOF
}

install_with_apt() {
    sudo='' through=''
    if [ "$(id -u)" != 0 ]; then
        sudo=sudo through=', through sudo'
        # Without a terminal sudo cannot ask for a password.
        if ! command -v sudo >/dev/null || { ! [ -t 0 ] && ! sudo -n true 2>/dev/null; }; then
            die "only an administrator can install them." "Ask one to run: ${install#sudo }$packages"
        fi
    fi
    if [ "${YES:-}" != 1 ] && [ -t 0 ] && [ -t 2 ]; then
        printf 'Install them with apt-get%s? [Y/n] ' "$through" >&2
        read -r answer || answer=n
        case $answer in [nN]*) die "they are not installed." "To install them: $install$packages" ;; esac
    fi
    say "Installing with apt-get$through:$packages"
    log=$(mktemp)
    # shellcheck disable=SC2086 # a list of words, each
    $sudo sh -c "$(as_root)" sh $packages </dev/null >"$log" 2>&1 || {
        tail -n 5 "$log" >&2
        rm -f "$log"
        die "apt-get could not install them." "To see why: $install$packages"
    }
    rm -f "$log"
    look
    [ -z "$missing" ] || { tell; die "still missing after apt-get." "See: make doctor"; }
}

doctor() {
    needs="$test_needs clang runtime clang-format shellcheck codespell"
    look
    printf '%-12s  %-8s  %-28s  %s\n' what version 'what for' 'where it is, or is to be had'
    for need in $needs; do
        version=$(version "$need")
        where=$(place "$need")
        case " $missing " in *" $need "*)
            if too_old "$need"; then version="$version old"; else version=missing; fi
            where=$(packages_for "$need")
            where=${where:+package $where} ;;
        esac
        printf '%-12s  %-8s  %-28s  %s\n' "$need" "${version:--}" "$(cell "$need" 2)" "${where:--}"
    done
    [ -z "$packages" ] || printf '\nTo install what is missing:\n  %s\n' "$install$packages"
    printf '\nPostgres:\n'
    sh "$common/postgres.sh" why 2>&1 | sed 's/^/  /'
}

mode=${1:-}
case $mode in
run) needs=$run_needs ;;
test) needs=$test_needs ;;
lint) needs=$lint_needs ;;
doctor) doctor; exit ;;
*) die "run, test, lint or doctor?" ;;
esac

look
[ -n "$missing" ] || exit 0
tell
case $system in
apt-get) install_with_apt ;;
unknown) die "no package manager here that this script knows." "Install what is named above, then try again." ;;
*)
    say "To install them:"
    say "  $install$packages"
    # Homebrew's Postgres stays off the PATH until it is put there.
    # shellcheck disable=SC2016 # the reader's shell expands it
    [ "$system" != brew ] || say '  export PATH="$(brew --prefix postgresql@17)/bin:$PATH"'
    exit 1 ;;
esac

#!/bin/sh
# Runs a lesson's demo without one of its safeties: break.sh LESSON PATCH
# Only makes such a broken copy of the guide:       break.sh LESSON PATCH FOLDER
set -eu

lesson=$(CDPATH='' cd -- "$1" && pwd -P)
patch=$(CDPATH='' cd -- "$(dirname "$2")" && pwd -P)/$(basename "$2")
top=$(CDPATH='' cd -- "$lesson/../.." && pwd -P)

make_copy() {
    mkdir -p "$1/lessons"
    cp -R "$top/common" "$1/common"
    cp -R "$lesson" "$1/lessons"
    rm -f "$1/common/tools" "$1/lessons"/*/lesson
    copy=$1/lessons/$(basename "$lesson")
    case $(sed -n 's/^--- a\///p' "$patch") in
    common/*) root=$1 ;;
    *) root=$copy ;;
    esac
    (cd "$root" && patch -s -p1) <"$patch" || {
        echo "The patch does not fit. Did you change that place? git checkout brings it back." >&2
        exit 1
    }
}

if [ -n "${3:-}" ]; then
    make_copy "$3"
    exit
fi

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
trap 'exit 1' HUP INT TERM
make_copy "$folder"
sed '/^--- a\//,$d; /^Test: /d; /^Says: /d; /^Answer: /d; /^Says there: /d; /^In the last: /d; /^Task: /d; /^Blocks: /d' "$patch"
sed -n '/^--- a\//,$p' "$patch"
if [ -t 0 ] && [ -t 1 ]; then
    printf '\nPredict, then press Enter. '
    read -r _
fi
make -s -C "$copy" build
if grep -q '^Blocks: ' "$patch"; then
    blocked=
    for log in "$copy"/golden/*.json; do
        (cd "$copy" && ./lesson replay-check "golden/${log##*/}") || blocked=1
    done
    [ -n "$blocked" ] || { printf '\nThe kept logs did not notice.\n'; exit; }
    printf '\nThat is what a deploy would do to tasks that are half done.\n'
    exit
fi
# Also those that the demo has left behind have said what they had to say when nobody holds 9.
exec 3>&1
status=$(cd "$copy" && ./lesson 9>&1 >&3 && echo 0) || :
if [ "$status" != 0 ]; then
    printf '\nThat is what happens without it. make run plays the sound version.\n'
    exit
fi
test=$(sed -n 's/^Test: //p' "$patch")
number=$(basename "$lesson")
printf '\nThe demo did not notice. This test does:\n  %s\n\n' "$test"
command -v bats >/dev/null || exit 0
red=
BROKEN=1 PATIENCE=100 SANITIZE='' LANES=1 ONLY="^$test\$" sh "$folder/common/test/suite" "${number%%-*}" || red=1
answer=$(sed -n 's/^Answer: //p' "$patch")
[ -z "$answer" ] || printf '\nAnswer: %s\n' "$answer"
[ -z "$red" ] || printf '\nThat is what happens without it. With the sound version this test is green.\n'

#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
#
# The rooms of the house and the one direction in which they may include each
# other, checked by grep: every include of ours is written from the top of the
# tree, so each line names the room it reaches for. Prints one line per
# violation; silence is good. CM_CHECK_SRC or `make check`'s srcdir says where
# the tree is.
# File names here have no blanks, and lists of them must fall apart.
# shellcheck disable=SC2046,SC2086
LC_ALL=C
export LC_ALL
cd "${CM_CHECK_SRC:-${srcdir:-.}}" || exit 2
[ -d milter/model ] || {
    echo "check_layers: no milter/model in $(pwd)"
    exit 2
}

violations=$(
    # no_include PATTERN WHY FILE... - an extended regular expression for what
    # stands between the quotes or brackets.
    no_include() {
        pattern=$1 why=$2
        shift 2
        [ $# -eq 0 ] && return
        grep -nE "^[[:space:]]*#[[:space:]]*include[[:space:]]*[\"<]($pattern)" \
            "$@" /dev/null | while IFS=: read -r file line _; do
            echo "$file:$line: $why"
        done
    }

    # files ROOM... - the C files of these rooms. Names have no blanks here.
    files() {
        find "$@" -name '*.[ch]' 2>/dev/null
    }

    # but ALLOWED - the files on stdin save those that match.
    but() {
        grep -vE "^($1)\$"
    }

    all=$(files milter admin)
    ground=$(find milter -maxdepth 1 -name '*.[ch]' ! -name 'main.c')

    no_include 'milter/(store|filter|settings)|admin/' \
        'the model includes only itself and the ground floor' \
        $(files milter/model)
    no_include 'milter/(filter|settings)|admin/' \
        'the store includes only itself, the model and the ground floor' \
        $(files milter/store)
    no_include 'admin/' 'the filter does not know admin' $(files milter/filter)
    no_include 'milter/filter' 'admin does not know the filter' $(files admin)
    no_include 'milter/(store|filter)|admin/' \
        'settings and the ground floor include no room above them' $ground
    no_include 'milter/model' 'the ground floor includes no room above it' \
        $(echo "$ground" | but 'milter/settings.*')
    # config.h alone has no room: Autoconf owns it.
    grep -nE '^#include "([^/"]+|\.\.?/[^"]*)"' $all |
        grep -v '#include "config.h"' | while IFS=: read -r file line _; do
        echo "$file:$line: an include is written from the top of the tree"
    done

    # A third-party header belongs to as few .c files as can be, and to none of
    # our headers; the one that makes two versions of hiredis alike is for the
    # store's .c files alone.
    wrapper='milter/store/redis\.h'
    headers=$(echo "$all" | grep '\.h$')
    no_include 'hiredis|libconfig|microhttpd|libmilter|jansson|seccomp' \
        'a third-party header in a header of ours' \
        $(echo "$headers" | but "$wrapper")
    no_include "$wrapper" 'the hiredis wrapper is for .c files' $headers
    no_include "$wrapper" 'hiredis belongs in milter/store' \
        $(echo "$all" | but 'milter/store/.*')
    no_include 'hiredis' 'hiredis belongs in milter/store' \
        $(echo "$all" | but 'milter/store/.*')
    no_include 'libconfig' 'libconfig belongs in milter/settings.c' \
        $(echo "$all" | but 'milter/settings\.c')
    no_include 'microhttpd' 'libmicrohttpd belongs in admin/http.c' \
        $(echo "$all" | but 'admin/http\.c')
    no_include 'libmilter' 'libmilter belongs in milter/filter and main.c' \
        $(echo "$all" | but 'milter/filter/.*|milter/main\.c')
    no_include 'seccomp' 'libseccomp belongs in milter/filter/drop_seccomp.c' \
        $(echo "$all" | but 'milter/filter/drop_seccomp\.c')
    no_include 'jansson' 'jansson belongs in the model, the store and admin' \
        $(echo "$all" | but 'milter/(model|store)/.*|admin/.*')

    # CM_<NAME>_H; where two rooms have the same noun, CM_<ROOM>_<NAME>_H.
    upper() {
        tr '[:lower:]-' '[:upper:]_'
    }
    for file in $headers; do
        name=$(basename "$file" .h | upper)
        room=$(basename "$(dirname "$file")" | upper)
        guard=$(sed -n 's/^#ifndef \(CM_[A-Z0-9_]*_H\)$/\1/p' "$file" | head -1)
        case $guard in
        "CM_${name}_H" | "CM_${room}_${name}_H")
            grep -q "^#define $guard\$" "$file" ||
                echo "$file: $guard is not defined"
            ;;
        *)
            echo "$file: no guard CM_${name}_H"
            ;;
        esac
    done

    for file in $all; do
        lines=$(wc -l <"$file")
        [ "$lines" -le 800 ] || echo "$file: $lines lines, over 800"
    done
)

[ -z "$violations" ] && exit 0
echo "$violations"
exit 1

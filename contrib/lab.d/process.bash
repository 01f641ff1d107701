# shellcheck shell=bash
# SPDX-License-Identifier: BSD-2-Clause
#
# Sourced by contrib/lab: processes that are started, known again and ended.
# run/NAME.pid holds pid, start time and the checksum of what the process was
# started from: a pid alone could be a stranger's after a while. /proc is read
# directly, since ps and pgrep are not on every machine.

# PID: when it started, in clock ticks since boot; fails when it is not there.
start_time()
{
    local stat
    { read -r stat <"/proc/$1/stat"; } 2>/dev/null || return 1
    set -- ${stat##*) }     # field 3, the state, comes first
    [[ $1 != [ZX] ]] && printf '%s' "${20}"
}

# PID: by SIGSTOP, which would look alive to whoever only connects to it.
is_stopped() { grep -qs '^State:.T' "/proc/$1/status"; }

# NAME: is the daemon that we started still there? Sets pid.
alive()
{
    local started now
    pid=''
    { read -r pid started _ <"$dir/run/$1.pid"; } 2>/dev/null || return 1
    now=$(start_time "$pid") && [[ $now == "$started" ]]
}

# NAME PID KEY
remember()
{
    local started
    started=$(start_time "$2") || return 1
    say "$2 $started $3" | replace "$dir/run/$1.pid"
}

# FILE..: what a daemon was started from. A binary counts by its date and size.
key_of()
{
    local file
    for file in "$@"; do
        case $file in
            "$build"/*) stat -L -c '%n %Y %s' "$file" ;;
            *) cat "$file" ;;
        esac
    done 2>&1 | sha256sum | cut -c1-16
}

# NAME KEY COMMAND..: start it in a session of its own, its output in its log.
spawn()
{
    local name=$1 key=$2 variable drop=()
    shift 2
    for variable in $(compgen -e CHAOSMILTER_) $(compgen -e VSB_) \
        $(compgen -e MP_); do
        drop+=(-u "$variable")
    done
    (cd / && exec setsid env "${drop[@]}" "$@") \
        </dev/null >>"$dir/log/$name.log" 2>&1 8<&- 9<&- &
    remember "$name" $! "$key" || true      # ready() finds out what went wrong
}

# Ends processes by pid: asks, and kills after five seconds.
end_pids()
{
    local p i left
    kill -TERM "$@" 2>/dev/null
    kill -CONT "$@" 2>/dev/null
    for ((i = 0; i < 100; i++)); do
        left=()
        for p in "$@"; do start_time "$p" >/dev/null && left+=("$p"); done
        ((${#left[@]})) || return 0
        sleep 0.05
    done
    say "lab: did not end within 5 s, killed: ${left[*]}" >&2
    kill -KILL "${left[@]}" 2>/dev/null
    sleep 0.1
}

stop()
{
    local pids
    if [[ " $all_mtas " == *" $1 "* ]]; then
        mapfile -t pids < <("pids_$1")
        ((${#pids[@]})) && end_pids "${pids[@]}"
    elif alive "$1"; then
        end_pids "$pid"
    fi
    rm -f "$dir/run/$1.pid"
}

# PID: is it in the session of one of our daemons (each leads one)?
is_ours()
{
    local stat name leader
    { read -r stat <"/proc/$1/stat"; } 2>/dev/null || return 1
    set -- ${stat##*) }
    for name in $daemons; do
        { read -r leader _ <"$dir/run/$name.pid"; } 2>/dev/null &&
            [[ $4 == "$leader" ]] && return
    done
    return 1
}

# PORT: the inode of a socket that listens there on loopback or everywhere.
listening_inode()
{
    local hex
    printf -v hex '%04X' "$1"
    awk -v port="$hex" '$4 == "0A" {
            split($2, at, ":")
            if (at[2] == port && at[1] ~ /^(0*|0100007F|0*01000000)$/) {
                print $10
                exit
            }
        }' /proc/net/tcp /proc/net/tcp6 2>/dev/null
}

# VARIABLE PORT: nobody else may have it.
need_port()
{
    local inode holder who='another process'
    inode=$(listening_inode "$2")
    [[ -n $inode ]] || return 0
    holder=$(find /proc/[0-9]*/fd -lname "socket:\[$inode\]" -print -quit \
        2>/dev/null | cut -d/ -f3)
    if [[ -n $holder ]]; then
        is_ours "$holder" && return
        who="$(tr '\0' ' ' <"/proc/$holder/cmdline")(pid $holder)"
    fi
    die "port $2 is taken by $who: choose another with $1"
}

# MESSAGE FILE
fail_with_log()
{
    say "lab: $1; the end of $2:" >&2
    tail -n 25 "$2" 2>/dev/null | sed 's/^/    /' >&2
    exit 1
}

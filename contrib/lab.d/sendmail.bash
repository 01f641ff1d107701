# shellcheck shell=bash
# SPDX-License-Identifier: BSD-2-Clause
#
# Sourced by contrib/lab: a Sendmail of the lab's own. Debian's packages of the
# two mail servers exclude each other, so Sendmail's are unpacked below the build
# folder instead, once for all labs, and run from there: as root, with queue,
# log, pid file and SASL configuration in the lab. What it takes for the host's
# name, for DNS and for syslog comes from preload.c.

sendmail_packages='sendmail-bin sendmail-cf'

locate_sendmail()
{
    sendmail_home=$build/lab-sendmail
    sendmail_root=$sendmail_home/root
    sendmail_preload=$sendmail_home/preload.so
}

# The libraries and programs that the packages name, without each other.
sendmail_needs()
{
    local deb
    for deb in "$1"/*.deb; do
        dpkg-deb -f "$deb" Depends
    done | tr ',' '\n' | sed -e 's/[|(:].*//' -e 's/ //g' -e '/^sendmail-/d' | sort -u
}

download_sendmail()
{
    # As root throughout: the folder may be one that apt's own user cannot see.
    (cd "$1" && apt-get -q -o APT::Sandbox::User=root \
        -o DPkg::Lock::Timeout=300 download $sendmail_packages)
}

# FOLDER: filled completely or not at all.
unpack_sendmail()
{
    local new=$1.new deb missing
    rm -rf "$new" && mkdir -p "$new/deb" || return 1
    download_sendmail "$new/deb" ||
        { apt update && download_sendmail "$new/deb"; } || return 1
    mapfile -t missing < <(missing_packages $(sendmail_needs "$new/deb"))
    ((${#missing[@]} == 0)) || apt_install "${missing[@]}" || return 1
    for deb in "$new"/deb/*.deb; do
        dpkg-deb -x "$deb" "$new" || return 1
    done
    # A program with another group than ours ignores what is preloaded.
    chmod g-s "$new"/usr/libexec/sendmail/* && rm -rf "$1" && mv "$new" "$1"
}

compile_preload()
{
    local source=$top/contrib/lab.d/preload.c
    [[ $1 -nt $source ]] && return
    # In one step: a Sendmail that runs has the old one mapped.
    cc -std=c11 -D_GNU_SOURCE -O2 -fPIC -shared -o "$1.new" "$source" &&
        mv "$1.new" "$1"
}

# Many labs may come up at once; the first gets it for all.
get_sendmail()
(
    mkdir -p "$sendmail_home" && exec 8<"$sendmail_home" && flock 8 || exit 1
    [[ -d $sendmail_root ]] || unpack_sendmail "$sendmail_root" || exit 1
    compile_preload "$sendmail_preload"
)

fetch_sendmail()
{
    [[ -d $sendmail_root ]] || say 'Fetching Sendmail by apt-get'
    get_sendmail >>"$dir/log/lab.log" 2>&1 ||
        fail_with_log 'cannot get Sendmail' "$dir/log/lab.log"
}

folders_sendmail()
{
    install -d "$dir"/sendmail{,/sasl} &&
        install -d -m 0700 "$dir/sendmail/queue" &&
        install -d -g nogroup -m 0710 "$dir/sendmail/auth" &&
        install -d -o mail -g mail -m 0750 "$dir/lmtp" &&
        install -d -o nobody -g mail -m 0750 "$milter_folder" &&
        cp -u "$sendmail_root/usr/libexec/sendmail/sendmail" "$dir/bin/sendmail"
}

# Without its comments: they tell the time, and every up would be another.
sendmail_cf()
{
    local cf=$sendmail_root/usr/share/sendmail/cf filter options=()
    # The line that an operator copies is the one that is tested.
    filter=$(sed -n '/^INPUT_MAIL_FILTER/s|S=local:[^,]*|S=local:@socket@|p' \
        "$top/conf/sendmail.mc.example")
    has_ipv6_loopback && options+=(-DIPV6)
    sed -e '/^@input_mail_filter@$/{' -e "s|.*|${filter//&/\\&}|" -e '}' \
        "$top/contrib/lab.d/sendmail.mc" |
        m4 -D_CF_DIR_="$cf/" "${options[@]}" "$cf/m4/cf.m4" - \
            2>>"$dir/log/lab.log" |
        sed -e '/^#/d' -e "s|@lab@|$dir|g" -e "s|@socket@|$milter_socket|g" \
            -e "s|@smtp@|$smtp_port|g" -e "s|@submission@|$submission_port|g"
}

configure_sendmail()
{
    sendmail_cf | replace "$dir/sendmail/sendmail.cf" || return 1
    grep -q '^X' "$dir/sendmail/sendmail.cf" || return 1
    say 'hosts files' 'aliases files' 'passwd files' |
        replace "$dir/sendmail/service.switch"
    say '127.0.0.1 lab.example' | replace "$dir/sendmail/hosts"
    say 'pwcheck_method: saslauthd' "saslauthd_path: $milter_folder/saslauthd.sock" |
        replace "$dir/sendmail/sasl/Sendmail.conf"
    make_users "$dir/sendmail/users.db" root
}

settings_sendmail()
{
    cat <<CONF
relay: {
    socket = "unix:$milter_folder/saslauthd.sock";
    saslauthd = "$dir/sendmail/auth/mux";
};
CONF
}

# NAME KEY COMMAND..: like spawn, in the world of preload.c.
spawn_preloaded()
{
    spawn "$1" "$2" env LAB_LOG="$dir/log/$1.log" \
        LAB_SASLDB="$dir/sendmail/users.db" LD_PRELOAD="$sendmail_preload" \
        "${@:3}"
}

start_saslauthd()
{
    spawn_preloaded saslauthd "$1" \
        saslauthd -d -a sasldb -n 1 -m "$dir/sendmail/auth"
}

ready_saslauthd()
{
    testsaslauthd -u tester -r lab.example -p secret \
        -f "$dir/sendmail/auth/mux" >/dev/null 2>&1
}

sources_sendmail()
{
    say "$dir/sendmail/sendmail.cf" "$dir/sendmail/sasl/Sendmail.conf" \
        "$dir/tls.pem" "$sendmail_root/usr/libexec/sendmail/sendmail" \
        "$sendmail_preload"
}

start_sendmail()
{
    spawn_preloaded sendmail "$1" \
        "$dir/bin/sendmail" -C "$dir/sendmail/sendmail.cf" -bD -q5s
}

ready_sendmail() { greets_everywhere; }

# Sessions and deliveries are processes of their own, some with a session (in
# the kernel's sense) of their own. No other lab runs this copy of the program.
pids_sendmail()
{
    local p
    for p in /proc/[0-9]*; do
        [[ $(readlink "$p/exe" 2>/dev/null) == "$dir/bin/sendmail"* ]] &&
            start_time "${p#/proc/}" >/dev/null && say "${p#/proc/}"
    done
}

# shellcheck shell=bash
# SPDX-License-Identifier: BSD-2-Clause
#
# Sourced by contrib/lab: what Postfix and Sendmail have in common. Each has a
# file of its own with these functions, named after it:
#
#   fetch_MTA      get what it needs besides installed packages
#   folders_MTA    make its folders
#   configure_MTA  write its configuration
#   settings_MTA   what the filter's settings say for it alone
#   start_MTA KEY, ready_MTA, pids_MTA   as for every daemon; all its processes
#   sources_MTA    the files that a running one was started from, one per line

all_mtas='postfix sendmail'
all_daemons="redis-server lab-maildir chaosmilter chaosadmin saslauthd $all_mtas"

# Sets what depends on the mail server: the daemons in the order of starting
# (ended in the opposite order), and where the filter's sockets lie.
use_mta()
{
    local with=$1
    case $1 in
        postfix)
            milter_folder=$dir/postfix/spool/chaosmilter
            milter_group=postfix
            ;;
        sendmail)
            milter_folder=$dir/sendmail/milter
            milter_group=mail
            with='saslauthd sendmail'
            ;;
        *) die "LAB_MTA: '$1' is neither postfix nor sendmail" ;;
    esac
    milter_socket=$milter_folder/milter.sock
    daemons="redis-server lab-maildir chaosmilter chaosadmin $with"
}

# One lab has one mail server, and both want the same ports.
stop_other_mtas()
{
    local other
    for other in saslauthd $all_mtas; do
        [[ " $daemons " == *" $other "* ]] || stop "$other"
    done
}

has_ipv6_loopback() { grep -qs '^0\{31\}1 ' /proc/net/if_inet6; }

# A key and a certificate that nobody trusts, for STARTTLS. New ones would make
# the mail server start anew, so they are made once.
make_tls_key()
{
    local file=$dir/tls.pem
    [[ -s $file ]] && return
    openssl req -x509 -newkey rsa:2048 -nodes -days 3650 -subj /CN=lab.example \
        -keyout "$file.key" -out "$file.crt" >>"$dir/log/lab.log" 2>&1 &&
        cat "$file.key" "$file.crt" | replace "$file" 0600 &&
        rm -f "$file.key" "$file.crt"
}

# FILE OWNER: the users whom submission lets in: tester, with the password secret.
make_users()
{
    [[ -f $1 ]] && return
    echo secret | saslpasswd2 -p -c -f "$1" -u lab.example tester &&
        chown "$2" "$1"
}

smtp_greets()
{
    local line
    { exec 7<>"/dev/tcp/127.0.0.1/$1"; } 2>/dev/null || return 1
    read -r -t 5 line <&7
    printf 'QUIT\r\n' >&7
    exec 7>&-
    [[ $line == 220* ]]
}

greets_everywhere() { smtp_greets "$smtp_port" && smtp_greets "$submission_port"; }

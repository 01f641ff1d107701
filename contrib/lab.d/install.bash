# shellcheck shell=bash
# SPDX-License-Identifier: BSD-2-Clause
#
# Sourced by contrib/lab: the packages that are missing, and the build. Both
# write to the lab's log and say one line. The source folder itself is the lock
# for labs that come up at the same time.

build_packages='gcc make autoconf automake pkg-config libc6-dev libmilter-dev
libconfig-dev libhiredis-dev libmicrohttpd-dev libjansson-dev libidn2-dev
libunistring-dev libseccomp-dev libssl-dev libcurl4-openssl-dev'
run_packages='redis-server swaks curl openssl perl sasl2-bin libsasl2-modules
libsasl2-modules-db'

missing_packages()
{
    local package
    for package in "$@"; do
        [[ $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) == \
            installed ]] || say "$package"
    done
}

# Debian starts what it installs, unless policy-rc.d says no.
hold_services()
{
    [[ -e /usr/sbin/policy-rc.d ]] && return
    printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
    chmod 0755 /usr/sbin/policy-rc.d
    trap 'rm -f /usr/sbin/policy-rc.d' EXIT
}

apt()
{
    apt-get -q -y -o DPkg::Lock::Timeout=300 "$@" </dev/null
}

# PACKAGE..: in a subshell, for its trap and its variables.
apt_install()
(
    export DEBIAN_FRONTEND=noninteractive
    hold_services
    # A Postfix without configuration is one that never runs by itself.
    if [[ " $* " == *' postfix '* ]]; then
        echo 'postfix postfix/main_mailer_type select No configuration' |
            debconf-set-selections
    fi
    apt update && apt install --no-install-recommends --no-remove "$@" || exit 1
    if [[ " $* " == *' redis-server '* && -d /run/systemd/system ]]; then
        systemctl disable redis-server
    fi
)

# What the mail server needs from the distribution; the packages of Sendmail, which
# cannot be installed beside Postfix, are unpacked by fetch_sendmail instead.
mta_packages() { if [[ $mta == postfix ]]; then say postfix; else say m4; fi; }

install_packages()
{
    local missing
    mapfile -t missing < <(missing_packages $build_packages $run_packages \
        $(mta_packages))
    ((${#missing[@]})) || return 0
    say "Installing by apt-get: ${missing[*]}"
    apt_install "${missing[@]}" >>"$dir/log/lab.log" 2>&1 ||
        fail_with_log 'apt-get failed' "$dir/log/lab.log"
}

run_build()
{
    cd "$top" || return 1
    if [[ ! -x configure || configure.ac -nt configure ]]; then
        autoreconf -fi || return 1
    fi
    mkdir -p "$build" && cd "$build" || return 1
    if [[ ! -f Makefile ]]; then
        "$top/configure" CFLAGS="${CFLAGS:--O2 -g}" || return 1
    fi
    make -j"$(nproc)"
}

# Labs that start at once share the folder, hence the lock, on the source folder
# itself because a folder is always there.
build_daemons()
{
    if [[ $make == false ]]; then
        [[ -x $build/chaosmilter && -x $build/chaosadmin ]] && return
        die "LAB_MAKE=false, but the daemons are not in $build"
    fi
    (
        flock 8
        [[ -x $build/chaosmilter && -x $build/chaosadmin ]] ||
            say "Building in $build"
        run_build >>"$dir/log/lab.log" 2>&1
    ) 8<"$top" || fail_with_log 'the build failed' "$dir/log/lab.log"
}

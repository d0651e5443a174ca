#!/bin/sh
# Installs the real servers that tests stand on (Orthanc with DICOMweb, dcmtk, dicom3tools, nginx, PostgreSQL) from
# Debian or Ubuntu, when they are absent, the user is root and apt works. Otherwise it says what is missing: the
# tests that need it skip, saying so. It never fails a run, starts no service, and does nothing when all is there.
#
#   tests/install_servers.sh            INSTALL_SERVERS=no tests/install_servers.sh only looks

set -u

say() { printf 'install_servers: %s\n' "$*" >&2; }

is_there() { # the system's programs, not the scripts of the same names in a virtual environment
    for folder in /usr/bin /usr/sbin /usr/local/bin /usr/local/sbin; do
        [ -x "$folder/$1" ] && return 0
    done
    return 1
}

any_file() { [ -e "$1" ]; } # of the files that a pattern gave

missing_packages() {
    is_there Orthanc || printf 'orthanc '
    any_file /usr/share/orthanc/plugins/libOrthancDicomWeb.so* || any_file /usr/lib/orthanc/libOrthancDicomWeb.so* ||
        printf 'orthanc-dicomweb '
    is_there storescu || printf 'dcmtk '
    is_there dciodvfy || printf 'dicom3tools '
    is_there nginx || printf 'nginx-light '
    any_file /usr/lib/postgresql/*/bin/initdb || is_there initdb || printf 'postgresql '
}

why_not() { # empty when packages may be installed
    [ "${INSTALL_SERVERS:-yes}" = no ] && echo "INSTALL_SERVERS=no" && return
    command -v apt-get >/dev/null || { echo "there is no apt-get here" && return; }
    [ "$(id -u)" -eq 0 ] || echo "only root may install packages"
}

# Package scripts ask policy-rc.d before they start a service; 101 forbids it (invoke-rc.d(8)).
guard=/usr/sbin/policy-rc.d
forbid_services() {
    [ -e "$guard" ] && return
    printf '#!/bin/sh\nexit 101\n' >"$guard" && chmod 755 "$guard" && trap 'rm -f "$guard"' EXIT INT TERM
}

apt() {
    DEBIAN_FRONTEND=noninteractive timeout 900 apt-get -qq -o DPkg::Lock::Timeout=120 -o Acquire::Retries=2 \
        -o Acquire::http::Timeout=20 "$@" >"$log" 2>&1 && return
    say "apt-get $* failed:" && tail -n 3 "$log" >&2
    return 1
}

install_packages() { # one by one: a distribution may lack one of them
    log=$(mktemp) || return
    forbid_services
    if apt update; then
        for package in $1; do apt install -y --no-install-recommends "$package"; done
    fi
    rm -f "$log"
}

do_not_start_at_boot() {
    [ -d /run/systemd/system ] || return 0
    case "$1" in *orthanc*) systemctl disable --now --quiet orthanc 2>/dev/null ;; esac
    case "$1" in *nginx*) systemctl disable --now --quiet nginx 2>/dev/null ;; esac
    case "$1" in *postgresql*) systemctl disable --now --quiet postgresql 2>/dev/null ;; esac
    return 0
}

main() {
    missing=$(missing_packages)
    [ -z "$missing" ] && return
    reason=$(why_not)
    if [ -z "$reason" ]; then
        say "installing $missing"
        install_packages "$missing"
        do_not_start_at_boot "$missing"
        missing=$(missing_packages)
        reason="apt-get could not"
    fi
    [ -z "$missing" ] || say "missing, so that tests will skip: $missing($reason); apt install $missing"
}

main
exit 0

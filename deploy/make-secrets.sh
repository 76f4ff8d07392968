#!/usr/bin/env bash
# Creates the certificates that the compose file uses, in deploy/secrets (kept out of git). Run it once; a
# second run changes nothing. With names it also creates the certificates of devices that do not have one:
#
#   deploy/make-secrets.sh acme/berlin-1/D-0001 acme/berlin-1/D-0002
#
# Compose makes the passwords of ClickHouse itself (first-start.sh).
#
# The broker's certificate names the hosts of BROKER_HOSTS: the names by which devices call it. DOSELINE is the command that
# runs doseline, if it is not on the PATH.
set -euo pipefail
umask 077
cd "$(dirname "$0")"
mkdir -p secrets
cd secrets

password() { [ -s "$1" ] || openssl rand -hex 24 > "$1"; }

# The keys of the authorities are encrypted with this passphrase. Both belong on another machine once everything runs.
password authority_passphrase
certs() { ${DOSELINE:-doseline} certs "$@" --dir . --passphrase-file authority_passphrase; }
[ -s authority/index.jsonl ] || certs init
if [ ! -s broker/broker.pem ]; then
    hosts=()
    for host in ${BROKER_HOSTS:-localhost 127.0.0.1}; do hosts+=(--host "$host"); done
    certs broker --host mosquitto "${hosts[@]}"
fi
[ -s bridge/bridge.pem ] || certs bridge
for device in "$@"; do
    [ -s "devices/$device.pem" ] || certs device "$device"
done
# Containers run as other users and must read these files. The folder itself stays closed to other users of the host.
# `doseline certs renew` keeps the permissions.
chmod a+rx broker bridge
chmod a+r broker/* bridge/*
echo "deploy/secrets is complete"

#!/usr/bin/env bash
# Creates the password of MQTT and the certificates that the compose file uses, in deploy/secrets (kept out of git). Run it
# once; a second run changes nothing. Passwords of ClickHouse are made by compose itself (first-start.sh). With device names it also creates their certificates: deploy/make-secrets.sh D-0001 D-0002
set -euo pipefail
umask 077
cd "$(dirname "$0")"
mkdir -p secrets/tls
cd secrets

password() { [ -s "$1" ] || openssl rand -hex 24 > "$1"; }
password mqtt_password

if [ ! -s mosquitto-passwords ]; then
    # The format of mosquitto_passwd is PBKDF2 with SHA-512. It is written here, so that the tool need not be installed.
    python3 - "$(cat mqtt_password)" > mosquitto-passwords <<'PYTHON'
import base64, hashlib, os, sys
salt = os.urandom(12)
hashed = hashlib.pbkdf2_hmac("sha512", sys.argv[1].encode(), salt, 101)
print(f"doseline-bridge:$7$101${base64.b64encode(salt).decode()}${base64.b64encode(hashed).decode()}")
PYTHON
fi

# The authority's key stays in this folder. Compose mounts the broker's files into its container. The files in `devices`
# must be installed on the devices.
mkdir -p authority devices
if [ ! -s authority/ca.key ]; then
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 -subj "/CN=doseline CA" \
        -keyout authority/ca.key -out tls/ca.pem 2> /dev/null
fi
certificate() { # folder, name, subject alternative names
    [ -s "$1/$2.pem" ] && return
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$2" \
        -keyout "$1/$2.key" -out "$1/$2.csr" 2> /dev/null
    openssl x509 -req -in "$1/$2.csr" -CA tls/ca.pem -CAkey authority/ca.key -CAserial authority/ca.srl -CAcreateserial \
        -days 825 -out "$1/$2.pem" -extfile <(printf 'subjectAltName=%s' "$3") 2> /dev/null
    rm "$1/$2.csr"
}
certificate tls broker "DNS:mosquitto,DNS:localhost,IP:127.0.0.1"
for device in "$@"; do
    [[ $device =~ ^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$ ]] || { echo "$device is no device name" >&2; exit 2; }
    certificate devices "$device" "DNS:$device"
done
# Containers run as other users and must read these files. The folder itself stays closed to other users of the host.
chmod a+rx tls
chmod a+r tls/* mqtt_password mosquitto-passwords
echo "deploy/secrets is complete"

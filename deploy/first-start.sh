#!/bin/sh
# Makes the passwords of ClickHouse's users at the first start of compose, in the volume `secrets`.
# A later start changes nothing. Each service sees the folder of its own user and no other.
#
#   all/doseline_USER          every password, for `doseline grants --passwords`
#   USER/clickhouse_password   the password of one user, for its service
#   clickhouse/admin.xml       hash of the administrator's password, for ClickHouse
#
# usage: first-start.sh FOLDER OWNER     OWNER: the user id of the image's doseline
set -eu
umask 077
folder=$1
owner=$2
mkdir -p "$folder/all" "$folder/clickhouse"
# Written aside first: a start that is cut off must not leave half a password.
put() { cat > "$1.new" && mv "$1.new" "$1"; }
for user in admin migrate load monitor serve bridge operate dashboards; do
    all=$folder/all/doseline_$user
    [ -s "$all" ] || od -An -N24 -tx1 /dev/urandom | tr -d ' \n' | put "$all"
    mkdir -p "$folder/$user"
    put "$folder/$user/clickhouse_password" < "$all"
    chown -R "$owner" "$folder/$user"
done
hash=$(sha256sum < "$folder/all/doseline_admin" | cut -d' ' -f1)
printf '<clickhouse><admin_password_sha256>%s</admin_password_sha256></clickhouse>\n' "$hash" | put "$folder/clickhouse/admin.xml"
chown -R "$owner" "$folder/all"
# ClickHouse runs as a user of its own image.
chmod 755 "$folder" "$folder/clickhouse"
chmod 644 "$folder/clickhouse/admin.xml"

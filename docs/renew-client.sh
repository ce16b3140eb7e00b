#!/bin/sh
# Renews the certificate of a client of the local broker, over the broker: needs openssl and mosquitto_rr.
#
#   renew-client.sh HOST PORT NAME DIRECTORY [DAYS]
#
# NAME.pem, NAME.key and NAME.ca.pem, as `gateway client add` writes them, are in DIRECTORY. Nothing is done while the
# certificate has more than DAYS (10) left, so it can run every day. The key stays; the new certificate takes the
# place of the old one in one step.
set -eu
host=$1 port=$2 name=$3 days=${5:-10}
cd "$4"
openssl x509 -in "$name.pem" -noout -checkend $((days * 86400)) > /dev/null && exit 0

request=$(openssl req -new -key "$name.key" -subj "/CN=$name")
answer=$(mosquitto_rr -V 5 -q 1 -h "$host" -p "$port" -W 30 \
    --cafile "$name.ca.pem" --cert "$name.pem" --key "$name.key" \
    -t "client/$name/renew" -e "response/$name/renew" -m "$request")
case $answer in
*'"result":"issued"'*) ;;
*) echo "no new certificate for $name: $answer" >&2 && exit 1 ;;
esac

# The value of a text in the answer, with its line ends.
text() {
    printf '%b' "$(printf '%s' "$answer" | sed -n "s/.*\"$1\":\"\([^\"]*\)\".*/\1/p")"
}
text certificate > "$name.pem.new"
text ca > "$name.ca.pem.new"
openssl verify -CAfile "$name.ca.pem.new" "$name.pem.new" > /dev/null
mv "$name.ca.pem.new" "$name.ca.pem"
mv "$name.pem.new" "$name.pem"

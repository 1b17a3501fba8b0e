#!/bin/sh
# The cheapest honest reviewer: it hashes every output it was given and holds that against the digest it must judge.
set -eu
value() { # of a line of JSON: "key": "value"
    found=${1#*'": "'}
    found=${found%%'"'*}
}
subjects='' count=0 within=0 name='' digest='' path=''
while IFS= read -r line; do
    case $within$line in
    *'"subjects": ['*) within=1 ;;
    1*'"name": "'*) value "$line" && name=$found ;;
    1*'"digest": "'*) value "$line" && digest=$found ;;
    1*'"path": "'*) value "$line" && path=$found ;;
    1*'}'*)
        echo "${digest#sha256:}  $path" | sha256sum --check --status
        subjects="$subjects${subjects:+,}{\"name\":\"$name\",\"digest\":\"$digest\"}"
        count=$((count + 1))
        ;;
    1*']'*) within=0 ;;
    esac
done <"$TRIPLANE_WORK_ORDER"
[ "$count" -gt 0 ]
echo "{\"verdict\":\"Approve\",\"findings\":[],\"subjects\":[$subjects]}" >"$TRIPLANE_OUTPUTS/verdict.json"
echo '{"type":"reflection","wentWell":["every digest was that of the content"],"wentBadly":[]}'

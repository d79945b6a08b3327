#!/usr/bin/env bash
# Directories of output on NFS, as sites have it: root is nobody there, and the server may hang.

set -euo pipefail

# What is written there, as the server has it.
there=/srv/share/ann/logs
dir=/mnt/share/ann/logs

# cut, mend: nothing goes to the server or comes from it, without a word; all does again.
cut_off() {
  nft add table inet cut
  nft add chain inet cut input '{ type filter hook input priority -10; policy accept; }'
  nft add rule inet cut input tcp dport 2049 drop
  nft add rule inet cut input tcp sport 2049 drop
}
mend() { nft delete table inet cut; }
# submit COMMAND: a job of ann whose output goes to the share.
submit() {
  yard submit --workdir /tmp --cpus 0.5 --set "logs.dir=$dir" --set logs.max_per_rank=1MiB -- \
    bash -c "$1"
}
# ends JOB CODE: the job ends so.
ends() {
  local code=0
  yard wait "$1" --timeout 3m || code=$?
  [ "$code" = "$2" ] || fail "job $1 ended with $code, not $2: $(yard logs "$1" --prepare 2>&1)"
}
# arrives JOB FILE: all that the job wrote is on the server, and nothing else.
arrives() { await "the output of job $1 arrives" cmp "$2" "$there/$1/attempt-1/0.out"; }
# says TEXT COMMAND...: waits until what a command prints has the text.
says() {
  local text="$1"
  shift
  # shellcheck disable=SC2016 # the inner shell expands it
  await "$* says $text" bash -c 'text="$1"; shift; "$@" 2>&1 | grep -qF -- "$text"' _ "$text" "$@"
}
# until_there FILE: shell that waits for a file.
until_there() { echo "until [ -e $1 ]; do sleep 0.2; done"; }

scene "a share"
modprobe -a nfsd nfs
mkdir -p /srv/share /mnt/share /tmp/gate
chmod 777 /tmp/gate
mount -t tmpfs -o size=64m,mode=755 share /srv/share
mount -t nfsd nfsd /proc/fs/nfsd
exportfs -o rw,sync,no_subtree_check,root_squash,fsid=1 127.0.0.1:/srv/share
rpc.mountd -N 3
# Clients of an earlier life of the server are not waited for: there are none.
rpc.nfsd --no-nfs-version 3 --grace-time 10 --lease-time 10 4
# As by default, but that lost packets are noticed sooner.
mount -t nfs4 -o hard,timeo=50,retrans=2 127.0.0.1:/srv/share /mnt/share
install -d -o ann -g ann -m 700 /srv/share/ann
! touch /mnt/share/ann/root 2>/dev/null || fail "root may write there"

scene "all of it arrives, as ann's"
seq 300000 >/tmp/counted
job="$(submit "seq 300000; $(until_there /tmp/gate/first)")"
says 300000 tail -n 1 "$there/$job/attempt-1/0.out"
writer="$(pgrep -u ann -f ' deliver$')"
ann="$(id -u ann)"
for line in "Uid: $ann $ann $ann $ann" "Gid: $ann $ann $ann $ann" "Groups: $ann" \
  "CapInh: 0000000000000000" "CapPrm: 0000000000000000" "CapEff: 0000000000000000" \
  "CapBnd: 0000000000000000" "CapAmb: 0000000000000000" "NoNewPrivs: 1"; do
  tr -s '\t ' ' ' <"/proc/$writer/status" | sed 's/ $//' | grep -qx "$line" ||
    fail "process $writer has not $line"
done
touch /tmp/gate/first
ends "$job" 0
arrives "$job" /tmp/counted
[ "$(stat -c %U:%G:%a "$there/$job/attempt-1/0.out")" = ann:ann:644 ] || fail "it is not ann's"

scene "the server hangs: ranks write on, and the job succeeds meanwhile"
seq 3000000 >/tmp/flood
flood="$(submit "echo begins >&2; $(until_there /tmp/gate/flood); seq 3000000")"
tick="$(submit "until [ -e /tmp/gate/tick ]; do date +%N; sleep 1; done; echo end")"
says begins cat "$there/$flood/attempt-1/0.err"
await "the other one writes as well" test -s "$there/$tick/attempt-1/0.out"
cut_off
touch /tmp/gate/flood
ends "$flood" 0
[ "$(yard logs "$flood" --tail 1)" = 3000000 ] || fail "its output cannot be read on the node"
scene "it is told, and nobody else is in its way"
says "output does not arrive from head: $dir: it does not answer" yard why "$tick"
says "output does not arrive: job $flood, $dir: it does not answer" yard node show head
says "output is not delivered to $dir: it does not answer" yard logs "$flood" --prepare
[ "$(yard run --workdir /tmp --cpus 1 -- echo ran)" = ran ] || fail "no other job runs"
[ "$(yard exec "$tick" -- echo visited)" = visited ] || fail "no job can be visited"
scene "a job that starts now is told that its directory does not answer"
late="$(submit true)"
ends "$late" 125
says "logs.dir does not answer within 30 s" yard logs "$late" --prepare

scene "the agent is started again, and killed"
began=$SECONDS
systemctl restart yard-agent
[ $((SECONDS - began)) -lt 60 ] || fail "it took $((SECONDS - began)) s"
says "output does not arrive" yard why "$tick"
systemctl kill --kill-whom=main --signal=KILL yard-agent
await "the agent is back" systemctl is-active yard-agent
says "output does not arrive" yard why "$tick"
[ "$(yard run --workdir /tmp --cpus 1 -- echo ran)" = ran ] || fail "no other job runs"

scene "the server is back"
mend
arrives "$flood" /tmp/flood
scene "all of it has arrived"
touch /tmp/gate/tick
ends "$tick" 0
yard logs "$tick" >/tmp/ticks
arrives "$tick" /tmp/ticks
# is_well: nothing is said to be late any more.
is_well() { ! yard node show head | grep -F "output does not arrive"; }
await "nothing is late" is_well

scene "the share is full, and has room again"
fill="$(df --output=avail -k /srv/share | tail -n 1)"
head -c "$((fill - 3000))k" /dev/zero >/srv/share/fill
full="$(submit "seq 3000000; $(until_there /tmp/gate/full)")"
says "output does not arrive from head: $dir: No space left on device" yard why "$full"
systemctl kill --kill-whom=main --signal=KILL yard-agent
await "the agent is back" systemctl is-active yard-agent
says "output does not arrive from head: $dir: No space left on device" yard why "$full"
touch /tmp/gate/full
ends "$full" 0
rm /srv/share/fill
arrives "$full" /tmp/flood

scene "nothing is left"
# are_gone: whether nobody delivers any more.
are_gone() { ! pgrep -u ann -f ' deliver$'; }
await "those who delivered are gone" are_gone
umount /mnt/share || fail "somebody uses the share"

#!/usr/bin/env bash
# Everything that may happen to an agent while ranks run: they go on, and how they end is known.

set -euo pipefail

# at RANK: process and time of start of a rank, whoever asks.
at() {
  local pid
  pid="$(cat "/tmp/job/pid.$1")"
  echo "$pid $(sed 's/.*) //' "/proc/$pid/stat" | cut -d' ' -f20)"
}

scene "two ranks of ann"
install -d -o ann /tmp/job
# shellcheck disable=SC2016 # a rank expands it
rank='echo $$ >/tmp/job/pid.$YARD_RANK; until [ -e /tmp/job/gate ]; do sleep 0.2; done; exit 7'
job="$(yard submit --workdir /tmp --cpus 1 --ranks-per-node 2 -- bash -c "$rank")"
await "both ranks run" test -s /tmp/job/pid.0 -a -s /tmp/job/pid.1
ranks="$(at 0) $(at 1)"
scene "job $job runs: ranks and the times of their start are $ranks"
first="$(cat /tmp/job/pid.0)"
grep -q '^0::/yard-head/' "/proc/$first/cgroup" || fail "ranks are in the unit of the agent"

# Two more, that end with their codes once they may. All start now: a node whose agent has left on
# purpose gets nothing new for a while.
declare -A others
for code in 3 255; do
  others[$code]="$(yard submit --workdir /tmp --cpus 0.5 -- \
    bash -c "touch /tmp/job/up.$code; until [ -e /tmp/job/$code ]; do sleep 0.2; done; exit $code")"
done
await "the other jobs run" test -e /tmp/job/up.3 -a -e /tmp/job/up.255

# unharmed WHAT: the very same ranks run, and the agent answers for them.
unharmed() {
  await "the agent is back after $1" systemctl is-active yard-agent
  [ "$(at 0) $(at 1)" = "$ranks" ] || fail "$1: other ranks run: $(at 0) $(at 1)"
  yard show "$job" -o json | grep -Eq '"state": ?"Running"' || fail "$1: the job does not run"
}
# ended CODE: the other job of that code ended so, and that is known.
ended() {
  local code=0
  yard wait "${others[$1]}" --timeout 2m || code=$?
  [ "$code" = "$1" ] || fail "job ${others[$1]} ended with $code, not $1"
}

scene "restart"
systemctl restart yard-agent
unharmed "a restart"

scene "stop and start; a job ends with 3 while the agent is away"
systemctl stop yard-agent
left="$(cat /sys/fs/cgroup/system.slice/yard-agent.service/cgroup.procs 2>/dev/null || true)"
[ -z "$left" ] || fail "in the group of the unit is left: $left"
touch /tmp/job/3
systemctl start yard-agent
unharmed "stop and start"
ended 3

scene "the service manager itself starts anew"
systemctl daemon-reexec
systemctl daemon-reload
unharmed "daemon-reexec"
systemctl restart yard-agent
unharmed "daemon-reexec and a restart"

scene "SIGKILL; a job ends with 255 meanwhile"
before="$(systemctl show -P NRestarts yard-agent)"
systemctl kill --kill-whom=main --signal=KILL yard-agent
touch /tmp/job/255
unharmed "SIGKILL"
[ "$(systemctl show -P NRestarts yard-agent)" = $((before + 1)) ] || fail "it was not started again"
ended 255

scene "an agent that hangs is noticed, and started again"
mkdir -p /run/systemd/system/yard-agent.service.d
printf '[Service]\nWatchdogSec=20s\nTimeoutAbortSec=2s\n' \
  >/run/systemd/system/yard-agent.service.d/watch.conf
systemctl daemon-reload
systemctl restart yard-agent
unharmed "the restart before"
agent="$(systemctl show -P MainPID yard-agent)"
kill -STOP "$agent"
await "the agent that hangs is killed" test ! -d "/proc/$agent"
unharmed "a hang"

scene "another program is put in its place, and the agent is started again"
printf 'x' >>/story/yard
(cd /story && ./yard agent install --start)
running="$(readlink "/proc/$(systemctl show -P MainPID yard-agent)/exe")"
[ "$running" = /usr/local/bin/yard ] || fail "the agent runs $running"
unharmed "an upgrade"

scene "to install again changes nothing, and restarts nothing"
agent="$(systemctl show -P MainPID yard-agent)"
(cd /story && ./yard agent install --start)
[ "$(systemctl show -P MainPID yard-agent)" = "$agent" ] || fail "the agent was started again"

scene "reload"
systemctl reload yard-agent
systemctl reload yard-coordinator
unharmed "a reload"

scene "the coordinator is killed, and comes back"
systemctl kill --kill-whom=main --signal=KILL yard-coordinator
await "the coordinator leads again" yard cluster status
unharmed "the end of a coordinator"

scene "what runs is not taken away by accident"
! yard agent uninstall --yes || fail "it was not refused"
unharmed "what was refused"

scene "the ranks end, and exactly that is reported"
touch /tmp/job/gate
code=0
yard wait "$job" --timeout 2m || code=$?
[ "$code" = 7 ] || fail "job $job ended with $code, not 7"
yard show "$job" -o json | grep -Eq '"attempt": ?1\b' || fail "there was another attempt"

# are_gone: whether the agent has let go of everything.
are_gone() { [ -z "$(ls /var/lib/yard/agent/shims)" ]; }
await "nothing is left of the jobs" are_gone

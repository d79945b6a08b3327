#!/usr/bin/env bash
# After the end of the page: nothing of it is left but what it says.

set -euo pipefail

scene "nothing is left"
for unit in yard-agent yard-coordinator; do
  [ ! -e "/etc/systemd/system/$unit.service" ] || fail "$unit has its unit"
  ! systemctl is-active --quiet "$unit" || fail "$unit runs"
done
for path in /etc/yard/agent.toml /etc/yard/coordinator.toml /var/lib/yard/agent \
  /var/lib/yard/coordinator /sys/fs/cgroup/yard-head; do
  [ ! -e "$path" ] || fail "$path is left"
done
left="$(pgrep -l yard || true)"
[ -z "$left" ] || fail "processes are left: $left"

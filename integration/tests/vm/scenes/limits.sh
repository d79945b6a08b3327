#!/usr/bin/env bash
# The agent's own tests with real processes, where version 2 of control groups has its controllers.

set -euo pipefail

scene "controllers: $(cat /sys/fs/cgroup/cgroup.controllers)"
for controller in memory pids cpu; do
  grep -qw "$controller" /sys/fs/cgroup/cgroup.controllers || fail "there is no $controller"
done
# Open MPI is not in the machine.
/story/machine --test-threads 2 --skip mpi || fail "tests of the agent"
scene "no group is left"
left="$(find /sys/fs/cgroup -maxdepth 1 -name 'yard-test-*')"
[ -z "$left" ] || fail "$left"

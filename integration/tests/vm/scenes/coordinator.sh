#!/usr/bin/env bash
# The coordinator as it was installed, and what it must know of a machine as slow as this one.

set -euo pipefail

scene "the coordinator has no capability, and its own account"
coordinator="$(systemctl show -P MainPID yard-coordinator)"
grep -q '^CapEff:\s0*$' "/proc/$coordinator/status" || fail "it has capabilities"
grep -q '^CapBnd:\s0*$' "/proc/$coordinator/status" || fail "it could get capabilities"
[ "$(stat -c %U "/proc/$coordinator")" = yard ] || fail "it runs as somebody else"
[ "$(stat -c %U:%a /var/lib/yard/coordinator)" = yard:700 ] || fail "its folder is open"

# An emulated machine takes seconds for what takes a real one less than a tenth of that.
scene "a setting is changed in the file that was written"
sed -i 's/^#longest_lease_ms = 3000$/longest_lease_ms = 30000/' /etc/yard/coordinator.toml
grep -q '^longest_lease_ms = 30000$' /etc/yard/coordinator.toml || fail "no such setting"
systemctl restart yard-coordinator
await "the coordinator leads" yard cluster status
yard pool set default --lease 30s

#!/usr/bin/env bash
# The machine before anything is installed: accounts, and what stands for other machines.

set -euo pipefail

scene "the machine, with $(systemctl --version | head -n 1) and $(uname -r)"
for user in ann ben; do useradd --create-home --shell /bin/bash "$user"; done
mkdir -p /mnt/image
# This one machine is all of them.
cat >/usr/local/sbin/ssh <<'STUB'
#!/usr/bin/env bash
# Stands for ssh: every machine is this one.
set -euo pipefail
user="${1%%@*}"
shift
if [ "$user" = root ]; then
  cd /root
  exec bash -c "$*"
fi
exec runuser -l "$user" -c "$*"
STUB
cat >/usr/local/sbin/scp <<'STUB'
#!/usr/bin/env bash
# Stands for scp: every machine is this one. A program that runs cannot be written to.
set -euo pipefail
cp --remove-destination "$1" ~root
STUB
chmod +x /usr/local/sbin/ssh /usr/local/sbin/scp

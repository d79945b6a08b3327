# shellcheck shell=bash
# What is told in the machine has these in common. It is put before each story.

set -euo pipefail

# scene TEXT...: says what comes now, and when that is.
scene() { printf 'scene at %ss: %s\n' "$(cut -d' ' -f1 /proc/uptime)" "$*"; }

# fail TEXT...: ends the story, with what may explain it.
fail() {
  printf 'FAILED: %s\n' "$*"
  journalctl --no-pager --quiet -n 40 -u yard-agent -u yard-coordinator || true
  exit 1
}

# await WHAT COMMAND...: waits until a command succeeds.
await() {
  local what="$1" end=$((SECONDS + 180))
  shift
  until "$@" >/tmp/await.log 2>&1; do
    [ "$SECONDS" -lt "$end" ] || fail "it never came about: $what: $(tail -n 5 /tmp/await.log)"
    sleep 1
  done
}

# told LINE USER: runs commands of the page from standard input, as a user.
told() {
  local line="$1" user="$2" commands
  commands="$(cat)"
  scene "line $line of the page, as $user"
  printf '  $ %s\n' "${commands//$'\n'/$'\n  $ '}"
  if [ "$user" = root ]; then
    (cd /story && bash -euo pipefail -c "$commands") || fail "line $line of the page"
  else
    runuser -l "$user" -c "set -euo pipefail; $commands" || fail "line $line of the page"
  fi
}

# shellcheck shell=bash
# What the scripts share. Source it from the root of the repository; it is not run by itself.

set -euo pipefail

# say TEXT...: tells people what happens, apart from the results on stdout.
say() { printf '==> %s\n' "$*" >&2; }

# die TEXT...: ends the script with one clear sentence.
die() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

# as_root COMMAND...: runs a command as root, if that needs no password.
as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi
}

# need_rust: cargo is on PATH afterwards.
need_rust() {
  local env_file="${CARGO_HOME:-$HOME/.cargo}/env"
  # shellcheck disable=SC1090 # rustup writes this file; it may not be there
  if ! command -v cargo >/dev/null && [ -r "$env_file" ]; then . "$env_file"; fi
  command -v cargo >/dev/null || die "cargo is missing; install Rust from https://rustup.rs"
}

# need_linker: cc is on PATH afterwards. Rust needs it to link, and brings none.
need_linker() {
  if command -v cc >/dev/null; then return; fi
  local packages=(gcc libc6-dev)
  command -v apt-get >/dev/null || die "a C linker (cc) is missing; install gcc or clang"
  say "no C linker (cc) found: installing ${packages[*]} with apt-get"
  as_root apt-get update -qq || true # an old list of packages may do
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "${packages[@]}" ||
    die "cc is missing and could not be installed; as root, run: apt-get install ${packages[*]}"
}

# need_packages WHAT PACKAGE...: installs Debian packages that are missing, and says which and why.
need_packages() {
  local what="$1" package missing=()
  shift
  command -v apt-get >/dev/null ||
    die "$what needs the counterparts of these Debian packages; install them: $*"
  for package in "$@"; do
    case "$(dpkg-query -W -f '${Status}' "$package" 2>/dev/null)" in
      *' installed') ;;
      *) missing+=("$package") ;;
    esac
  done
  if [ ${#missing[@]} = 0 ]; then return; fi
  say "$what needs packages: installing ${missing[*]} with apt-get"
  as_root apt-get update -qq || true # an old list of packages may do
  as_root env DEBIAN_FRONTEND=noninteractive \
    apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null ||
    die "$what needs packages; as root, run: apt-get install --no-install-recommends ${missing[*]}"
}

# has_python MODULE...: whether the system's Python has these.
has_python() {
  local IFS=,
  /usr/bin/python3 -c "import $*" 2>/dev/null
}

# need_openmpi: mpirun is on PATH afterwards. The tests of the MPI launcher run it.
need_openmpi() {
  command -v mpirun >/dev/null || need_packages "the launcher of MPI jobs" openmpi-bin
}

# need_digits: what examples/digits needs: a real MPI, and Python packages, of which one brings the
# data.
need_digits() {
  has_python mpi4py numpy sklearn && command -v mpirun >/dev/null ||
    need_packages "the example" openmpi-bin python3-mpi4py python3-numpy python3-sklearn
}

# need_torch: what the example needs for PyTorch; Debian 12 has a package of it.
need_torch() {
  has_python torch numpy sklearn ||
    need_packages "the example" python3-torch python3-numpy python3-sklearn
}

# choose_linker: uses mold or lld where Rust would take the slow default. On x86-64 Linux, Rust
# links with its own lld, and the scripts share build outputs with a bare `cargo test`.
# CARGO_BUILD_RUSTFLAGS adds to the flags of .cargo/config.toml; RUSTFLAGS would replace them.
choose_linker() {
  case "$(rustc -vV)" in *'host: x86_64-unknown-linux-gnu'*) return ;; esac
  local linker
  for linker in mold lld; do
    # An old gcc knows no mold, so try it rather than look for it.
    if echo 'int main(void) { return 0; }' |
      cc -x c -fuse-ld="$linker" -o /dev/null - 2>/dev/null; then
      export CARGO_BUILD_RUSTFLAGS="-Clink-arg=-fuse-ld=$linker"
      return
    fi
  done
}

# simulator ARGUMENT...: runs the simulator, optimised and with its assertions on.
simulator() { cargo run --quiet --profile sim -p yard-sim -- "$@"; }

# set_up: all that a machine with only Rust lacks.
set_up() {
  need_rust
  need_linker
  choose_linker
}

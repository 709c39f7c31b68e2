# shellcheck shell=bash
# shellcheck disable=SC2034  # what is set here is used by who sources it
# What deploy/quickstart and deploy/test share. Everything that is said goes to standard error.

root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}
export DEBIAN_FRONTEND=noninteractive

# To build: ring, zstd and xz have C in them.
build_packages=(gcc libc6-dev make pkg-config)
# To run a lab: what holdfastd and holdfast-lab call, and the rehearsed container's only program.
lab_packages=(lxc iproute2 nftables xfsprogs e2fsprogs util-linux mount procps busybox-static)
# LXC confines by AppArmor where the kernel does.
! grep -qs Y /sys/module/apparmor/parameters/enabled || lab_packages+=(apparmor)
# To build and run the guest: QEMU, virtiofsd (in qemu-system-common), and what makes its image.
guest_packages=(qemu-system-x86 qemu-system-common mmdebstrap e2fsprogs kmod util-linux)

say() { printf '%s\n' "$*" >&2; }

# Ends with an error's stable code and its words.
die() {
    say "$(basename -- "$0"): $1: $2"
    exit 1
}

need_root() {
    [ "$(id -u)" -eq 0 ] || die HF-NOT-ROOT "this needs root (it makes namespaces): sudo $0"
}

# Installs those of the named Debian packages that are not there, and says which.
need_packages() {
    local package missing=()
    for package in "$@"; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q ' installed$' || missing+=("$package")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    command -v apt-get >/dev/null || die HF-MISSING-TOOL "please install: ${missing[*]}"
    say "installing Debian packages: ${missing[*]}"
    local apt=(apt-get -o DPkg::Lock::Timeout=300 -qq -y)
    "${apt[@]}" update </dev/null >&2 || say "warning: apt-get update failed; trying with what is known"
    "${apt[@]}" install --no-install-recommends "${missing[@]}" </dev/null >&2 ||
        die HF-MISSING-TOOL "apt-get could not install: ${missing[*]}"
}

# Finds cargo, which sudo may have cut out of PATH.
need_cargo() {
    local user_home='' HOME=${HOME:-/root}
    [ -z "${SUDO_USER:-}" ] || user_home=$(getent passwd "$SUDO_USER" | cut -d: -f6)
    PATH="$PATH:$HOME/.cargo/bin:${user_home:-$HOME}/.cargo/bin:/usr/local/cargo/bin:/usr/sbin:/sbin"
    export PATH
    command -v cargo >/dev/null || die HF-MISSING-TOOL "Rust is missing: see https://rustup.rs"
    # The user's cargo, run as root, would look for its toolchains with root.
    if [[ -n $user_home && $(command -v cargo) == "$user_home"/* ]]; then
        export RUSTUP_HOME=${RUSTUP_HOME:-$user_home/.rustup}
    fi
}

# Runs cargo as the user who called sudo, so that the build's files stay theirs.
run_cargo() {
    if [ -n "${SUDO_USER:-}" ] && [ "$SUDO_USER" != root ]; then
        runuser -u "$SUDO_USER" -- env PATH="$PATH" HOME="$(getent passwd "$SUDO_USER" | cut -d: -f6)" cargo "$@"
    else
        cargo "$@"
    fi
}

# Gives what root has built to the user who called sudo: their next build must not fail over it.
give_back() {
    [ -n "${SUDO_USER:-}" ] && [ "$SUDO_USER" != root ] && [ -d "$target" ] || return 0
    chown -R --from=root "$SUDO_USER:" "$target"
}

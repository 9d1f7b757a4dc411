#!/bin/bash
# Boots a small virtual machine whose kernel has virtual cameras, runs one shell command in it, and ends with its status.
#
#   vm.sh 'modprobe vivid; v4l2-ctl --list-devices'
#
# The guest sees this machine's files as they are, read-only; what it writes goes to memory and is gone afterwards, but
# for what it writes to /out, which is $OUT here. It has no network. Nothing is installed here but in $CACHE: kernel,
# modules and v4l2-ctl are unpacked there.
#
# For Debian, as root. Needs qemu-system-x86 and busybox-static, and fetches linux-image-amd64 (70 MB) and v4l-utils.
# Environment: OUT (a new folder in /tmp), CACHE, LIMIT (600 seconds), CPUS (2), MB (2048), and ACCEL: tcg, the processor
# in software, which runs everywhere; with ACCEL=kvm CPU=host it is many times faster, where that works.
set -euo pipefail

CACHE=${CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/edgevid-camera-lab}
tree=$CACHE/tree
OUT=${OUT:-$(mktemp -d)} LIMIT=${LIMIT:-600} ACCEL=${ACCEL:-tcg} CPU=${CPU:-max} CPUS=${CPUS:-2} MB=${MB:-2048}

unpack() { # kernel, modules and v4l2-ctl, once
    local image debs
    image=$(apt-cache depends linux-image-amd64 | awk '/Depends: linux-image/ {print $2}')
    debs=$(mktemp -d)
    (cd "$debs" && apt-get -o APT::Sandbox::User=root download -qq "$image" v4l-utils libv4l-0 libv4lconvert0 libv4l2rds0)
    mkdir -p "$tree"
    for package in "$debs"/*.deb; do dpkg -x "$package" "$tree"; done
    rm -r "$debs"
    for version in "$tree"/lib/modules/*; do busybox depmod -b "$tree" "$(basename "$version")"; done
}

pack() { # the initramfs: busybox, the modules that reach the host's files, and init
    local root name file
    root=$(mktemp -d)
    mkdir -p "$root"/{bin,dev,proc,sys,host,memory,guest}
    cp "$(command -v busybox)" "$root/bin"
    for name in virtio_pci 9pnet_virtio 9p overlay; do
        grep -E "/$name\.ko:" "$tree"/lib/modules/*/modules.dep
    done | sed 's/.*modules.dep://; s/://' | awk '{for (i = NF; i; i--) print $i}' | awk '!seen[$0]++' >"$root/modules"
    while read -r file; do cp "$tree"/lib/modules/*/"$file" "$root/"; done <"$root/modules"
    cat >"$root/init" <<'INIT'
#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t devtmpfs dev /dev; mount -t proc proc /proc; mount -t sysfs sys /sys
while read -r file; do insmod "/${file##*/}"; done </modules
mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000,cache=loose,ro host /host
mount -t tmpfs memory /memory && mkdir /memory/upper /memory/work
mount -t overlay -o lowerdir=/host,upperdir=/memory/upper,workdir=/memory/work guest /guest
mkdir -p /guest/out /guest/lib/modules
mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000,cache=none out /guest/out
for folder in dev proc sys; do mount --move /$folder /guest/$folder; done
mkdir -p /guest/dev/pts /guest/dev/shm
mount -t devpts devpts /guest/dev/pts; mount -t tmpfs shm /guest/dev/shm
mount -t tmpfs run /guest/run; mount -t tmpfs tmp /guest/var/tmp
exec 2>/dev/null # this shell's own "Killed"
chroot /guest /bin/sh /out/.start 2>&1
poweroff -f
INIT
    chmod +x "$root/init"
    (cd "$root" && find . | busybox cpio -o -H newc 2>/dev/null | gzip -1) >"$CACHE/initramfs.gz"
    rm -r "$root"
}

mkdir -p "$CACHE"
[ -d "$tree/lib/modules" ] || unpack
[ "$CACHE/initramfs.gz" -nt "$0" ] || pack

printf '%s\n' "$*" >"$OUT/.command"
cat >"$OUT/.start" <<START
read up _ </proc/uptime; echo \$up >/out/.booted
mount --bind $tree/lib/modules /lib/modules
busybox ip link set lo up
export HOME=/root LANG=C.UTF-8 PATH=$tree/usr/bin:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin
export LD_LIBRARY_PATH=$tree/usr/lib/x86_64-linux-gnu
modprobe() { busybox modprobe "\$@"; }
rmmod() { busybox rmmod "\$@"; }
cd /tmp
{ (. /out/.command); echo \$? >/out/.status; sleep .3; kill -9 -1; } 2>&1 | cat # what it left running ends here
START
rm -f "$OUT/.status"
timeout -k 5 "$LIMIT" qemu-system-x86_64 -accel "$ACCEL" -cpu "$CPU" -smp "$CPUS" -m "$MB" \
    -display none -serial stdio -monitor none -no-reboot -nodefaults -nic none \
    -kernel "$tree"/boot/vmlinuz-* -initrd "$CACHE/initramfs.gz" -append "console=ttyS0 quiet loglevel=3 panic=-1" \
    -fsdev "local,id=host,path=/,security_model=none,readonly=on,multidevs=remap" -device virtio-9p-pci,fsdev=host,mount_tag=host \
    -fsdev "local,id=out,path=$OUT,security_model=none" -device virtio-9p-pci,fsdev=out,mount_tag=out \
    -device virtio-rng-pci </dev/null
exit "$(cat "$OUT/.status" 2>/dev/null || echo 124)"

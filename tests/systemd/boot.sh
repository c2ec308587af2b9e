#!/bin/bash
# Boots a real systemd as process 1 of namespaces of its own, on an overlay of this machine's files,
# and runs scenario.sh in it. Nothing of the machine is written but the output folder; needs root.
#
# usage: boot.sh CHECKOUT OUTPUT PYTHON_PREFIX SITE_PACKAGES
set -e
checkout=$1 output=$2 prefix=$3 packages=$4
if [ -z "$IN_NAMESPACES" ]; then
  groups=/sys/fs/cgroup/unified; [ -d $groups ] || groups=/sys/fs/cgroup   # hybrid or unified
  own=$groups/avatar-unit-test.$$
  mkdir "$own"
  ( echo $BASHPID > "$own/cgroup.procs"
    IN_NAMESPACES=1 exec timeout -k 5 "${LIFE_S:-120}" unshare --mount --pid --fork --kill-child \
      --cgroup --uts --ipc --net bash "$0" "$@" ) || true
  echo 1 > "$own/cgroup.kill" 2> /dev/null || true
  for _ in 1 2 3 4 5 6 7 8 9 10; do  # until the last process has been reaped
    find "$own" -depth -type d -exec rmdir {} \; 2> /dev/null
    [ -d "$own" ] || break
    sleep 0.2
  done
  exit
fi
mount --make-rprivate /
top=$(mktemp -d); mount -t tmpfs tmpfs "$top"; mkdir "$top"/{upper,work,root}; root=$top/root
mount -t overlay overlay -o "lowerdir=/,upperdir=$top/upper,workdir=$top/work" "$root"
mount -t proc proc "$root/proc"; mount -t sysfs -o ro sysfs "$root/sys"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
mount -t tmpfs tmpfs "$root/run"; mount -t tmpfs tmpfs "$root/dev"
for node in null zero full random urandom tty; do
  touch "$root/dev/$node"; mount --bind "/dev/$node" "$root/dev/$node"
done
mkdir "$root"/dev/{shm,pts,mqueue}; mount -t tmpfs tmpfs "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"; ln -s /proc/self/fd "$root/dev/fd"

# The daemon where its unit expects it. The interpreter may live where the unit must not look.
opt=$root/opt/avatar-orchestrator
mkdir -p "$opt/.venv/bin" "$opt/python" "$opt/packages" "$opt/app" "$opt/output"
mount --bind "$prefix" "$opt/python"; mount --bind "$packages" "$opt/packages"
mount --bind "$output" "$opt/output"
cp -r "$checkout"/{orchestrator,pipeline,adapters,config} "$opt/app/"
python=$(basename "$(readlink -f "$prefix/bin/python3")")
cat > "$opt/.venv/bin/avatar-orchestrator" <<END
#!/bin/sh
cd /opt/avatar-orchestrator
export PYTHONPATH=\$PWD/app:\$PWD/packages LD_LIBRARY_PATH=\$PWD/python/lib
exec python/bin/$python -m orchestrator "\$@"
END
chmod 755 "$opt/.venv/bin/avatar-orchestrator"
cp "$checkout/tests/systemd/scenario.sh" "$opt/"
mkdir -p "$root/etc/avatar-orchestrator"
cp -r "$checkout"/config/{avatar.toml,emotions.toml,characters} "$root/etc/avatar-orchestrator/"
chmod -R a+rX "$root/etc/avatar-orchestrator" "$opt/app" "$opt/scenario.sh"
cp "$checkout/systemd/avatar-orchestrator.service" "$root/etc/systemd/system/"

cat > "$root/etc/systemd/system/scenario.service" <<END
[Unit]
DefaultDependencies=no
After=basic.target
[Service]
Type=oneshot
ExecStart=/bin/bash /opt/avatar-orchestrator/scenario.sh
StandardOutput=file:/opt/avatar-orchestrator/output/facts
StandardError=file:/opt/avatar-orchestrator/output/errors
ExecStopPost=/bin/systemctl exit 0
END
cat > "$root/etc/systemd/system/scenario.target" <<END
[Unit]
Requires=basic.target
After=basic.target
Wants=scenario.service dbus.service systemd-journald.service
END
ip link set lo up || true
exec chroot "$root" /usr/bin/env -i container=unshare PATH=/usr/sbin:/usr/bin:/sbin:/bin \
  /lib/systemd/systemd --system --unit=scenario.target > "$output/console" 2>&1

# Runs inside: puts the unit through its life and writes what is seen as `name value` lines.
unit=avatar-orchestrator
show() { systemctl show -p "$1" --value $unit; }
fact() { echo "$1 ${*:2}"; }
until_changed() { # property, old value, seconds
  for _ in $(seq $(( $3 * 5 ))); do
    now=$(show "$1"); [ "$now" != "$2" ] && [ "$now" != 0 ] && return; sleep 0.2
  done
}
until_active() { for _ in $(seq 150); do [ "$(show ActiveState)" = "$1" ] && return; sleep 0.2; done; }

mkdir -p /run/systemd/system/$unit.service.d
printf '[Service]\nWatchdogSec=3\nEnvironment=AVATAR_STAGE__WIDTH=128 AVATAR_STAGE__HEIGHT=128\n' \
  > /run/systemd/system/$unit.service.d/test.conf
systemctl daemon-reload

systemctl start $unit
fact start $?
fact active "$(show ActiveState)"
fact status "$(show StatusText)"
pid=$(show MainPID)
fact uid "$(stat -c %u /proc/$pid)"
for line in Seccomp: NoNewPrivs: CapEff: CapBnd:; do fact $line $(grep "^$line" /proc/$pid/status | cut -f2); done
# What the daemon sees, through the door that the kernel has for it.
eyes=/proc/$pid/root
for where in /etc /usr /run /run/lock /opt/avatar-orchestrator/app; do
  ! touch $eyes$where/x 2> /dev/null; fact "unwritable:$where" $?
done
fact home "$(cat <(ls -A $eyes/root 2> /dev/null) <(ls -A $eyes/home 2> /dev/null) | grep -c .)"
touch $eyes/var/lib/private/$unit/x; fact state:writable $?
fact state:mode "$(stat -c %a /var/lib/private/$unit)"
state_owner=$(stat -c %u /var/lib/private/$unit)
[ "$state_owner" = "$(stat -c %u /proc/$pid)" ]; fact state:own $?

systemctl reload $unit; fact reload $? "$(show ActiveState)"

kill -STOP $pid
until_changed NRestarts 0 20; until_active active
fact hung:restarts "$(show NRestarts)"; fact hung:active "$(show ActiveState)"
[ "$(show MainPID)" != $pid ]; fact hung:another $?
journalctl -u $unit -o cat | grep -c "Watchdog timeout" | xargs echo hung:journal

pid=$(show MainPID); before=$(show NRestarts)
kill -KILL $pid
until_changed NRestarts "$before" 20; until_active active
fact killed:active "$(show ActiveState)"

systemctl stop $unit; fact stop $? "$(show Result)"
ls -A /var/lib/private/$unit | grep -c . | xargs echo state:kept

# A configuration that can never work is not tried again; a crash is, until the start limit.
printf '[Service]\nEnvironment=AVATAR_STAGE__FPS=never\n' > /run/systemd/system/$unit.service.d/bad.conf
systemctl daemon-reload; systemctl reset-failed $unit
systemctl start $unit; fact config:start $?
sleep 2
fact config:status "$(show ExecMainStatus)"; fact config:restarts "$(show NRestarts)"
fact config:state "$(show ActiveState)"
printf '[Service]\nExecStart=\nExecStart=/bin/sh -c "exit 70"\nRestartSec=100ms\n' > /run/systemd/system/$unit.service.d/bad.conf
systemctl daemon-reload; systemctl reset-failed $unit
systemctl start $unit
for _ in $(seq 60); do systemctl is-failed -q $unit && break; sleep 0.2; done
sleep 1.5
fact limit:restarts "$(show NRestarts)"; fact limit:state "$(show ActiveState)"
journalctl -u $unit -o cat | grep -c "Start request repeated too quickly" | xargs echo limit:journal

#!/bin/sh
# A Slurm of one node in a folder of its own, for tests: `sh tests/slurm.sh start FOLDER`, `... stop FOLDER`.
# It needs Debian's packages slurm-wlm and munge, and root; commands find it by SLURM_CONF=FOLDER/slurm.conf.
set -eu
folder=$(mkdir -p "$2" && cd "$2" && pwd)
host=$(hostname -s)

start() {
    mkdir -p "$folder/state" "$folder/spool"
    chmod 755 "$folder"
    head -c 1024 /dev/urandom > "$folder/munge.key"
    chmod 600 "$folder/munge.key"
    cat > "$folder/slurm.conf" <<CONF
ClusterName=test
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=16817
SlurmdPort=16818
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$folder/munge.socket
CredType=cred/munge
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
JobRequeue=1
KillWait=2
ReturnToService=2
SchedulerParameters=sched_interval=2,batch_sched_delay=0,requeue_delay=1
MinJobAge=60
NodeName=$host NodeAddr=127.0.0.1 CPUs=$(nproc) State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP OverSubscribe=FORCE:4
CONF
    munged --force --key-file "$folder/munge.key" --socket "$folder/munge.socket" \
        --pid-file "$folder/munged.pid" --log-file "$folder/munged.log" --seed-file "$folder/seed"
    export SLURM_CONF="$folder/slurm.conf"
    slurmctld
    slurmd
    for _ in $(seq 30); do
        sinfo -h -o %T 2>/dev/null | grep -q idle && return
        sleep 1
    done
    echo "no node of the Slurm in $folder became idle: see its logs" >&2
    exit 1
}

stop() {
    for name in slurmd slurmctld munged; do
        [ ! -f "$folder/$name.pid" ] || kill "$(cat "$folder/$name.pid")" || true
    done
}

"$1"

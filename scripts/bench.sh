#!/usr/bin/env bash
# pgbench (TPC-B, -N, -S; 1, 8, 32 clients; prepared) against a Meridian cluster of three processes and against PostgreSQL 15 with two
# streaming replicas and synchronous_standby_names = 'ANY 1 (..)', in turn, on this machine, in one run. Both keep three durable copies and answer when two
# have it. Prints a table with transactions per second, their ratio, and both p99s.
#
# usage: bench.sh MERIDIAN-BINARY [SECONDS-PER-RUN]
set -euo pipefail
meridian=$1
seconds=${2:-10}
pg_bin=${PG_BIN:-/usr/lib/postgresql/15/bin}
work=$(mktemp -d "${TMPDIR:-/tmp}/meridian-bench.XXXXXX")
chmod 755 "$work"
pg_port=25432
sql_port=26432
clients_list="1 8 32"
pids=()

for tool in pgbench "$pg_bin/initdb"; do
  command -v "$tool" >/dev/null || { echo "bench needs $tool (Debian: postgresql-15, postgresql-contrib)" >&2; exit 1; }
done

as_postgres() {
  if [ "$(id -u)" -eq 0 ]; then (cd "$work" && setpriv --reuid=postgres --regid=postgres --clear-groups "$@"); else "$@"; fi
}

stop_all() {
  for pid in "${pids[@]:-}"; do [ -n "$pid" ] && kill "$pid" 2>/dev/null || true; done
  for name in c b a; do
    [ -f "$work/pg/$name/postmaster.pid" ] && as_postgres "$pg_bin/pg_ctl" -D "$work/pg/$name" -m immediate stop >/dev/null 2>&1 || true
  done
  wait 2>/dev/null || true
  rm -rf "$work"
}
trap stop_all EXIT

start_postgres() {
  mkdir "$work/pg"
  [ "$(id -u)" -eq 0 ] && chown postgres "$work/pg"
  as_postgres "$pg_bin/initdb" -D "$work/pg/a" -A trust --locale=C -E UTF8 >/dev/null
  as_postgres tee -a "$work/pg/a/postgresql.conf" >/dev/null <<CONF
port=$pg_port
listen_addresses='127.0.0.1'
unix_socket_directories='$work/pg'
shared_buffers=1GB
max_wal_size=8GB
wal_level=replica
max_connections=200
default_transaction_isolation='serializable'
CONF
  as_postgres "$pg_bin/pg_ctl" -D "$work/pg/a" -l "$work/pg/a.log" -w start >/dev/null
  local name port
  for name in b c; do
    port=$((pg_port + 1)); [ "$name" = c ] && port=$((pg_port + 2))
    as_postgres "$pg_bin/pg_basebackup" -h 127.0.0.1 -p $pg_port -U postgres -D "$work/pg/$name" -R -X stream -C -S "slot_$name" >/dev/null
    as_postgres sed -i "s/^port=.*/port=$port/; s/^shared_buffers=.*/shared_buffers=256MB/" "$work/pg/$name/postgresql.conf"
    as_postgres sed -i "s/^primary_conninfo.*/primary_conninfo='host=127.0.0.1 port=$pg_port user=postgres application_name=$name'/" "$work/pg/$name/postgresql.auto.conf"
    as_postgres "$pg_bin/pg_ctl" -D "$work/pg/$name" -l "$work/pg/$name.log" -w start >/dev/null
  done
  psql -qh 127.0.0.1 -p $pg_port -U postgres -c "alter system set synchronous_standby_names='ANY 1 (b,c)'" -c "select pg_reload_conf()" >/dev/null
}

start_meridian() {
  local i join
  join=127.0.0.1:27432,127.0.0.1:27433,127.0.0.1:27434
  for i in 0 1 2; do
    "$meridian" start --data "$work/m$i" --locality "region=r$i" --sql-addr 127.0.0.1:$((sql_port + i)) --rpc-addr 127.0.0.1:$((27432 + i)) \
      --http-addr 127.0.0.1:$((28432 + i)) --join $join 2>"$work/m$i.log" &
    pids+=($!)
  done
  for i in 0 1 2; do
    for _ in $(seq 300); do
      (exec 3<>"/dev/tcp/127.0.0.1/$((28432 + i))" && printf 'GET /ready HTTP/1.0\r\n\r\n' >&3 && head -1 <&3 | grep -q 200) 2>/dev/null && break
      sleep 0.2
    done
  done
}

# Prints: tps p99_ms failed
run_one() {
  local port=$1 user=$2 db=$3 script=$4 clients=$5 dir
  dir=$(mktemp -d -p "$work")
  local jobs=$clients; [ "$jobs" -gt 2 ] && jobs=2
  (cd "$dir" && pgbench -n -h 127.0.0.1 -p "$port" -U "$user" -b "$script" -c "$clients" -j "$jobs" -T "$seconds" -M prepared --max-tries=10 -l "$db" >out 2>err) || { echo "0 0 error"; tail -2 "$dir/err" >&2; return; }
  local tps failed p99
  tps=$(awk '/^tps/{print $3}' "$dir/out")
  failed=$(awk -F'[: (]+' '/number of failed transactions/{print $5}' "$dir/out")
  p99=$(cat "$dir"/pgbench_log.* | awk '$3 ~ /^[0-9]+$/ {print $3}' | sort -n | awk '{a[NR]=$1} END{if(NR){i=int(NR*0.99); if(i<1)i=1; printf "%.1f", a[i]/1000}}')
  echo "$tps $p99 ${failed:-0}"
}

echo "Starting PostgreSQL with two synchronous replicas, and three Meridian nodes."
start_postgres
start_meridian
sleep 5
pgbench -q -i -s 1 -h 127.0.0.1 -p $pg_port -U postgres postgres >/dev/null 2>&1
pgbench -q -i -s 1 -h 127.0.0.1 -p $sql_port -U root meridian >/dev/null 2>&1

printf '\n%-14s %8s | %12s %9s %7s | %12s %9s %7s | %6s\n' workload clients "pg tps" "p99 ms" failed "meridian tps" "p99 ms" failed ratio
for script in tpcb-like simple-update select-only; do
  for clients in $clients_list; do
    read -r pg_tps pg_p99 pg_failed < <(run_one $pg_port postgres postgres $script $clients)
    read -r m_tps m_p99 m_failed < <(run_one $sql_port root meridian $script $clients)
    ratio=$(awk -v a="$m_tps" -v b="$pg_tps" 'BEGIN{if(b>0)printf "%.2f", a/b; else print "-"}')
    printf '%-14s %8s | %12.0f %9s %7s | %12.0f %9s %7s | %6s\n' $script $clients "$pg_tps" "$pg_p99" "$pg_failed" "$m_tps" "$m_p99" "$m_failed" "$ratio"
  done
done
echo "scale 1, ${seconds} s per run, -M prepared, both serializable, --max-tries=10, $(nproc) cores, $(date +%F)"

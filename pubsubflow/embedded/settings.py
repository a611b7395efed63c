"""Settings of the embedded Postgres: a small footprint, low latency, full durability."""

import sys

SUPERUSER = "pubsubflow"
DATABASE = "pubsubflow"
PORT = 5432  # names the socket; no TCP port is opened

ACCESS = "local all all scram-sha-256\nlocal replication all scram-sha-256\n"
"""The whole of ``pg_hba.conf``."""

_SETTINGS = {
    # Connections: a socket in its private data folder, whatever the path of that folder is.
    "listen_addresses": "",
    "unix_socket_directories": ".",
    "port": PORT,
    "max_connections": 60,
    # Memory.
    "shared_buffers": "64MB",
    "work_mem": "8MB",
    "maintenance_work_mem": "64MB",
    "effective_cache_size": "512MB",
    "huge_pages": "off",
    "dynamic_shared_memory_type": "mmap",  # containers have little /dev/shm, logind empties it
    # Processes.
    "io_method": "sync",
    "max_worker_processes": 4,
    "max_parallel_workers_per_gather": 0,
    "max_logical_replication_workers": 0,
    # Durability: what is acknowledged is on disk. The WAL serves no replicas, but base backups, for
    # which a sender streams it.
    "fsync": "on",
    "synchronous_commit": "on",
    "wal_level": "replica",
    "max_wal_senders": 2,
    "wal_buffers": "8MB",
    # A commit writes its WAL itself. This is for those that wait for no disk: heartbeats alone.
    "wal_writer_delay": "1s",
    # Writes what is to leave the buffers; as many pages a second as by default, in fewer turns.
    "bgwriter_delay": "1s",
    "bgwriter_lru_maxpages": 500,
    "min_wal_size": "80MB",
    "max_wal_size": "512MB",  # bounds the recovery after kill -9
    "checkpoint_timeout": "10min",
    # Plans: hot queries are short, compiling them costs more than it saves.
    "jit": "off",
    "random_page_cost": 1.1,
    "deadlock_timeout": "100ms",
    # Vacuum: rows of queue-like tables are inserted and deleted all the time.
    "autovacuum_naptime": "10s",
    "autovacuum_vacuum_threshold": 200,
    "autovacuum_vacuum_scale_factor": 0.02,
    "autovacuum_vacuum_insert_scale_factor": 0.1,
    "autovacuum_analyze_threshold": 200,
    "autovacuum_analyze_scale_factor": 0.02,
    "autovacuum_vacuum_cost_delay": "1ms",
    # Locale and log.
    "timezone": "UTC",
    "log_timezone": "UTC",
    "lc_messages": "C",
    "log_line_prefix": "%m [%p] ",
    "log_checkpoints": "off",
    "logging_collector": "off",
    "cluster_name": "pubsubflow",
    "default_text_search_config": "pg_catalog.english",
    # The password is 256 random bits: stretching it gains nothing and slows each connection.
    "scram_iterations": 1,
}

CONFIGURATION = "".join(f"{name} = '{value}'\n" for name, value in _SETTINGS.items())
"""The whole of ``postgresql.conf``."""

INITDB_OPTIONS = (
    f"--username={SUPERUSER}",
    "--auth=scram-sha-256",
    "--pwfile=/dev/stdin",
    "--set=scram_iterations=1",  # as above
    "--encoding=UTF8",
    "--locale=C",
    "--locale-provider=builtin",
    "--builtin-locale=C.UTF-8",
    "--no-instructions",
    "--no-sync",  # synced once, when all is there
)

NAME_DATABASE = f"ALTER DATABASE postgres RENAME TO {DATABASE};\n"
"""Makes the database that initdb has made ours: one more would be another 300 files to sync."""

SYNC_OPTIONS = (
    "--sync-only",
    # One call for the file system: a thousand, one a file, take several times as long.
    *(("--sync-method=syncfs",) if sys.platform == "linux" else ()),
)

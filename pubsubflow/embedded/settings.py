"""Postgres' settings: a small footprint, low latency, and nothing durable given away."""

SUPERUSER = "pubsubflow"
DATABASE = "pubsubflow"
PORT = 5432  # names the socket; no TCP port is opened

ACCESS = "local all all scram-sha-256\n"
"""The whole of ``pg_hba.conf``."""

_SETTINGS = {
    # where it listens: a socket in its own private data folder, whatever that folder's path is
    "listen_addresses": "",
    "unix_socket_directories": ".",
    "port": PORT,
    "max_connections": 60,
    # memory
    "shared_buffers": "64MB",
    "work_mem": "8MB",
    "maintenance_work_mem": "64MB",
    "effective_cache_size": "512MB",
    "huge_pages": "off",
    "dynamic_shared_memory_type": "mmap",  # containers have little /dev/shm, logind empties it
    # processes
    "io_method": "sync",
    "max_worker_processes": 4,
    "max_parallel_workers_per_gather": 0,
    "max_logical_replication_workers": 0,
    # durability: acknowledged is on disk; no replicas, so the log need not feed any
    "fsync": "on",
    "synchronous_commit": "on",
    "wal_level": "minimal",
    "max_wal_senders": 0,
    "wal_buffers": "8MB",
    "min_wal_size": "80MB",
    "max_wal_size": "512MB",  # bounds what a restart after kill -9 must read again
    "checkpoint_timeout": "10min",
    # plans: hot queries are short, compiling them costs more than it saves
    "jit": "off",
    "random_page_cost": 1.1,
    "deadlock_timeout": "100ms",
    # queue-like tables die and are born all the time
    "autovacuum_naptime": "10s",
    "autovacuum_vacuum_threshold": 200,
    "autovacuum_vacuum_scale_factor": 0.02,
    "autovacuum_vacuum_insert_scale_factor": 0.1,
    "autovacuum_analyze_threshold": 200,
    "autovacuum_analyze_scale_factor": 0.02,
    "autovacuum_vacuum_cost_delay": "1ms",
    # words
    "timezone": "UTC",
    "log_timezone": "UTC",
    "lc_messages": "C",
    "log_line_prefix": "%m [%p] ",
    "log_checkpoints": "off",
    "logging_collector": "off",
    "cluster_name": "pubsubflow",
    "default_text_search_config": "pg_catalog.english",
    # the password is 256 random bits, so stretching it buys nothing and slows each connection
    "scram_iterations": 1,
}

CONFIGURATION = "".join(f"{name} = '{value}'\n" for name, value in _SETTINGS.items())
"""The whole of ``postgresql.conf``."""

INITDB_OPTIONS = (
    f"--username={SUPERUSER}",
    "--auth=trust",  # for the moment before ACCESS is in its place
    "--encoding=UTF8",
    "--locale=C",
    "--locale-provider=builtin",
    "--builtin-locale=C.UTF-8",
    "--no-instructions",
    "--no-sync",  # synced once, when all is there
)


def first_statements(password: str) -> str:
    """Give the statements that a new cluster starts with, one a line.

    Args:
        password: URL-safe characters alone, so nothing needs quoting.
    """
    return f"ALTER ROLE {SUPERUSER} PASSWORD '{password}';\nCREATE DATABASE {DATABASE};\n"

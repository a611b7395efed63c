"""The entry point: runs the named command, and reports an error in one line with an exit code.

Exit codes: 0 done, 1 the run or check in question failed, 2 usage or configuration, 3 server out of
reach.
"""

import gc
import os
import sys
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from pubsubflow.cli.coroutines import complete
from pubsubflow.cli.error_report import report
from pubsubflow.cli.leaving import leave
from pubsubflow.cli.shell.plain import plain_call
from pubsubflow.model.lazy_import import lazy_module

if TYPE_CHECKING:
    from cyclopts import App

cyclopts = lazy_module("cyclopts")
metadata = lazy_module("importlib.metadata")
completion = lazy_module("pubsubflow.cli.shell.completion")
help_texts = lazy_module("pubsubflow.cli.shell.help_texts")

_HELP = frozenset({"--help", "-h"})
INTERRUPTED = 130

# Group → (help, name → (place, help)). Commands are named as text, and each is imported when it is
# called: importing all of them would take longer than most of them run.
_COMMANDS = {
    "": (
        "",
        {
            "up": ("daemon:up", "Start everything in one daemon, with its own servers."),
            "daemon": ("daemon:daemon", "Start a daemon on your NATS and Postgres."),
            "nats-url": ("daemon:print_nats_url", "Print the URL of a daemon's own NATS."),
            "demo": ("local.demo:demo", "Run a demo pipeline, from one event to a report."),
            "init": (
                "local.project:init",
                "Create a project folder with a DAG, a test and a CI file.",
            ),
            "open": ("access.sessions:open_page", "Open the page in a browser, signed in."),
            "mcp": ("mcp:serve_tools", "Serve the API of a daemon as tools to AI assistants."),
            "compile": (
                "local.compilation:compile_folder",
                "Write what a folder of DAG files defines into a manifest.",
            ),
        },
    ),
    "dags": (
        "List, check, start and pause DAGs.",
        {
            "list": ("dags:list_dags", "List DAGs."),
            "show": ("dags:show_dag", "Show a DAG."),
            "check": (
                "local.check:check",
                "Import DAG files here, without a daemon, and report errors.",
            ),
            "trigger": ("dags:trigger_dag", "Start a run."),
            "call": ("answers.calls:call_dag", "Start a run and print its result."),
            "test": ("local.testing:run_dag", "Run a DAG in this process, without a daemon."),
            "graph": ("graph:show_graph", "Print the graph of a DAG, as text or Mermaid."),
            "versions": (
                "versions.versions:list_versions",
                "List the versions of a DAG, or show what differs between two.",
            ),
            "promote": (
                "versions.promotion:promote",
                "Start runs with a version of a DAG, or a share of them.",
            ),
            "rollback": (
                "versions.promotion:rollback",
                "Start runs with an earlier version of a DAG again.",
            ),
            "why-not": ("why_not:why_not", "Explain why no run of a DAG starts."),
            "simulate": (
                "changes.simulation:simulate_schedule",
                "Show which runs a schedule would start for given events.",
            ),
            "backfill": (
                "changes.backfills:backfill",
                "Create the runs of past ticks or of partitions.",
            ),
            "pause": ("dags:pause_dag", "Pause a DAG."),
            "unpause": ("dags:unpause_dag", "Resume a paused DAG."),
            "state": (
                "values.state:show_state",
                "Show the values that a DAG keeps from run to run, or set or reset one.",
            ),
            "delete": (
                "versions.deletion:delete_dag",
                "Delete a DAG that no file defines any more.",
            ),
            "reload": ("dags:reload_dags", "Import all DAG files again."),
        },
    ),
    "datasets": (
        "List datasets, and emit, list and replay their events.",
        {
            "list": ("datasets:list_datasets", "List datasets."),
            "show": (
                "datasets:show_dataset",
                "Show a dataset, its producers, its subscribers and how far behind they are.",
            ),
            "emit": ("datasets:emit_event", "Emit an event of a dataset."),
            "events": ("datasets:list_events", "List dataset events and their outcomes."),
            "trace": (
                "history.trace:trace_event",
                "Show what led to an event, and what it has led to.",
            ),
            "replay": ("replay:replay", "Evaluate the schedules of DAGs on past events again."),
        },
    ),
    "runs": (
        "List, explain, cancel, retry and annotate runs.",
        {
            "list": ("runs:list_runs", "List runs."),
            "show": ("runs:show_run", "Show a run and its tasks."),
            "explain": (
                "ancestry:explain_run",
                "Explain why a run exists, back to its origin.",
            ),
            "trace": (
                "history.trace:trace_run",
                "Show what led to a run, and what it has led to.",
            ),
            "wait": ("runs:wait_run", "Wait until a run has ended."),
            "cancel": ("runs:cancel_run", "Cancel a run, or many by filters."),
            "retry": (
                "changes.clearing:retry_run",
                "Run failed tasks of a run, or of many, again.",
            ),
            "clear": (
                "changes.clearing:clear_run",
                "Clear tasks of runs and run them again.",
            ),
            "mark": ("changes.marking:mark_run", "Set a run, or many, to success or failed."),
            "tag": ("runs:tag_run", "Set and remove tags of a run."),
            "note": ("runs:note_run", "Set the note of a run."),
        },
    ),
    "backfills": (
        "List backfills, wait for, pause, resume and cancel them.",
        {
            "list": ("changes.backfills:list_backfills", "List backfills with their progress."),
            "show": ("changes.backfills:show_backfill", "Show a backfill and its plan."),
            "wait": ("changes.backfills:wait_for_backfill", "Wait until its runs have ended."),
            "pause": ("changes.backfills:pause_backfill", "Pause a backfill."),
            "resume": ("changes.backfills:resume_backfill", "Resume a paused backfill."),
            "cancel": ("changes.backfills:cancel_backfill", "Cancel a backfill."),
        },
    ),
    "tasks": (
        "List tasks, print their logs, clear and mark them.",
        {
            "list": ("tasks:list_tasks", "List tasks of a run, or of many by filters."),
            "show": ("tasks:show_task", "Show a task with its result and its error."),
            "result": ("tasks:print_result", "Print what a task returned."),
            "logs": ("tasks:show_logs", "Print the logs of a task."),
            "clear": ("changes.clearing:clear_tasks", "Clear tasks and run them again."),
            "mark": ("changes.marking:mark_tasks", "Set tasks to success, failed or skipped."),
            "test": ("local.testing:run_task", "Run a task in this process, without a daemon."),
        },
    ),
    "approvals": (
        "List and answer approvals, for which tasks wait.",
        {
            "list": ("answers.approvals:list_approvals", "List approvals that wait."),
            "show": ("answers.approvals:show_approval", "Show an approval and its answers."),
            "answer": ("answers.approvals:answer_approval", "Send your answer to an approval."),
            "link": (
                "answers.approvals:link_approval",
                "Print a link by which a person without a token answers.",
            ),
        },
    ),
    "checks": (
        "List checks and what they have found, and settle the events that they hold.",
        {
            "list": ("answers.checks:list_checks", "List checks of datasets."),
            "show": ("answers.checks:show_check", "Show a check and its newest results."),
            "results": ("answers.checks:list_results", "List what checks have found."),
            "held": ("answers.checks:list_held", "List the events that checks hold."),
            "release": (
                "answers.checks:release_events",
                "Release held events to their subscribers.",
            ),
            "discard": ("answers.checks:discard_events", "Discard held events."),
            "run-again": ("answers.checks:check_again", "Check held events again."),
        },
    ),
    "alerts": (
        "List alerts, and acknowledge them.",
        {
            "list": ("answers.alerts:list_alerts", "List alerts, the newest first."),
            "show": ("answers.alerts:show_alert", "Show an alert and its callbacks."),
            "ack": ("answers.alerts:acknowledge_alert", "Acknowledge an alert."),
        },
    ),
    "pools": (
        "List pools, and limit how many of their tasks run at once.",
        {
            "list": ("pools:list_pools", "List pools, their used slots and waiting tasks."),
            "set": ("pools:set_pool", "Limit how many tasks of a pool or tag run at once."),
            "delete": ("pools:delete_pool", "Remove the limit of a pool."),
            "rates": ("pools:list_rate_limits", "List rate limits and the tasks that wait."),
        },
    ),
    "workers": (
        "List workers and the queues that they serve.",
        {"list": ("pools:list_workers", "List workers, their queues and slots.")},
    ),
    "triggers": (
        "List triggers and the other waits of tasks.",
        {"list": ("triggers:list_triggers", "List triggers, timers and watches.")},
    ),
    "hooks": (
        "List webhooks.",
        {"list": ("hooks:list_hooks", "List webhooks, with counts of their requests.")},
    ),
    "connections": (
        "Manage connections, whose secrets are stored encrypted.",
        {
            "list": ("values.connections:list_connections", "List connections."),
            "show": (
                "values.connections:show_connection",
                "Show a connection, without its secrets.",
            ),
            "set": ("values.connections:set_connection", "Create or change a connection."),
            "delete": ("values.connections:delete_connection", "Delete a connection."),
            "types": (
                "values.connections:list_types",
                "List the types of connections and their fields.",
            ),
            "test": (
                "values.connections:try_connection",
                "Check that a connection works, from the daemon.",
            ),
            "import": (
                "values.connection_files:import_connections",
                "Import connections from a JSON file.",
            ),
            "export": (
                "values.connection_files:export_connections",
                "Export all connections as JSON.",
            ),
            "rotate": ("values.connections:rotate_keys", "Encrypt all secrets with a new key."),
        },
    ),
    "variables": (
        "Manage variables, which DAGs read.",
        {
            "list": ("values.variables:list_variables", "List variables."),
            "get": ("values.variables:get_variable", "Print the value of a variable."),
            "set": ("values.variables:set_variable", "Set a variable."),
            "delete": ("values.variables:delete_variable", "Delete a variable."),
            "import": ("values.variables:import_variables", "Import variables from a JSON file."),
            "export": ("values.variables:export_variables", "Export all variables as JSON."),
        },
    ),
    "airflow": (
        "Check and import what an Airflow has: DAG files, connections, variables.",
        {
            "check": (
                "airflow.check:check",
                "Check whether Airflow's DAG files run here, and what to write where not.",
            ),
            "import": (
                "airflow.importing:import_from_airflow",
                "Import connections, variables, pools and paused DAGs from Airflow.",
            ),
        },
    ),
    "plugins": (
        "List plugins.",
        {
            "list": (
                "plugins:list_plugins",
                "List the plugins of a daemon, and their errors.",
            )
        },
    ),
    "subscriptions": (
        "Manage subscriptions, which deliver events to URLs.",
        {
            "create": ("subscriptions:create", "Create a subscription: deliver events to a URL."),
            "list": ("subscriptions:list_subscriptions", "List subscriptions."),
            "show": ("subscriptions:show", "Show a subscription."),
            "pause": ("subscriptions:pause", "Pause a subscription; its events wait."),
            "resume": ("subscriptions:resume", "Resume a subscription where it stopped."),
            "delete": ("subscriptions:delete", "Delete a subscription."),
            "test": ("subscriptions:send_test", "Send a test event to a subscription's URL."),
        },
    ),
    "dead-letters": (
        "List, edit and resend messages that could not be processed.",
        {
            "list": ("dead_letters:list_dead_letters", "List dead letters."),
            "show": ("dead_letters:show_dead_letter", "Show a dead letter and its payload."),
            "edit": ("dead_letters:edit_dead_letter", "Edit a dead letter and resend it."),
            "summary": (
                "dead_letters:summarise_dead_letters",
                "Count dead letters by kind, DAG and reason.",
            ),
            "resend": ("dead_letters:resend_dead_letters", "Resend dead letters."),
            "discard": ("dead_letters:discard_dead_letters", "Discard dead letters."),
        },
    ),
    "tokens": (
        "Create, list and revoke tokens for access to a daemon.",
        {
            "create": ("tokens:create_token", "Create a token and print it, once."),
            "list": ("tokens:list_tokens", "List tokens."),
            "revoke": ("tokens:revoke_token", "Revoke a token."),
        },
    ),
    "sessions": (
        "List and revoke the sessions of browsers.",
        {
            "list": (
                "access.sessions:list_sessions",
                "List browsers that have signed in to the page.",
            ),
            "revoke": (
                "access.sessions:revoke_session",
                "Revoke a session: the browser is signed out.",
            ),
        },
    ),
    "audit": (
        "List the audit log.",
        {"list": ("audit:list_audit", "List changes, with their authors and results.")},
    ),
    "db": (
        "Migrate, check and prune the database of a daemon.",
        {
            "migrate": ("db:migrate_database", "Migrate the tables to this version."),
            "check": ("db:check_database", "Check whether the tables are up to date."),
            "prune": ("prune:prune_database", "Remove what is older than its retention."),
        },
    ),
}


def main() -> None:
    """Run the command that the arguments name, and exit."""
    # Accepted anywhere on the command line, before a command is known.
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    debug = len(arguments) < len(sys.argv) - 1
    leave(run(arguments, debug=debug, alone=True))


def run(arguments: list[str], *, debug: bool = False, alone: bool = False) -> int:
    """Run a command and return its exit code.

    Args:
        arguments: The command line, without the program's name.
        debug: Raise errors, so that they show their traceback.
        alone: No other command runs in this process.
    """
    try:
        # Left to itself cyclopts prints an error as a panel of several lines and exits.
        if asks_version(arguments):
            # Of a command cyclopts would print its own.
            sys.stdout.write(f"{metadata.version('pubsubflow')}\n")
            return 0
        with _collection_paused():
            call = plain_call(arguments, _COMMANDS) if alone else None
            call = call or _parsed(arguments)
        code = call()
        if isinstance(code, Coroutine):
            code = complete(code)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader of the pipe has left, as `head` does. The interpreter flushes stdout once more
        # at its exit, which must not fail either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:
        if debug:
            raise
        return report(error)
    return code if isinstance(code, int) else 0


def _parsed(arguments: list[str]) -> Callable[[], Any]:
    """Return what a command line calls.

    Raises:
        CycloptsError: It is not one of a command.
    """
    command, bound, _ = make_app(arguments).parse_args(
        arguments, print_error=False, exit_on_error=False
    )
    return partial(command, *bound.args, **bound.kwargs)


@contextmanager
def _collection_paused() -> Iterator[None]:
    """Import without a search for garbage, nor one among what was imported later."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if enabled:
            gc.enable()


def asks_version(arguments: list[str]) -> bool:
    """Return whether a command line has `--version` without a number, which is a DAG's."""
    following = pairwise([*arguments, ""])
    return any(each == "--version" and not value.isdecimal() for each, value in following)


def make_app(words: Sequence[str] = ()) -> "App":
    """Return the app with all commands, none of which is imported yet.

    Args:
        words: The command line: if it begins with a group, the others are left out.
    """
    # Each command that is made takes a part of a millisecond.
    first = next(iter(words), None)
    only = first if first in _COMMANDS else None
    kind: type[App] = cyclopts.App
    if first == "__complete" or "--install-completion" in words:
        # A shell asks for the names that fit, or has the script installed by which it does.
        completion.add_completers(_COMMANDS, words[1:] if first == "__complete" else ())
        kind = completion.CompletingApp
    app = kind(
        name="pubsubflow",
        version_flags=(),
        help_format="plaintext",
        default_parameter=cyclopts.Parameter(negative=(), show_default=False),
        help="Orchestrate DAGs by dataset events. Begin with `pubsubflow demo`, or with "
        "`pubsubflow init FOLDER`. With --debug, errors show their traceback.",
    )
    for group, (group_help, commands) in _COMMANDS.items():
        if only not in (None, group):
            continue
        parent = app if not group else cyclopts.App(name=group, help=group_help, version_flags=())
        for name, (place, about) in commands.items():
            text: str | None = about
            if _HELP & {*words} and [*words[: 2 if group else 1]] == [*filter(None, (group, name))]:
                # Its own help is its whole docstring; to read that, it is imported.
                help_texts.unwrap_help(place)
                text = None
            parent.command(f"pubsubflow.cli.commands.{place}", name=name, help=text)
        if group:
            app.command(parent)
    if only is None:
        app.register_install_completion_command(help="Install completion for the shell in use.")
    return app


if __name__ == "__main__":
    main()

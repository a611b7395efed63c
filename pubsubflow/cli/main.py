"""The entry point: finds the command, and turns errors into one line and an exit code.

Exit codes: 0 done, 1 the thing asked about failed, 2 usage or configuration, 3 server out of
reach. Commands are imported when they are called, so that each starts fast.
"""

import os
import sys
from collections.abc import Iterator

from cyclopts import App, CycloptsError, Parameter

from pubsubflow.errors import (
    ConfigError,
    DefinitionError,
    InvalidInput,
    NotFound,
    PubsubflowError,
    Unavailable,
)

FAILED, USAGE, AWAY, INTERRUPTED = 1, 2, 3, 130

_COMMANDS = {
    "": (
        "",
        {
            "up": ("daemon:up", "Start everything in one daemon, with its own servers."),
            "daemon": ("daemon:daemon", "Start a daemon on NATS and Postgres of yours."),
            "demo": ("demo:demo", "Show a pipeline at work, from one event to a report."),
        },
    ),
    "dags": (
        "DAGs: what is known, and how to start them.",
        {
            "list": ("dags:list_dags", "List DAGs."),
            "show": ("dags:show_dag", "Show a DAG."),
            "check": ("check:check", "Import DAG files here, without a daemon, and report errors."),
            "trigger": ("dags:trigger_dag", "Start a run."),
            "why-not": ("why_not:why_not", "Tell why no run of a DAG starts."),
            "backfill": ("replay:backfill", "Make the runs of past ticks or of partitions."),
            "pause": ("dags:pause_dag", "Start no more runs of a DAG."),
            "unpause": ("dags:unpause_dag", "Let a paused DAG start runs again."),
        },
    ),
    "datasets": (
        "Datasets and their events.",
        {
            "list": ("datasets:list_datasets", "List datasets."),
            "emit": ("datasets:emit_event", "Say that a dataset has news."),
            "events": ("datasets:list_events", "List dataset events, and what became of them."),
            "replay": ("replay:replay", "Let DAGs decide about past events once more."),
        },
    ),
    "runs": (
        "Runs of DAGs, and why they exist.",
        {
            "list": ("runs:list_runs", "List runs."),
            "show": ("runs:show_run", "Show a run and its tasks."),
            "explain": ("runs:explain_run", "Tell why a run exists, back to the origin."),
            "wait": ("runs:wait_run", "Wait until a run has ended."),
            "cancel": ("runs:cancel_run", "End a run and stop its tasks."),
            "retry": ("clearing:retry_run", "Run the failed tasks of a run again."),
            "clear": ("clearing:clear_run", "Clear tasks of a run and run them again."),
        },
    ),
    "tasks": (
        "Tasks of runs, and their output.",
        {
            "list": ("tasks:list_tasks", "List the tasks of a run."),
            "logs": ("tasks:show_logs", "Print the output of a task."),
            "clear": ("clearing:clear_tasks", "Clear tasks and run them again."),
        },
    ),
    "pools": (
        "Pools, which bound how many tasks run at once.",
        {
            "list": ("pools:list_pools", "List pools, and who waits for them."),
            "set": ("pools:set_pool", "Let so many tasks of a pool run at once."),
            "delete": ("pools:delete_pool", "Take a pool's limit away."),
        },
    ),
    "triggers": (
        "What tasks wait for, and what watches datasets.",
        {"list": ("triggers:list_triggers", "List what is waited for, and who runs it.")},
    ),
    "hooks": (
        "Webhooks, through which other systems tell of news.",
        {"list": ("hooks:list_hooks", "List webhooks, and what came through each.")},
    ),
    "connections": (
        "Named targets, with secrets that are kept encrypted.",
        {
            "list": ("connections:list_connections", "List connections."),
            "show": ("connections:show_connection", "Show a connection, without its secrets."),
            "set": ("connections:set_connection", "Make a connection, or change one."),
            "delete": ("connections:delete_connection", "Forget a connection."),
            "rotate": ("connections:rotate_keys", "Encrypt all secrets with a new key."),
        },
    ),
    "subscriptions": (
        "Those who want events at a URL.",
        {
            "create": ("subscriptions:create", "Deliver events to a URL from now on."),
            "list": ("subscriptions:list_subscriptions", "List subscriptions."),
            "show": ("subscriptions:show", "Show a subscription."),
            "pause": ("subscriptions:pause", "Deliver nothing for a while."),
            "resume": ("subscriptions:resume", "Go on where it stopped."),
            "delete": ("subscriptions:delete", "End a subscription."),
            "test": ("subscriptions:send_test", "Send a test event."),
        },
    ),
    "dead-letters": (
        "What could not be done and waits for a person.",
        {
            "list": ("dead_letters:list_letters", "List dead letters."),
            "show": ("dead_letters:show_letter", "Show a dead letter and what it holds."),
            "edit": ("dead_letters:edit_letter", "Edit a dead letter and send it again."),
            "resend": ("dead_letters:resend_letter", "Send a dead letter again."),
        },
    ),
    "tokens": (
        "Tokens, with which others ask a daemon.",
        {
            "create": ("tokens:create_token", "Make a token and print it, once."),
            "list": ("tokens:list_tokens", "List tokens."),
            "revoke": ("tokens:revoke_token", "Let a token count no more."),
        },
    ),
    "audit": (
        "Who did what.",
        {"list": ("audit:list_audit", "List who did what, and who was not let.")},
    ),
    "db": (
        "The database of a daemon.",
        {
            "migrate": ("db:migrate_database", "Bring the tables up to date."),
            "check": ("db:check_database", "Tell whether the tables are up to date."),
        },
    ),
}


def main() -> None:
    """Run the command that the arguments name, and exit."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    debug = len(arguments) < len(sys.argv) - 1
    sys.exit(run(arguments, debug=debug))


def run(arguments: list[str], *, debug: bool = False) -> int:
    """Run a command and return its exit code.

    Args:
        arguments: The command line, without the program's name.
        debug: Let errors through, with their traceback.
    """
    try:
        code = make_app()(
            arguments, print_error=False, exit_on_error=False, result_action="return_value"
        )
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:
        if debug:
            raise
        return _report(error)
    return code if isinstance(code, int) else 0


def make_app() -> App:
    """Return the commands, none of which is imported yet."""
    app = App(
        name="pubsubflow",
        help_format="plaintext",
        default_parameter=Parameter(negative=(), show_default=False),
        help="Datasets in, runs out, in milliseconds. With --debug, errors show their traceback.",
    )
    for group, (text, commands) in _COMMANDS.items():
        parent = app if not group else App(name=group, help=text)
        for name, (place, about) in commands.items():
            parent.command(f"pubsubflow.cli.{place}", name=name, help=about)
        if group:
            app.command(parent)
    return app


def exit_code(error: Exception) -> int:
    """Return what an error means to whoever called."""
    if isinstance(error, Unavailable):
        return AWAY
    usage = CycloptsError | ConfigError | DefinitionError | InvalidInput | NotFound
    return USAGE if isinstance(error, usage) else FAILED


def _report(error: Exception) -> int:
    """Print an error in one line and return the exit code."""
    causes = list(_leaves(error))
    known = (each for each in causes if isinstance(each, PubsubflowError | CycloptsError))
    cause = next(known, None)
    if cause is None:
        text = f"{_one_line(causes[0]) or 'no details'} ({type(causes[0]).__name__}, a fault of "
        sys.stderr.write(f"pubsubflow: {text}pubsubflow's own; --debug shows where)\n")
        return FAILED
    sys.stderr.write(f"pubsubflow: {_one_line(cause)}\n")
    return exit_code(cause)


def _leaves(error: Exception) -> Iterator[Exception]:
    """Yield the errors that task groups gathered, or the error itself."""
    if isinstance(error, ExceptionGroup):
        for each in error.exceptions:
            yield from _leaves(each)
    else:
        yield error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


if __name__ == "__main__":
    main()

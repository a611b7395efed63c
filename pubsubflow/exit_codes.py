"""Process exit codes in words, for errors and logs."""

import signal


def describe_exit(code: int) -> str:
    """Return how a process ended, from its exit code: `SIGKILL` or `exit code 1`.

    Args:
        code: As `subprocess` has it: negative for a signal.
    """
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"


class TaskExited(BaseException):
    """Carries a SystemExit or KeyboardInterrupt, its cause, out of an asyncio task of user code."""

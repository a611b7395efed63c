"""Branch operators decide which of the following tasks run."""

from pubsubflow.authoring.tasks.operators import PythonOperator


class BranchPythonOperator(PythonOperator):
    """Calls a function that returns the id, or ids, of the tasks to follow; None follows none.

    Args:
        python_callable: The function, `def` or `async def`.
        op_args: Its positional arguments.
        op_kwargs: Its keyword arguments.
    """

    role = "branch"


class ShortCircuitOperator(PythonOperator):
    """Calls a function whose false result skips everything after the task.

    Args:
        python_callable: The function, `def` or `async def`.
        op_args: Its positional arguments.
        op_kwargs: Its keyword arguments.
    """

    role = "short_circuit"

"""The notebook operator with papermill and a kernel, which `make papermill` installs."""

import json

import pytest

from pubsubflow import DAG, Dataset
from pubsubflow.operators import PapermillOperator

pytest.importorskip("papermill", reason="a kernel is heavy: `make papermill` has it")
pytestmark = pytest.mark.filterwarnings("ignore")  # of Jupyter's libraries


def notebook(path, code):
    """Write a notebook: a cell of parameters, and one of code."""
    cells = [(["parameters"], "day = 'none'"), ([], code)]
    content = {
        "cells": [
            {
                "cell_type": "code",
                "metadata": {"tags": tags},
                "source": text,
                "outputs": [],
                "execution_count": None,
            }
            for tags, text in cells
        ],
        "metadata": {"kernelspec": {"name": "python3", "language": "python", "display_name": "p"}},
        "nbformat": 4,
        "nbformat_minor": 4,
    }
    path.write_text(json.dumps(content))
    return str(path)


def test_a_notebook_gets_its_parameters_and_its_output_is_the_log(tmp_path):
    source = notebook(tmp_path / "in.ipynb", "import os; print('it is', day, os.getcwd())")
    target = str(tmp_path / "out-{{ run.dag_id }}.ipynb")
    with DAG("tried") as dag:
        PapermillOperator(
            task_id="chart",
            input_nb=source,
            output_nb=target,
            parameters={"day": "{{ run.dag_id }}"},
            cwd=str(tmp_path),
            outlets=[Dataset("file:///charts")],
        )
    result = dag.test()
    task = result.tasks["chart"][0]
    assert result.result("chart") == str(tmp_path / "out-tried.ipynb"), task.error
    assert any(f"it is tried {tmp_path}" in line.message for line in task.logs)
    assert result.emitted[0].extra == {"notebook": result.result("chart")}
    assert "it is tried" in (tmp_path / "out-tried.ipynb").read_text()


def test_a_cell_that_raises_fails_the_task_and_the_notebook_is_there(tmp_path):
    source = notebook(tmp_path / "in.ipynb", "raise ValueError(day + '!')")
    with DAG("tried") as dag:
        PapermillOperator(
            task_id="chart",
            input_nb=source,
            output_nb=str(tmp_path / "out.ipynb"),
            parameters={"day": "monday"},
        )
    result = dag.test()
    error = result.tasks["chart"][0].error
    assert error.type == "NotebookFailed"
    assert error.message == "cell 3 raised ValueError: monday!"
    assert "monday!" in (tmp_path / "out.ipynb").read_text()

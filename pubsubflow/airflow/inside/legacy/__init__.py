"""The legacy layer: files of Airflow 1.10 and 2.x are imported with the Airflow of today.

The old imports of a team's own files are rewritten while they are compiled (`rewrite`), by one
table (`moved`); old keywords are renamed where DAGs and operators are made (`keywords`); old names
of a task's context are added to it (`context`). Each use is noted with its file and line.
"""

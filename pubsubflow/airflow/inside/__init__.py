"""The half that runs in the interpreter that has Airflow: loads files, runs attempts and triggers.

It imports msgspec, the standard library, Airflow, and modules of pubsubflow that need no more.
"""

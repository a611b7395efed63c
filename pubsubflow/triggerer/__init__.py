"""Runs triggers: what tasks wait for, and what watches datasets.

The daemon's side is `service`; `host` is the child process in which triggers run.
"""

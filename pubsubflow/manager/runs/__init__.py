"""Runs: lifecycle, waits, clearing, pools."""

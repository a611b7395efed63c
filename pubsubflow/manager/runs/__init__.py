"""Changes to runs: task lifecycle, waits, clearing, pools."""

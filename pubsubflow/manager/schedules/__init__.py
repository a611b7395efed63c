"""Creation of runs: DAG states, conditions, admission, commands, replay."""

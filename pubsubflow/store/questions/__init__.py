"""Questions of Airflow's tasks and triggers: answers, and changes that take effect at once."""

"""CEL expressions over events: checks, evaluation, and the process of what may take long."""

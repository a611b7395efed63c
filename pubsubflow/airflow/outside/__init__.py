"""The half that runs in our interpreter: makes DAGs of what was loaded, and answers attempts."""

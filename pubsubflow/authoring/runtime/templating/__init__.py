"""What templates are made of: macros, and files beside the DAG file."""

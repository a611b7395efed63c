"""Parts of templates: macros, and files beside the DAG file."""

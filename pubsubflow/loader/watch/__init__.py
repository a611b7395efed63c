"""The watch of the DAGs folder: what changes in it is noticed."""

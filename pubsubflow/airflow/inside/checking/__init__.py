"""The check of a folder of DAG files: each is loaded in a child process, and reported."""

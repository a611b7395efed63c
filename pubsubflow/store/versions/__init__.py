"""Versions of DAGs: put in force, promoted and rolled back."""

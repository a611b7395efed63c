"""Commands for those who come from Airflow: they check its files, and import what it holds."""

from airflow import DAG
raise RuntimeError("this dag is ignored")

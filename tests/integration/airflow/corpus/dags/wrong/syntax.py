from airflow import DAG

dag = DAG("syntax_error"

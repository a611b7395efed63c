from airflow import DAG

dag = DAG("name_error", start_date=days_ago(1))

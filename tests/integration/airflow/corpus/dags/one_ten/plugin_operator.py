from datetime import datetime

from airflow import DAG

from operators.stage import StageOperator

dag = DAG('plugin_operator', start_date=datetime(2019, 1, 12), schedule_interval='0 * * * *', max_active_runs=1)
stage_events = StageOperator(task_id='stage_events', table='staging_events', dag=dag)
stage_songs = StageOperator(task_id='stage_songs', table='staging_songs', dag=dag)

from datetime import datetime

from airflow import DAG
from airflow.models import Variable
from airflow.operators.bash_operator import BashOperator

bucket = Variable.get('bucket', default_var='s3://none')
config = Variable.get('etl_config', deserialize_json=True)

dag = DAG('variables_1_10', start_date=datetime(2018, 1, 1), schedule_interval=config['schedule'])
BashOperator(task_id='sync', bash_command='aws s3 sync {} .'.format(bucket), dag=dag)

from datetime import datetime

from airflow import DAG
from airflow.models import BaseOperator
from airflow.utils.decorators import apply_defaults


class RowCountOperator(BaseOperator):
    template_fields = ('table',)
    ui_color = '#89DA59'

    @apply_defaults
    def __init__(self, table, expected=0, *args, **kwargs):
        super(RowCountOperator, self).__init__(*args, **kwargs)
        self.table = table
        self.expected = expected

    def execute(self, context):
        self.log.info('%s: %s', self.table, context['execution_date'])


dag = DAG('custom_operator_1_10', start_date=datetime(2019, 1, 1), schedule_interval='@daily')
for table in ['users', 'songs', 'times']:
    RowCountOperator(task_id='count_' + table, table=table, dag=dag, provide_context=True)

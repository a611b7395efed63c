from airflow.models import BaseOperator
from airflow.utils.decorators import apply_defaults


class StageOperator(BaseOperator):
    ui_color = '#358140'

    @apply_defaults
    def __init__(self, table='', *args, **kwargs):
        super(StageOperator, self).__init__(*args, **kwargs)
        self.table = table

    def execute(self, context):
        self.log.info(self.table)

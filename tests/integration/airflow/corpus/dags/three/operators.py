from datetime import datetime, timedelta

from airflow.sdk import BaseHook, BaseOperator, BaseSensorOperator, Connection, Context, DAG, PokeReturnValue, Variable


class Pull(BaseOperator):
    template_fields = ("table",)

    def __init__(self, *, table: str, **kwargs):
        super().__init__(**kwargs)
        self.table = table

    def execute(self, context: Context):
        return Variable.get("x", default=None), BaseHook.get_connection("dw"), Connection.get("dw")


class Wait(BaseSensorOperator):
    def poke(self, context: Context):
        return PokeReturnValue(True, "x")


with DAG("operators_3", schedule=timedelta(hours=1), start_date=datetime(2025, 1, 1)):
    Wait(task_id="wait", mode="reschedule") >> Pull(task_id="pull", table="{{ ds }}")

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.providers.standard.triggers.file import FileDeleteTrigger
from airflow.sdk import DAG, Asset, AssetWatcher

watched = Asset("file:///drop", watchers=[AssetWatcher(name="w", trigger=FileDeleteTrigger(filepath="/drop/x"))])

with DAG("watcher_3", schedule=[watched]):
    EmptyOperator(task_id="a")
